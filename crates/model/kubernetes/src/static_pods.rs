//! Static pods of the control plane.

mod api_server;
mod controller_manager;
mod pod;
mod scheduler;

use std::collections::BTreeMap;

pub use api_server::{ApiServerInput, api_server};
pub use controller_manager::{ControllerManagerInput, controller_manager};
pub use scheduler::{SchedulerInput, scheduler};

/// Users that the components run as.
pub const API_SERVER_UID: u32 = 65534;
pub const CONTROLLER_MANAGER_UID: u32 = 65535;
pub const SCHEDULER_UID: u32 = 65536;

pub const API_SERVER: &str = "kube-apiserver";
pub const CONTROLLER_MANAGER: &str = "kube-controller-manager";
pub const SCHEDULER: &str = "kube-scheduler";

pub const SECRETS_VERSION_ANNOTATION: &str = "talos.dev/secrets-version";
pub const CONFIG_FILE_VERSION_ANNOTATION: &str = "talos.dev/config-file-version";
pub const CONFIG_VERSION_ANNOTATION: &str = "talos.dev/config-version";

/// A directory of the node in the pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtraVolume {
    pub name: String,
    pub host_path: String,
    pub mount_path: String,
    pub read_only: bool,
}

/// Requests and limits by resource name; empty requests take the component's defaults.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    pub requests: BTreeMap<String, String>,
    pub limits: BTreeMap<String, String>,
}

/// Inputs that restart the pod when they change: a change of any of these is a change of the pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Revisions {
    pub secrets: String,
    pub config_files: String,
    pub config: String,
}

/// User settings common to all components.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Customization {
    pub extra_args: BTreeMap<String, String>,
    pub extra_volumes: Vec<ExtraVolume>,
    pub environment: BTreeMap<String, String>,
    pub resources: Resources,
}
