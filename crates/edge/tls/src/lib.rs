//! TLS configurations of our clients and servers, all from one place: which versions, which cryptography, HTTP/2, what
//! proves a peer.
//!
//! Nothing here opens a connection; that is the work of `transport`, `client` and the other crates of the edge.

mod client;
mod fingerprint;
mod identity;
mod pinned;
mod server;

pub use client::{ClientTls, client_config};
pub use fingerprint::{Fingerprint, ParseFingerprintError};
pub use identity::{Identity, IdentityError, Roots};
pub use server::{ClientAuth, server_config};
