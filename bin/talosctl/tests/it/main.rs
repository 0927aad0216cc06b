//! The program as operators run it, against a server with mutual TLS in this process.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod files;
mod get;
mod nodes;
mod server;
mod shell;
mod tls;
