//! DHCPv4: messages of clients and servers, leases, the client as a state machine without I/O, and the sockets that it needs.
//!
//! [`Client`] decides; it is given the time, packets and changes of the host's name, and returns what to send and which lease
//! is in force. [`Sockets`] sends and receives for it. Nothing here touches addresses or routes: a lease is a value, and
//! others make it effective. A server that uses [`Message`] is in the crate `provision`.

mod client;
mod code;
#[cfg(any(test, feature = "testing"))]
mod fake;
mod filter;
mod frame;
mod lease;
mod message;
mod options;
mod socket;

pub use client::{Action, Client, Destination, Event, Loss, NameRequest, Settings};
pub use code::Code;
#[cfg(any(test, feature = "testing"))]
pub use fake::{FakeServer, FakeSockets};
pub use lease::{Lease, LeaseError};
pub use message::{DecodeError, Message, MessageType, Op};
pub use socket::{KernelSockets, LinkAddress, Socket, SocketError, Sockets};
