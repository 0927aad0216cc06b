//! How our gRPC servers meet the network: TLS 1.3 listeners whose certificates can be swapped, Unix sockets, dialling
//! other nodes, the audit layer that logs every call, and the frame of the programs that serve.
//!
//! Nothing here knows a method or a role.

pub mod audit;
pub mod dial;
pub mod follow;
pub mod identity;
pub mod program;
pub mod serve;
pub mod slot;
pub mod tls;
pub mod unix;

pub use audit::AuditLayer;
pub use identity::{Identity, IdentityError, Roots};
pub use slot::Slot;
pub use tls::{ClientAuth, PeerInfo, TlsIncoming, server_config};

/// The largest message that the API takes or gives, in bytes.
pub const MAX_MESSAGE: usize = 32 << 20;
