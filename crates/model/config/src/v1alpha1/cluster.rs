//! The `cluster` part: settings shared by all nodes of a cluster.
//!
//! Only shapes: checks are in `validate`, defaults in the accessors.

use indexmap::IndexMap;
use pki::PemPair;
use pki::secrets::ServiceAccountKey;
use serde::{Deserialize, Serialize};

use super::{ApiServer, ControllerManager, Etcd, Proxy, Scheduler};
use crate::scalar::{AcceptedCa, SecretString, one_or_many};

/// Settings shared by all machines of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Cluster {
    /// Name of the cluster in discovery: 32 random bytes in base64.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// Key that seals discovery's data: 32 random bytes in base64.
    #[serde(skip_serializing_if = "SecretString::is_empty")]
    pub secret: SecretString,
    /// How to reach the control plane.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control_plane: Option<ControlPlane>,
    /// Name of the cluster, as in kubeconfigs.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cluster_name: String,
    /// Networks of pods and services.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<ClusterNetwork>,
    /// Token with which kubelets join the cluster.
    #[serde(skip_serializing_if = "SecretString::is_empty")]
    pub token: SecretString,
    /// Key that encrypts Secrets in etcd, older form.
    #[serde(skip_serializing_if = "SecretString::is_empty")]
    pub aescbc_encryption_secret: SecretString,
    /// Key that encrypts Secrets in etcd.
    #[serde(skip_serializing_if = "SecretString::is_empty")]
    pub secretbox_encryption_secret: SecretString,
    /// Certificate authority of Kubernetes. Workers have only its certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PemPair>,
    /// More certificate authorities that Kubernetes accepts, used while the authority is replaced.
    #[serde(rename = "acceptedCAs", deserialize_with = "one_or_many", skip_serializing_if = "Vec::is_empty")]
    pub accepted_cas: Vec<AcceptedCa>,
    /// Certificate authority of the aggregation layer.
    #[serde(rename = "aggregatorCA", skip_serializing_if = "Option::is_none")]
    pub aggregator_ca: Option<PemPair>,
    /// Key that signs the tokens of service accounts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_account: Option<ServiceAccountKey>,
    /// The API server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_server: Option<ApiServer>,
    /// The controller manager.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub controller_manager: Option<ControllerManager>,
    /// kube-proxy, which makes services reachable on each node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy: Option<Proxy>,
    /// The scheduler.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<Scheduler>,
    /// How machines of the cluster find each other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub discovery: Option<ClusterDiscovery>,
    /// etcd, the database of Kubernetes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etcd: Option<Etcd>,
    /// CoreDNS, the cluster's DNS.
    #[serde(rename = "coreDNS", skip_serializing_if = "Option::is_none")]
    pub core_dns: Option<CoreDns>,
    /// A cloud provider that runs in the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_cloud_provider: Option<ExternalCloudProvider>,
    /// Manifests that are applied when the cluster is made.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra_manifests: Vec<String>,
    /// Headers for fetching them.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub extra_manifest_headers: IndexMap<String, String>,
    /// Manifests that are applied when the cluster is made, written here.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub inline_manifests: Vec<InlineManifest>,
    /// The administrator's kubeconfig.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin_kubeconfig: Option<AdminKubeconfig>,
    /// Lets workloads run on control planes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_scheduling_on_control_planes: Option<bool>,
}

/// How to reach the control plane.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct ControlPlane {
    /// URL of the Kubernetes API for the whole cluster: of a load balancer, a shared address or one machine.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub endpoint: String,
    /// Port of the API servers; default 6443.
    #[serde(rename = "localAPIServerPort", skip_serializing_if = "Option::is_none")]
    pub local_api_server_port: Option<u16>,
}

/// Networks of pods and services.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct ClusterNetwork {
    /// The pod network: flannel, custom (from manifests), none, or native (bridges and routes kept by the system
    /// itself).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cni: Option<Cni>,
    /// Domain of services.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub dns_domain: String,
    /// Addresses of pods: one network for IPv4, one for IPv6.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pod_subnets: Vec<String>,
    /// Addresses of services: one network for IPv4, one for IPv6.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub service_subnets: Vec<String>,
}

/// The pod network: flannel, custom (from manifests), none, or native (bridges and routes kept by the system itself).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Cni {
    /// flannel, custom, none or native.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Manifests of a custom pod network.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// Settings of Flannel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flannel: Option<FlannelCni>,
}

/// Settings of Flannel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct FlannelCni {
    /// More flags for Flannel.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra_args: Vec<String>,
}

/// How machines of the cluster find each other.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct ClusterDiscovery {
    /// Switches discovery on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// The discovery registries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registries: Option<DiscoveryRegistries>,
}

/// The discovery registries.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct DiscoveryRegistries {
    /// By annotations of nodes in Kubernetes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<RegistryKubernetes>,
    /// By a service outside the cluster, which sees only encrypted data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<RegistryService>,
}

/// By annotations of nodes in Kubernetes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct RegistryKubernetes {
    /// Switches this way off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
}

/// By a service outside the cluster, which sees only encrypted data.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct RegistryService {
    /// Switches this way off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
    /// Address of the service.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub endpoint: String,
}

/// CoreDNS, the cluster's DNS.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct CoreDns {
    /// Leaves CoreDNS out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
    /// Image of CoreDNS.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub image: String,
}

/// A cloud provider that runs in the cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct ExternalCloudProvider {
    /// Tells the components that there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Its manifests.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub manifests: Vec<String>,
}

/// Manifests that are applied when the cluster is made, written here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct InlineManifest {
    /// Name, which must be the only one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Kubernetes objects as YAML.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub contents: String,
}

/// The administrator's kubeconfig.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct AdminKubeconfig {
    /// Lifetime of its certificate; default one year.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cert_lifetime: String,
}
