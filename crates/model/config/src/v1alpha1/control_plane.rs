//! Components of the Kubernetes control plane.
//!
//! Only shapes: checks are in `validate`, defaults in the accessors.

use indexmap::IndexMap;
use pki::PemPair;
use serde::{Deserialize, Serialize};

use crate::scalar::Object;

/// The API server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct ApiServer {
    /// Image of the API server.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// More flags for the API server, without dashes.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub extra_args: IndexMap<String, String>,
    /// Directories of the machine that the API server sees.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra_volumes: Vec<VolumeMount>,
    /// Environment of the API server.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub env: IndexMap<String, String>,
    /// More names and addresses for the API server's certificate.
    #[serde(rename = "certSANs", skip_serializing_if = "Vec::is_empty")]
    pub cert_sans: Vec<String>,
    /// Leaves PodSecurityPolicy off, which newer versions of Kubernetes no longer have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disable_pod_security_policy: Option<bool>,
    /// Admission plug-ins and their configuration.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub admission_control: Vec<AdmissionPlugin>,
    /// Audit policy of the API server.
    #[serde(skip_serializing_if = "Object::is_empty")]
    pub audit_policy: Object,
    /// Resource requests and limits of the API server.
    #[serde(skip_serializing_if = "Object::is_empty")]
    pub resources: Object,
}

/// The controller manager.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct ControllerManager {
    /// Image of the controller manager.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// More flags for the controller manager, without dashes.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub extra_args: IndexMap<String, String>,
    /// Directories of the machine that the controller manager sees.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra_volumes: Vec<VolumeMount>,
    /// Environment of the controller manager.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub env: IndexMap<String, String>,
    /// Resource requests and limits of the controller manager.
    #[serde(skip_serializing_if = "Object::is_empty")]
    pub resources: Object,
}

/// The scheduler.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Scheduler {
    /// Image of the scheduler.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// More flags for the scheduler, without dashes.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub extra_args: IndexMap<String, String>,
    /// Directories of the machine that the scheduler sees.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra_volumes: Vec<VolumeMount>,
    /// Environment of the scheduler.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub env: IndexMap<String, String>,
    /// Resource requests and limits of the scheduler.
    #[serde(skip_serializing_if = "Object::is_empty")]
    pub resources: Object,
    /// The scheduler's configuration file, a Kubernetes object.
    #[serde(skip_serializing_if = "Object::is_empty")]
    pub config: Object,
}

/// kube-proxy, which makes services reachable on each node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Proxy {
    /// Leaves kube-proxy out, for pod networks that do its work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
    /// Image of kube-proxy.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// iptables, ipvs or nftables; default iptables.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mode: String,
    /// More flags for kube-proxy, without dashes.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub extra_args: IndexMap<String, String>,
}

/// etcd, the database of Kubernetes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Etcd {
    /// Image of etcd.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// Certificate authority of etcd.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PemPair>,
    /// More flags for etcd, without dashes.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub extra_args: IndexMap<String, String>,
    /// Subnets for the address that etcd advertises; a subnet with ! is excluded.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub advertised_subnets: Vec<String>,
    /// Subnets for the addresses that etcd listens on; default the advertised ones.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub listen_subnets: Vec<String>,
}

/// Admission plug-ins and their configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct AdmissionPlugin {
    /// Name of the plug-in.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its configuration, a Kubernetes object.
    #[serde(skip_serializing_if = "Object::is_empty")]
    pub configuration: Object,
}

/// Directories of the machine that the API server sees.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct VolumeMount {
    /// Path on the machine.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub host_path: String,
    /// Path in the container.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mount_path: String,
    /// Forbids writing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readonly: Option<bool>,
}
