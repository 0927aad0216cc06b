//! Clusters on one machine, without a daemon: each node is a runc container on a shared read-only image.
//!
//! [`Plan`] decides names and addresses, [`Cluster`] makes and removes what it says, and [`State`] remembers it on disk so
//! that a killed create or a reboot can be cleaned up. Tools of the host (`ip`, `nft`, `runc`, `mount`) do the work; the
//! crate opens no terminal, reads no environment, and knows nothing about what runs inside a node.

pub mod agent;
mod cgroups;
mod cluster;
mod command;
mod destroy;
mod error;
mod host;
mod mounts;
mod network;
mod node;
mod plan;
mod precheck;
mod process;
pub mod registry;
mod spec;
mod state;
pub mod up;

pub use cluster::{Cluster, ClusterSpec, NodeReport};
pub use destroy::{Destroyed, Leftovers, destroy};
pub use error::{Problem, ProvisionError};
pub use host::notices;
pub use plan::{DISCOVERY_PORT, NAME_LIMIT, NodeSpec, Plan, PlanError, PlannedNode, Role};
pub use precheck::missing_tools;
pub use spec::Limits;
pub use state::{Phase, State};
