//! The time: packets of NTP, a client as a state machine without I/O, queries to servers and to PTP clocks, and the kernel's
//! clock.
//!
//! [`Client`] decides whom to ask, when, and what to do about the clock; [`Ask`] asks, [`SystemTime`] adjusts. It is a simple
//! client (SNTP, RFC 4330 with the packets of RFC 5905): it follows one server at a time. [`respond`] is
//! the answer of a server, for networks without one.

mod ask;
mod client;
mod clock;
#[cfg(any(test, feature = "testing"))]
mod fake;
mod offset;
mod packet;
mod server;
mod spikes;

pub use ask::{Ask, AskError, KernelAsk};
pub use client::{Action, Adjustment, Client, Event, Target};
pub use clock::{AdjtimeState, KernelTime, SystemTime, TimeError};
#[cfg(any(test, feature = "testing"))]
pub use fake::{FakeAsk, FakeTime};
pub use offset::Offset;
pub use packet::{Answer, Leap, PacketError, Request, Sample, Timestamp};
pub use server::respond;
