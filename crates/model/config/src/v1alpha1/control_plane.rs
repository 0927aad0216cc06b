//! Components of the Kubernetes control plane.
//!
//! Only shapes: checks are in `validate`, defaults in the accessors.

use indexmap::IndexMap;
use pki::PemPair;
use serde::{Deserialize, Serialize};

use crate::scalar::Object;

/// ApiServer
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct ApiServer {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub image: String,
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub extra_args: IndexMap<String, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra_volumes: Vec<VolumeMount>,
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub env: IndexMap<String, String>,
    #[serde(rename = "certSANs", skip_serializing_if = "Vec::is_empty")]
    pub cert_sans: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disable_pod_security_policy: Option<bool>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub admission_control: Vec<AdmissionPlugin>,
    #[serde(skip_serializing_if = "Object::is_empty")]
    pub audit_policy: Object,
    #[serde(skip_serializing_if = "Object::is_empty")]
    pub resources: Object,
}

/// ControllerManager
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct ControllerManager {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub image: String,
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub extra_args: IndexMap<String, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra_volumes: Vec<VolumeMount>,
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub env: IndexMap<String, String>,
    #[serde(skip_serializing_if = "Object::is_empty")]
    pub resources: Object,
}

/// Scheduler
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Scheduler {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub image: String,
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub extra_args: IndexMap<String, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra_volumes: Vec<VolumeMount>,
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub env: IndexMap<String, String>,
    #[serde(skip_serializing_if = "Object::is_empty")]
    pub resources: Object,
    #[serde(skip_serializing_if = "Object::is_empty")]
    pub config: Object,
}

/// Proxy
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Proxy {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub image: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mode: String,
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub extra_args: IndexMap<String, String>,
}

/// Etcd
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Etcd {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub image: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PemPair>,
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub extra_args: IndexMap<String, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub advertised_subnets: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub listen_subnets: Vec<String>,
}

/// AdmissionPlugin
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct AdmissionPlugin {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "Object::is_empty")]
    pub configuration: Object,
}

/// VolumeMount
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct VolumeMount {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub host_path: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mount_path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readonly: Option<bool>,
}
