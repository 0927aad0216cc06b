//! The services of a node as the supervisor runs them: programs and containers, with their users, privileges, groups and
//! health checks.
//!
//! Controllers decide which of them run, and with which settings.

pub mod bootstrap;
mod container;
mod containerd;
mod daemon;
mod etcd;
mod factory;
pub mod installation;
mod kubelet;
mod machined;
pub mod oci;
mod syslogd;
mod udevd;

pub use bootstrap::BootstrapGate;
pub use container::{Pulls, Runtime};
pub use containerd::ContainerdService;
pub use daemon::{DaemonService, DaemonSpec};
pub use etcd::{EtcdService, EtcdSettings, InitialCluster, etcd_arguments};
pub use factory::{FactoryError, NodeServices, Prefetch, ServiceFactory};
pub use kubelet::{KubeletService, KubeletSettings};
pub use machined::MachinedService;
pub use syslogd::SyslogdService;
pub use udevd::UdevdService;

/// Capabilities that no service of a node has.
const WITHHELD: [u32; 2] = sys::capabilities::WITHHELD;

/// Those that udevd does not have: it loads modules for devices.
const WITHHELD_FROM_UDEVD: [u32; 1] = [sys::capabilities::CAP_SYS_BOOT];

/// Where etcd keeps its data, below the volume EPHEMERAL.
pub const ETCD_DATA: &str = "lib/etcd";
/// Where the kubelet has the logs of containers, below the volume EPHEMERAL.
pub const POD_LOGS: &str = "log/pods";

/// Linux user of apid.
pub const APID_USER: u32 = 50;
/// Linux user of trustd.
pub const TRUSTD_USER: u32 = 51;
/// Linux user of etcd.
pub const ETCD_USER: u32 = 60;

/// OOM score adjustments of Talos 1.7: the lower, the later the kernel kills it.
pub mod oom {
    pub const CONTAINERD: i32 = -999;
    pub const APID: i32 = -998;
    pub const TRUSTD: i32 = -998;
    pub const ETCD: i32 = -998;
    pub const KUBELET: i32 = -450;
    /// As systemd gives it: without it no device is found any more.
    pub const UDEVD: i32 = -1000;
}

/// The control group of each service below the root of the machine.
pub mod group {
    pub const RUNTIME: &str = "system/runtime";
    pub const UDEVD: &str = "system/udevd";
    pub const APID: &str = "system/apid";
    pub const TRUSTD: &str = "system/trustd";
    pub const ETCD: &str = "podruntime/etcd";
    pub const KUBELET: &str = "podruntime/kubelet";
}
