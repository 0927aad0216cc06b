//! Inputs of a cluster.

use std::net::SocketAddrV4;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::HostError;
use crate::exposed::ExposedPort;
use crate::machines::MachineSettings;
use crate::plan::Plan;

/// Inputs of a cluster.
#[derive(Debug, Clone)]
pub struct ClusterSpec {
    pub plan: Plan,
    pub driver: DriverSettings,
    /// The OCI image layout that the cluster's registry serves.
    pub bundle: Option<PathBuf>,
    /// The discovery server's program.
    pub discoveryd: Option<PathBuf>,
    /// The program of the key service, which seals keys of machines' disks.
    pub kmsd: Option<PathBuf>,
    /// Listeners of this host that nodes may reach besides those of the cluster's agent, such as an image mirror.
    pub reachable: Vec<SocketAddrV4>,
    /// Ports of this host that lead to the first control plane.
    pub exposed: Vec<ExposedPort>,
}

/// Which driver makes the nodes, and its settings for all of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DriverSettings {
    /// runc containers on a read-only squashfs.
    Runc { image: PathBuf },
    /// Virtual machines.
    Qemu(Box<MachineSettings>),
}

impl DriverSettings {
    /// The driver's name in tables.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Runc { .. } => "runc",
            Self::Qemu(_) => "qemu",
        }
    }

    /// With the paths of files as they are for programs in other folders.
    pub(crate) fn resolved(self) -> Result<Self, HostError> {
        match self {
            Self::Runc { image } => {
                Ok(Self::Runc { image: std::fs::canonicalize(&image).map_err(HostError::io("reading", &image))? })
            }
            Self::Qemu(mut machines) => {
                for path in machines.files_mut() {
                    *path = std::fs::canonicalize(&*path).map_err(HostError::io("reading", path))?;
                }
                Ok(Self::Qemu(machines))
            }
        }
    }

    /// The settings of virtual machines, where nodes are such.
    #[must_use]
    pub fn machines(&self) -> Option<&MachineSettings> {
        match self {
            Self::Runc { .. } => None,
            Self::Qemu(machines) => Some(machines),
        }
    }

    /// As [`Self::machines`], to change them.
    #[cfg(test)]
    pub(crate) fn machines_mut(&mut self) -> Option<&mut MachineSettings> {
        match self {
            Self::Runc { .. } => None,
            Self::Qemu(machines) => Some(machines),
        }
    }
}

/// Resource limits of a node; what a virtual machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Thousandths of a CPU; none is no limit.
    pub milli_cpus: Option<u64>,
    /// Bytes; none is no limit.
    pub memory: Option<u64>,
}
