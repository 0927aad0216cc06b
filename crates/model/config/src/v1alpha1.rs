//! The root document: `version: v1alpha1`, with `machine` and `cluster`.
//!
//! Types follow the file, field by field. A scalar that is absent is an empty string or `None`; accessors return what
//! that means. Old spellings of fields are rewritten before (`legacy`).

use serde::{Deserialize, Serialize};

mod access;
mod cluster;
mod control_plane;
mod file_place;
mod kubelet;
mod machine;
mod network;
mod registries;
mod storage;

pub use access::*;
pub use cluster::*;
pub use control_plane::*;
pub use file_place::*;
pub use kubelet::*;
pub use machine::*;
pub use network::*;
pub use registries::*;
pub use storage::*;

/// The root document.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// Version of this format.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Also writes service logs to the console.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub debug: Option<bool>,
    /// Keeps the configuration across reboots.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub persist: Option<bool>,
    /// Settings of this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine: Option<Machine>,
    /// Settings shared by all machines of the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<Cluster>,
}
