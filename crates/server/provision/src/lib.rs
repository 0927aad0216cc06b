//! Clusters on one machine, without a daemon: each node is made by a driver: a runc container on a read-only
//! image, or a virtual machine.
//!
//! [`Plan`] decides names, slots and addresses, [`NodeDriver`] makes nodes, [`Cluster`] carries out the plan with it, and
//! [`State`] remembers it on disk so that a killed create or a reboot can be cleaned up. Tools of the host (`ip`, `nft`, `runc`,
//! `mount`) do the work; the crate opens no terminal, reads no environment, and knows nothing about the inside of a node.

pub mod agent;
mod agent_record;
mod boot;
mod cluster;
mod command;
mod destroy;
mod driver;
mod error;
mod exposed;
mod folder;
mod host;
mod logs;
pub mod machines;
mod mounts;
mod network;
mod plan;
mod precheck;
mod process;
mod program;
pub mod registry;
mod spec;
mod state;
pub mod up;

pub use cluster::{Cluster, NodeReport};
pub use destroy::{Destroyed, Leftovers, destroy};
pub use driver::{Ended, Exit, NodeDriver, NodeStatus, Seed, monitor};
pub use error::{DriverError, HostError, Problem, ProvisionError};
pub use exposed::{ExposedPort, ParseExposedPortError, Transport};
pub use plan::{DISCOVERY_PORT, NAME_LIMIT, Network, NodeSpec, Plan, PlanError, PlannedNode, Role};
pub use spec::{ClusterSpec, DriverSettings, Limits};
pub use state::{Contexts, NodeSettings, Phase, Power, State, WrittenContext};
