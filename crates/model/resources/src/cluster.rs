//! Cluster membership and discovery.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::enums::MachineType;

/// Namespace of merged affiliates, members and this node's identity.
pub const NAMESPACE: &str = "cluster";
/// Namespace of single registries' affiliates; ids there are `REGISTRY/ID`.
pub const RAW_NAMESPACE: &str = "cluster-raw";

message! {
    /// The node's address in the mesh.
    KubeSpanAffiliate {
        public_key: String = 1 "publicKey",
        address: Option<IpAddr> = 2 "address",
        additional_addresses: Vec<IpNet> = 3 "additionalAddresses",
        endpoints: Vec<SocketAddr> = 4 "endpoints",
    }
}

message! {
    /// Control plane endpoints of a node.
    ControlPlane {
        port: i64 = 1 "port",
    }
}

resource! {
    /// A node as one registry describes it (`cluster-raw`), or merged over all registries (`cluster`).
    Affiliate: "Affiliates.cluster.talos.dev" in "cluster",
    columns [
        "Hostname" => "{.hostname}",
        "Machine Type" => "{.machineType}",
        "Addresses" => "{.addresses}",
    ],
    {
        node_id: String = 1 "nodeId",
        addresses: Vec<IpAddr> = 2 "addresses",
        hostname: String = 3 "hostname",
        nodename: String = 4 "nodename" omitempty,
        operating_system: String = 5 "operatingSystem",
        machine_type: MachineType = 6 "machineType",
        kubespan: KubeSpanAffiliate = 7 "kubespan" omitempty,
        control_plane: Option<ControlPlane> = 8 "controlPlane" omitempty,
    }
}

resource! {
    /// The discovery registries in use.
    DiscoveryConfig: "DiscoveryConfigs.cluster.talos.dev" in "config" sensitive,
    {
        discovery_enabled: bool = 1 "discoveryEnabled",
        registry_kubernetes_enabled: bool = 2 "registryKubernetesEnabled",
        registry_service_enabled: bool = 3 "registryServiceEnabled",
        service_endpoint: String = 4 "serviceEndpoint",
        service_endpoint_insecure: bool = 5 "serviceEndpointInsecure" omitempty,
        service_encryption_key: Vec<u8> = 6 "serviceEncryptionKey",
        service_cluster_id: String = 7 "serviceClusterID",
    }
}

impl DiscoveryConfig {
    /// ID of the single instance.
    pub const ID: &'static str = "cluster";
}

resource! {
    /// The identity of this node, kept as long as its state.
    Identity: "Identities.cluster.talos.dev" in "cluster",
    columns ["ID" => "{.nodeId}"],
    {
        node_id: String = 1 "nodeId",
    }
}

impl Identity {
    /// ID of the single instance.
    pub const ID: &'static str = "local";
}

resource! {
    /// The identity of the cluster.
    Info: "Infos.cluster.talos.dev" in "cluster",
    columns ["Cluster ID" => "{.clusterId}", "Cluster Name" => "{.clusterName}"],
    {
        cluster_id: String = 1 "clusterId",
        cluster_name: String = 2 "clusterName",
    }
}

impl Info {
    /// ID of the single instance.
    pub const ID: &'static str = "current";
}

resource! {
    /// A node of the cluster, this one included.
    Member: "Members.cluster.talos.dev" in "cluster",
    columns [
        "Hostname" => "{.hostname}",
        "Machine Type" => "{.machineType}",
        "OS" => "{.operatingSystem}",
        "Addresses" => "{.addresses}",
    ],
    {
        node_id: String = 1 "nodeId",
        addresses: Vec<IpAddr> = 2 "addresses",
        hostname: String = 3 "hostname",
        machine_type: MachineType = 4 "machineType",
        operating_system: String = 5 "operatingSystem",
        control_plane: Option<ControlPlane> = 6 "controlPlane" omitempty,
    }
}
