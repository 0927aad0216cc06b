//! `trustd`: signs the server certificates of workers against the machine token. It runs on control planes.
//!
//! A worker sends its token in the metadata of the call ([`TOKEN`]). Of its request only the key, the common name and
//! the alternative names are kept, without those of control planes and wildcards: what comes back is a certificate for
//! servers without organizations, so it can never be a role, nor stand in for a control plane. Authority, token and own certificate come from a read-only state socket and are taken up when they change.

mod names;
mod serve;
mod service;
mod watch;

pub use names::Reserved;
pub use serve::{Options, RunError, run};
pub use service::{Security, Trust};
pub use watch::TYPES;

/// The port of `trustd` on control planes.
pub const PORT: u16 = 50_001;

/// The metadata key of the machine token.
pub const TOKEN: &str = "token";
