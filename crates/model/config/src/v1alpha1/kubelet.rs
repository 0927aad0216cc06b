//! The kubelet of a node.
//!
//! Only shapes: checks are in `validate`, defaults in the accessors.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::scalar::Object;

/// Kubelet
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Kubelet {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub image: String,
    #[serde(rename = "clusterDNS", skip_serializing_if = "Vec::is_empty")]
    pub cluster_dns: Vec<String>,
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub extra_args: IndexMap<String, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra_mounts: Vec<ExtraMount>,
    #[serde(skip_serializing_if = "Object::is_empty")]
    pub extra_config: Object,
    #[serde(skip_serializing_if = "Object::is_empty")]
    pub credential_provider_config: Object,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_runtime_seccomp_profile_enabled: Option<bool>,
    #[serde(rename = "registerWithFQDN", skip_serializing_if = "Option::is_none")]
    pub register_with_fqdn: Option<bool>,
    #[serde(rename = "nodeIP", skip_serializing_if = "Option::is_none")]
    pub node_ip: Option<KubeletNodeIp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skip_node_registration: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disable_manifests_directory: Option<bool>,
}

/// KubeletNodeIp
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct KubeletNodeIp {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub valid_subnets: Vec<String>,
}

/// ExtraMount
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct ExtraMount {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub destination: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub r#type: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub uid_mappings: Vec<LinuxIdMapping>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gid_mappings: Vec<LinuxIdMapping>,
}

/// LinuxIdMapping
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct LinuxIdMapping {
    #[serde(rename = "containerID", skip_serializing_if = "Option::is_none")]
    pub container_id: Option<u32>,
    #[serde(rename = "hostID", skip_serializing_if = "Option::is_none")]
    pub host_id: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u32>,
}
