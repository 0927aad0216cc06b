//! The root document: `version: v1alpha1`, with `machine` and `cluster`.
//!
//! Types follow the file, field by field. A scalar that is absent is an empty string or `None`; what an absent field
//! means is said by the accessors.

use serde::{Deserialize, Serialize};

mod access;
mod cluster;
mod control_plane;
mod kubelet;
mod machine;
mod network;
mod registries;
mod storage;

pub use access::*;
pub use cluster::*;
pub use control_plane::*;
pub use kubelet::*;
pub use machine::*;
pub use network::*;
pub use registries::*;
pub use storage::*;

/// Config
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub debug: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub persist: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine: Option<Machine>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<Cluster>,
}
