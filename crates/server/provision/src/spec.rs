//! What a cluster is made from.

use std::net::SocketAddrV4;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::plan::Plan;

/// What a cluster is made from.
#[derive(Debug, Clone)]
pub struct ClusterSpec {
    pub plan: Plan,
    /// What all nodes run.
    pub image: PathBuf,
    /// The OCI image layout that the cluster's registry serves.
    pub bundle: Option<PathBuf>,
    /// The discovery server's program.
    pub discoveryd: Option<PathBuf>,
    /// Listeners of this host that nodes may reach besides those of the cluster's agent, such as an image mirror.
    pub reachable: Vec<SocketAddrV4>,
}

/// What a node may use at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Thousandths of a CPU; none is no limit.
    pub milli_cpus: Option<u64>,
    /// Bytes; none is no limit.
    pub memory: Option<u64>,
}
