//! The `cluster` part: what all nodes of a cluster share.
//!
//! Only shapes: checks are in `validate`, defaults in the accessors.

use indexmap::IndexMap;
use pki::PemPair;
use pki::secrets::ServiceAccountKey;
use serde::{Deserialize, Serialize};

use super::{ApiServer, ControllerManager, Etcd, Proxy, Scheduler};
use crate::scalar::{AcceptedCa, SecretString, one_or_many};

/// Cluster
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Cluster {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    #[serde(skip_serializing_if = "SecretString::is_empty")]
    pub secret: SecretString,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control_plane: Option<ControlPlane>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cluster_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<ClusterNetwork>,
    #[serde(skip_serializing_if = "SecretString::is_empty")]
    pub token: SecretString,
    #[serde(skip_serializing_if = "SecretString::is_empty")]
    pub aescbc_encryption_secret: SecretString,
    #[serde(skip_serializing_if = "SecretString::is_empty")]
    pub secretbox_encryption_secret: SecretString,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PemPair>,
    #[serde(rename = "acceptedCAs", deserialize_with = "one_or_many", skip_serializing_if = "Vec::is_empty")]
    pub accepted_cas: Vec<AcceptedCa>,
    #[serde(rename = "aggregatorCA", skip_serializing_if = "Option::is_none")]
    pub aggregator_ca: Option<PemPair>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_account: Option<ServiceAccountKey>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_server: Option<ApiServer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub controller_manager: Option<ControllerManager>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy: Option<Proxy>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<Scheduler>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub discovery: Option<ClusterDiscovery>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etcd: Option<Etcd>,
    #[serde(rename = "coreDNS", skip_serializing_if = "Option::is_none")]
    pub core_dns: Option<CoreDns>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_cloud_provider: Option<ExternalCloudProvider>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra_manifests: Vec<String>,
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub extra_manifest_headers: IndexMap<String, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub inline_manifests: Vec<InlineManifest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin_kubeconfig: Option<AdminKubeconfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_scheduling_on_control_planes: Option<bool>,
}

/// ControlPlane
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct ControlPlane {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub endpoint: String,
    #[serde(rename = "localAPIServerPort", skip_serializing_if = "Option::is_none")]
    pub local_api_server_port: Option<u16>,
}

/// ClusterNetwork
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct ClusterNetwork {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cni: Option<Cni>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub dns_domain: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pod_subnets: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub service_subnets: Vec<String>,
}

/// Cni
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Cni {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flannel: Option<FlannelCni>,
}

/// FlannelCni
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct FlannelCni {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra_args: Vec<String>,
}

/// ClusterDiscovery
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct ClusterDiscovery {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registries: Option<DiscoveryRegistries>,
}

/// DiscoveryRegistries
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct DiscoveryRegistries {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<RegistryKubernetes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<RegistryService>,
}

/// RegistryKubernetes
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct RegistryKubernetes {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
}

/// RegistryService
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct RegistryService {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub endpoint: String,
}

/// CoreDns
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct CoreDns {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub image: String,
}

/// ExternalCloudProvider
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct ExternalCloudProvider {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub manifests: Vec<String>,
}

/// InlineManifest
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct InlineManifest {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub contents: String,
}

/// AdminKubeconfig
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct AdminKubeconfig {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cert_lifetime: String,
}
