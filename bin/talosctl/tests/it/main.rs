//! The program as operators run it, against a server with mutual TLS in this process.

#![expect(clippy::unwrap_used, reason = "a failing test names its line")]

mod change;
mod files;
mod get;
mod nodes;
mod power;
mod server;
mod shell;
mod tls;
