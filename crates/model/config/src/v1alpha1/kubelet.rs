//! The kubelet of a node.
//!
//! Only shapes: checks are in `validate`, defaults in the accessors.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::scalar::Object;

/// The kubelet, which runs pods on this machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Kubelet {
    /// Image of the kubelet; its tag is the version of Kubernetes.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// Addresses of the cluster's DNS, where they are not derived from the service network.
    #[serde(rename = "clusterDNS", skip_serializing_if = "Vec::is_empty")]
    pub cluster_dns: Vec<String>,
    /// More flags for the kubelet, without dashes.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub extra_args: IndexMap<String, String>,
    /// Directories of the machine that the kubelet's container sees, and so volumes can use.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra_mounts: Vec<ExtraMount>,
    /// More fields for the kubelet's configuration file.
    #[serde(skip_serializing_if = "Object::is_empty")]
    pub extra_config: Object,
    /// Configuration of image credential providers for the kubelet.
    #[serde(skip_serializing_if = "Object::is_empty")]
    pub credential_provider_config: Object,
    /// Applies the runtime's default seccomp profile to pods without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_runtime_seccomp_profile_enabled: Option<bool>,
    /// Registers the node under its fully qualified name.
    #[serde(rename = "registerWithFQDN", skip_serializing_if = "Option::is_none")]
    pub register_with_fqdn: Option<bool>,
    /// Which of the machine's addresses the kubelet uses.
    #[serde(rename = "nodeIP", skip_serializing_if = "Option::is_none")]
    pub node_ip: Option<KubeletNodeIp>,
    /// Runs the kubelet without registering a node, for a machine that serves only static pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skip_node_registration: Option<bool>,
    /// Ignores static pods put as files into /etc/kubernetes/manifests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disable_manifests_directory: Option<bool>,
}

/// Which of the machine's addresses the kubelet uses.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct KubeletNodeIp {
    /// Networks to choose the address from; one with ! before it is left out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub valid_subnets: Vec<String>,
}

/// Directories of the machine that the kubelet's container sees, and so volumes can use.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct ExtraMount {
    /// Path inside the container.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub destination: String,
    /// Kind of mount, as in the OCI runtime specification.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub r#type: String,
    /// Path on the machine.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// Options of the mount.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    /// How user ids map into the mount.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub uid_mappings: Vec<LinuxIdMapping>,
    /// How group ids map into the mount.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gid_mappings: Vec<LinuxIdMapping>,
}

/// How user ids map into the mount.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct LinuxIdMapping {
    /// First id inside.
    #[serde(rename = "containerID", skip_serializing_if = "Option::is_none")]
    pub container_id: Option<u32>,
    /// First id outside.
    #[serde(rename = "hostID", skip_serializing_if = "Option::is_none")]
    pub host_id: Option<u32>,
    /// How many ids.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u32>,
}
