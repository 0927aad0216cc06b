//! `apid`: the one door of a node. It ends mutual TLS, decides by role, and carries each call to the local `machined`
//! or, on control planes, to the `apid` of other nodes.
//!
//! It never decodes a message that it passes on. What it must know of its own node (certificates, machine type,
//! addresses, members) it watches on a read-only state socket. `maintenance` is the same door before there is a
//! configuration: no client certificates, few methods.

pub mod authz;
mod fanout;
mod frame;
pub mod maintenance;
mod node;
mod proxy;
mod route;
mod serve;
mod watch;

pub use watch::TYPES;

pub use node::{Forwarding, NodeState};
pub use proxy::{Backends, Proxy};
pub use serve::{Options, RunError, run, serve};

/// The port of `apid` on every node.
pub const PORT: u16 = 50_000;
