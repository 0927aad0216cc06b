//! How our gRPC servers meet the network: TLS listeners whose certificates can be swapped, Unix sockets, dialling
//! other nodes, the audit layer that logs every call, and the frame of the programs that serve.
//!
//! Nothing here knows a method or a role.

pub mod audit;
mod connection;
pub mod dial;
pub mod follow;
mod limiter;
mod peer;
pub mod plain;
pub mod program;
pub mod serve;
pub mod slot;
mod tls_incoming;
pub mod unix;

pub use audit::AuditLayer;
pub use connection::Connection;
pub use limiter::{Limits, WhenFull, source};
pub use peer::{PeerIdentity, PeerInfo};
pub use plain::{PlainConnection, PlainIncoming};
pub use slot::Slot;
pub use tls::{ClientAuth, Identity, IdentityError, Roots, client_config, server_config};
pub use tls_incoming::{TlsConnection, TlsIncoming};

/// The largest message that the API takes or gives, in bytes.
pub const MAX_MESSAGE: usize = 32 << 20;

/// Flow-control window of a call: buffered bytes for a stalled reader. Each such call costs that much memory.
const STREAM_WINDOW: u32 = 256 << 10;

/// Flow-control window of a connection: the maximum of HTTP/2. Calls of many clients share a connection to `machined`
/// and to other nodes, so stalled readers must not use up the window of the others.
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;
