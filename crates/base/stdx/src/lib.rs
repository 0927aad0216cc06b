//! Utilities for every crate: error chains, backoff, secrets, clocks, named tasks, Go-style durations, hexadecimal
//! text, and the version.
//!
//! It knows nothing about resources, the wire or the node, and does no I/O.

pub mod backoff;
pub mod clock;
pub mod duration;
pub mod error;
mod hex;
pub mod secret;
pub mod tasks;
pub mod version;

pub use backoff::Backoff;
pub use clock::{Clock, SystemClock};
pub use error::{ErrorChain, error_chain};
pub use hex::hex;
pub use secret::Secret;
