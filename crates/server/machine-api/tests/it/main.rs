//! The machine API over a real Unix socket.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod machine;
mod remote;
mod secrecy;
mod state;
