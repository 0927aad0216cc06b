//! Drivers of nodes: the seam between a cluster and its machines.
//!
//! A driver makes the nodes of one cluster and knows how they run: as runc containers (`runc`) or as virtual machines
//! (`qemu`). Everything above the trait (plan, state, agent, `up`, `destroy`) names no container, bundle, namespace or image
//! format.

#[cfg(test)]
pub(crate) mod fake;
mod launched;
pub(crate) mod qemu;
mod runc;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::error::{DriverError, Problem, ProvisionError};
use crate::folder::Folder;
use crate::plan::{Plan, PlannedNode};
use crate::program::Launcher;
use crate::spec::{ClusterSpec, DriverSettings, Limits};

/// Inputs of a node's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seed<'a> {
    /// The machine configuration; without one the node waits in maintenance mode.
    pub user_data: Option<&'a [u8]>,
    pub limits: Limits,
}

/// How a node's init ended. The status is part of the node's contract: 0 powered off, 64 reboot, anything else a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Ended {
    /// It shall stay off.
    PoweredOff,
    /// It shall be powered on again.
    Reboot,
    /// It shall be powered on again.
    Crashed(Exit),
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Exit {
    Code(i32),
    Signal(i32),
    /// Unobserved: its monitor ended first.
    Unknown,
}

/// The status of an init that asks to be powered on again.
const REBOOT: i32 = 64;

impl Ended {
    pub(crate) fn of(exit: Exit) -> Self {
        match exit {
            Exit::Code(0) => Self::PoweredOff,
            Exit::Code(REBOOT) => Self::Reboot,
            other => Self::Crashed(other),
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PoweredOff => f.write_str("powered off"),
            Self::Reboot => f.write_str("rebooting"),
            Self::Crashed(Exit::Code(code)) => write!(f, "crashed (exit code {code})"),
            Self::Crashed(Exit::Signal(signal)) => write!(f, "crashed (signal {signal})"),
            Self::Crashed(Exit::Unknown) => f.write_str("crashed (exit status unknown)"),
        }
    }
}

/// Status of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeStatus {
    /// It was never started, or it was removed.
    Absent,
    Running {
        /// Of its init, or of the process that is the machine.
        pid: u32,
    },
    Ended(Ended),
}

impl fmt::Display for NodeStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("absent"),
            Self::Running { .. } => f.write_str("running"),
            Self::Ended(ended) => ended.fmt(f),
        }
    }
}

/// Makes and keeps the nodes of one cluster.
///
/// **Guarantees.** Objects that a driver makes outside of the cluster's folder follow from the cluster's name alone, so that
/// [`Self::remove_all`] finds it also where the state is lost. Nodes outlive the process that started them. Dropping a future
/// lets a step that has begun finish.
/// **Assumptions.** One call at a time changes a node; the cluster's lock sees to that. [`Self::has_ended`] and
/// [`Self::report`] change nothing and need no lock.
#[async_trait]
pub trait NodeDriver: fmt::Debug + Send + Sync {
    /// All reasons why this host cannot make these nodes. Changes nothing.
    fn problems(&self, spec: &ClusterSpec) -> Vec<Problem>;

    /// Restrictions of nodes here, one sentence each. Reads only.
    fn notices(&self, plan: &Plan) -> Vec<String>;

    /// Creates the nodes' shared parts, such as network and image.
    async fn prepare(&self, spec: &ClusterSpec) -> Result<(), DriverError>;

    /// Lets nodes reach a TCP port of the gateway.
    async fn open_port(&self, plan: &Plan, port: u16) -> Result<(), DriverError>;

    /// Makes a node's disks, where they are missing, and puts its configuration and limits where it will find them.
    async fn seed(&self, plan: &Plan, node: &PlannedNode, seed: Seed<'_>) -> Result<(), DriverError>;

    /// Powers a node on for the first time.
    async fn start(&self, plan: &Plan, node: &PlannedNode) -> Result<(), DriverError>;

    /// How a node ended that was started; none while it runs, and where it was never started.
    async fn has_ended(&self, node: &PlannedNode) -> Result<Option<Ended>, DriverError>;

    /// Powers a node on that ended or still runs: its disks and its configuration are as they were, everything else is new.
    async fn power_cycle(&self, plan: &Plan, node: &PlannedNode) -> Result<(), DriverError>;

    /// Ends a node and removes it with its disks.
    async fn remove(&self, plan: &Plan, node: &PlannedNode) -> Result<(), DriverError>;

    /// Status of a node.
    async fn report(&self, node: &PlannedNode) -> Result<NodeStatus, DriverError>;

    /// Removes all that the driver made of the cluster, however far it came, but for files in the cluster's folder. Everything
    /// is tried; the errors name the remains.
    async fn remove_all(&self) -> Vec<DriverError>;

    /// Whether any part of the cluster exists on this host; for a cluster without a folder.
    fn has_traces(&self) -> bool;
}

/// The driver of a cluster. `launcher` starts processes that stay with nodes.
pub(crate) fn open(settings: &DriverSettings, folder: &Folder, name: &str, launcher: Launcher) -> Arc<dyn NodeDriver> {
    match settings {
        DriverSettings::Runc { .. } => Arc::new(runc::RuncDriver::new(folder.clone(), name, launcher)),
        DriverSettings::Qemu(settings) => {
            Arc::new(qemu::QemuDriver::new(folder.clone(), name, launcher, (**settings).clone()))
        }
    }
}

/// All drivers, to remove a cluster that cannot be read any more.
pub(crate) fn all(folder: &Folder, name: &str, launcher: &Launcher) -> Vec<Arc<dyn NodeDriver>> {
    let machines = DriverSettings::Qemu(Box::default());
    let containers = DriverSettings::Runc { image: "".into() };
    [machines, containers].iter().map(|settings| open(settings, folder, name, launcher.clone())).collect()
}

/// Is the monitor of a node: starts it and returns when it has ended.
///
/// # Errors
///
/// When the folder of the cluster cannot be used. A failed start of the node is reported to the process that started the monitor.
pub fn monitor(root: &Path, cluster: &str, node: &str) -> Result<(), ProvisionError> {
    let folder = Folder::new(root, cluster)?;
    if qemu::is_machine(&folder, node) { qemu::monitor::run(&folder, node) } else { runc::monitor::run(&folder, node) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clean_end_is_a_power_off_and_only_64_a_reboot() {
        assert_eq!(Ended::of(Exit::Code(0)), Ended::PoweredOff);
        assert_eq!(Ended::of(Exit::Code(64)), Ended::Reboot);
        for exit in [Exit::Code(1), Exit::Code(101), Exit::Code(255), Exit::Signal(9), Exit::Signal(15), Exit::Unknown]
        {
            assert_eq!(Ended::of(exit), Ended::Crashed(exit));
        }
        assert_eq!(Ended::of(Exit::Signal(9)).to_string(), "crashed (signal 9)");
    }
}
