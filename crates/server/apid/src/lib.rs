//! `apid`: the API server of a node. It ends mutual TLS, decides by role, and carries each call to the local `machined`
//! or, on control planes, to the `apid` of other nodes.
//!
//! It never decodes a message that it passes on. What it must know of its own node (certificates, machine type,
//! addresses, members) it watches on a read-only state socket. Each caller has a quota of open calls and of connections,
//! with a part kept for administrators. `maintenance` serves a node before there is a configuration: no client
//! certificates, few methods.

pub mod authz;
mod fanout;
mod frame;
pub mod maintenance;
mod node;
mod proxy;
mod quota;
mod request_limit;
mod route;
mod serve;
mod watch;

pub use watch::TYPES;

pub use node::{Forwarding, NodeState};
pub use proxy::{Backends, Proxy};
pub use quota::CallLimits;
pub use serve::{Options, RunError, run, serve};

/// The port of `apid` on every node.
pub const PORT: u16 = 50_000;
