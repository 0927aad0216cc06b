//! How our gRPC servers meet the network: TLS listeners whose certificates can be swapped, Unix sockets, dialling
//! other nodes, the audit layer that logs every call, and the frame of the programs that serve.
//!
//! Nothing here knows a method or a role.

pub mod audit;
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
pub use limiter::{Limits, WhenFull, source};
pub use peer::{PeerIdentity, PeerInfo};
pub use plain::PlainIncoming;
pub use slot::Slot;
pub use tls::{ClientAuth, Identity, IdentityError, Roots, client_config, server_config};
pub use tls_incoming::TlsIncoming;

/// The largest message that the API takes or gives, in bytes.
pub const MAX_MESSAGE: usize = 32 << 20;

/// What a call may have on its way to a reader that does not read, in bytes. Each such call costs that much memory.
const STREAM_WINDOW: u32 = 256 << 10;

/// What all calls of a connection may have on their way: the most that HTTP/2 knows. Calls of many clients share a
/// connection to `machined` and to other nodes, so readers that stand still must not use up what the others need.
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;
