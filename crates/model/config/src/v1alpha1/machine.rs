//! The `machine` part: settings of one node.
//!
//! Only shapes: checks are in `validate`, defaults in the accessors.

use indexmap::IndexMap;
use pki::PemPair;
use serde::{Deserialize, Serialize};

use super::{Install, Kubelet, MachineDisk, Network, Registries, SystemDiskEncryption};
use crate::scalar::{AcceptedCa, MachineType, Object, SecretString, one_or_many};

/// Settings of this machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Machine {
    /// Role of the machine: controlplane or worker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r#type: Option<MachineType>,
    /// Shared secret with which workers request certificates from control planes.
    #[serde(skip_serializing_if = "SecretString::is_empty")]
    pub token: SecretString,
    /// Certificate authority of the machine API. Workers have only its certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PemPair>,
    /// More certificate authorities whose clients the machine API accepts, used while the authority is replaced.
    #[serde(rename = "acceptedCAs", deserialize_with = "one_or_many", skip_serializing_if = "Vec::is_empty")]
    pub accepted_cas: Vec<AcceptedCa>,
    /// More names and addresses for the certificate of the machine API, such as those of a load balancer.
    #[serde(rename = "certSANs", skip_serializing_if = "Vec::is_empty")]
    pub cert_sans: Vec<String>,
    /// Switches off single components of the Kubernetes control plane on this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control_plane: Option<MachineControlPlane>,
    /// The kubelet, which runs pods on this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubelet: Option<Kubelet>,
    /// Static pods, as Kubernetes objects.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pods: Vec<Object>,
    /// Host name, links and resolvers of the machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// Disks beside the system disk: they are partitioned, formatted and mounted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<MachineDisk>,
    /// How the system is installed on a disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub install: Option<Install>,
    /// Files to write, below /var.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<MachineFile>,
    /// Environment of the system's services, for example for a proxy.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub env: IndexMap<String, String>,
    /// Synchronisation of the clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
    /// Kernel parameters.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub sysctls: IndexMap<String, String>,
    /// Values for files below /sys, with dots for slashes.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub sysfs: IndexMap<String, String>,
    /// Where images come from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registries: Option<Registries>,
    /// Encryption of the system's own partitions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_disk_encryption: Option<SystemDiskEncryption>,
    /// Behaviour that can be switched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub features: Option<Features>,
    /// Rules for devices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub udev: Option<Udev>,
    /// Sends the logs of services elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logging: Option<Logging>,
    /// The Linux kernel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<Kernel>,
    /// Seccomp profiles that pods can refer to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub seccomp_profiles: Vec<SeccompProfile>,
    /// Labels of the node in Kubernetes.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub node_labels: IndexMap<String, String>,
    /// Taints of the node in Kubernetes, as value:effect.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub node_taints: IndexMap<String, String>,
}

/// Switches off single components of the Kubernetes control plane on this machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct MachineControlPlane {
    /// The controller manager on this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub controller_manager: Option<MachineControllerManager>,
    /// The scheduler on this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<MachineScheduler>,
}

/// The controller manager on this machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct MachineControllerManager {
    /// Leaves it out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
}

/// The scheduler on this machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct MachineScheduler {
    /// Leaves it out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
}

/// Files to write, below /var.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct MachineFile {
    /// Content of the file.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub content: String,
    /// Mode of the file, in octal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permissions: Option<u32>,
    /// Where the file is.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// create, append or overwrite.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub op: String,
}

/// Synchronisation of the clock.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Time {
    /// Leaves the clock alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
    /// NTP servers; default time.cloudflare.com.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<String>,
    /// How long the boot waits for time synchronisation; default forever.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub boot_timeout: String,
}

/// Behaviour that can be switched.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Features {
    /// Enables role-based access control in the machine API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rbac: Option<bool>,
    /// Derives the host name from the machine's identity where none is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stable_hostname: Option<bool>,
    /// Lets pods use the machine API of control planes.
    #[serde(rename = "kubernetesTalosAPIAccess", skip_serializing_if = "Option::is_none")]
    pub kubernetes_talos_api_access: Option<KubernetesApiAccess>,
    /// Refuses client certificates that are not meant for clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub apid_check_ext_key_usage: Option<bool>,
    /// Mounts the ephemeral partition with project quotas, so that the kubelet can limit volumes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_quota_support: Option<bool>,
    /// A local address that leads to any API server that works.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kube_prism: Option<KubePrism>,
    /// A caching resolver on the machine.
    #[serde(rename = "hostDNS", skip_serializing_if = "Option::is_none")]
    pub host_dns: Option<HostDns>,
}

/// Lets pods use the machine API of control planes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct KubernetesApiAccess {
    /// Switches it on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Roles that pods can get.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed_roles: Vec<String>,
    /// Namespaces whose pods can get them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed_kubernetes_namespaces: Vec<String>,
}

/// A local address that leads to any API server that works.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct KubePrism {
    /// Switches it on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Port on 127.0.0.1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// A caching resolver on the machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct HostDns {
    /// Switches it on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Forwards queries that the cluster's DNS cannot answer to this resolver.
    #[serde(rename = "forwardKubeDNSToHost", skip_serializing_if = "Option::is_none")]
    pub forward_kube_dns_to_host: Option<bool>,
    /// Answers for the names of the cluster's machines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolve_member_names: Option<bool>,
}

/// Rules for devices.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Udev {
    /// Rules in the language of udev.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<String>,
}

/// Sends the logs of services elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Logging {
    /// Where logs go.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub destinations: Vec<LoggingDestination>,
}

/// Where logs go.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct LoggingDestination {
    /// tcp:// or udp:// with host and port.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub endpoint: String,
    /// json_lines.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub format: String,
    /// Fields that are added to each line.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub extra_tags: IndexMap<String, String>,
}

/// The Linux kernel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Kernel {
    /// Modules to load.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub modules: Vec<KernelModule>,
}

/// Modules to load.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct KernelModule {
    /// Name of the module.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its parameters, as name=value.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parameters: Vec<String>,
}

/// Seccomp profiles that pods can refer to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct SeccompProfile {
    /// Name of the profile's file.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The profile.
    #[serde(skip_serializing_if = "Object::is_empty")]
    pub value: Object,
}
