//! Inputs of a cluster.

use std::net::SocketAddrV4;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::exposed::ExposedPort;
use crate::plan::Plan;

/// Inputs of a cluster.
#[derive(Debug, Clone)]
pub struct ClusterSpec {
    pub plan: Plan,
    /// Settings of all nodes.
    pub image: PathBuf,
    /// The OCI image layout that the cluster's registry serves.
    pub bundle: Option<PathBuf>,
    /// The discovery server's program.
    pub discoveryd: Option<PathBuf>,
    /// Listeners of this host that nodes may reach besides those of the cluster's agent, such as an image mirror.
    pub reachable: Vec<SocketAddrV4>,
    /// Ports of this host that lead to the first control plane.
    pub exposed: Vec<ExposedPort>,
}

/// Resource limits of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Thousandths of a CPU; none is no limit.
    pub milli_cpus: Option<u64>,
    /// Bytes; none is no limit.
    pub memory: Option<u64>,
}
