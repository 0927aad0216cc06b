//! Client of the machine API: talosconfig, mutual TLS, endpoint failover, routing to nodes, and typed calls.
//!
//! A [`Client`] holds one connection that dials a list of endpoints in turn and remembers the last one that answered.
//! Where a request goes is decided by its metadata: [`Client::to_node`] sends to one node, [`Client::to_nodes`] to
//! several at once, whose answers come back as one [`NodeReply`] each. The crate reads no environment and prints
//! nothing; paths and times come from the caller.

mod connection;
mod credentials;
mod dial;
mod endpoint;
mod error;
mod files;
mod kubeconfig;
mod machine;
mod reply;
mod state;
pub mod talosconfig;
mod tls;

pub use crate::tls::ServerTrust;
pub use ::tls::{Fingerprint, ParseFingerprintError};
pub use connection::{Channel, Client, ConnectOptions, DEFAULT_CALL_TIMEOUT, MAX_MESSAGE_SIZE, RouteInterceptor};
pub use credentials::{Credentials, CredentialsError};
pub use dial::{DialAttempt, DialError};
pub use endpoint::{DEFAULT_PORT, Endpoint, ParseEndpointError};
pub use error::{CallError, ConnectError, Failure};
pub use files::{MAX_FILE_SIZE, read_all, read_file, replace_file, utf8};
pub use machine::{NodeStream, StreamItem};
pub use reply::{NodeError, NodeReply, WithMetadata};
pub use state::{Definition, PrintColumn, Resource, ResourceMetadata, StateClient, WatchEvent, WatchEventKind};
pub use talosconfig::{ConfigContext, TalosConfig};
