//! The WireGuard mesh between nodes.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::enums::PeerState;
use crate::values::Timestamp;

resource! {
    /// Configuration of the mesh.
    KubeSpanConfig: "KubeSpanConfigs.kubespan.talos.dev" in "config" sensitive,
    {
        enabled: bool = 1 "enabled",
        cluster_id: String = 2 "clusterId",
        shared_secret: String = 3 "sharedSecret",
        force_routing: bool = 4 "forceRouting",
        advertise_kubernetes_networks: bool = 5 "advertiseKubernetesNetworks",
        mtu: u32 = 6 "mtu" omitempty,
        endpoint_filters: Vec<String> = 7 "endpointFilters" omitempty,
        harvest_extra_endpoints: bool = 8 "harvestExtraEndpoints",
    }
}

impl KubeSpanConfig {
    /// ID of the single instance.
    pub const ID: &'static str = "kubespan";
}

resource! {
    /// An endpoint of a peer observed by other nodes.
    KubeSpanEndpoint: "KubeSpanEndpoints.kubespan.talos.dev" in "kubespan",
    columns ["Endpoint" => "{.endpoint}", "Affiliate ID" => "{.affiliateID}"],
    {
        affiliate_id: String = 1 "affiliateID",
        endpoint: Option<SocketAddr> = 2 "endpoint",
    }
}

resource! {
    /// Keys and address of this node in the mesh.
    KubeSpanIdentity: "KubeSpanIdentities.kubespan.talos.dev" in "kubespan" sensitive,
    columns ["Address" => "{.address}", "PublicKey" => "{.publicKey}"],
    {
        address: Option<IpNet> = 1 "address",
        subnet: Option<IpNet> = 2 "subnet",
        private_key: String = 3 "privateKey",
        public_key: String = 4 "publicKey",
    }
}

impl KubeSpanIdentity {
    /// ID of the single instance.
    pub const ID: &'static str = "local";
}

resource! {
    /// A peer of the mesh.
    KubeSpanPeerSpec: "KubeSpanPeerSpecs.kubespan.talos.dev" in "kubespan",
    columns ["Label" => "{.label}", "Endpoints" => "{.endpoints}"],
    {
        address: Option<IpAddr> = 1 "address",
        allowed_ips: Vec<IpNet> = 2 "allowedIPs",
        endpoints: Vec<SocketAddr> = 3 "endpoints",
        label: String = 4 "label",
    }
}

resource! {
    /// Connection status of a peer.
    KubeSpanPeerStatus: "KubeSpanPeerStatuses.kubespan.talos.dev" in "kubespan",
    columns [
        "Label" => "{.label}",
        "Endpoint" => "{.endpoint}",
        "State" => "{.state}",
        "Rx" => "{.receiveBytes}",
        "Tx" => "{.transmitBytes}",
    ],
    {
        endpoint: Option<SocketAddr> = 1 "endpoint",
        label: String = 2 "label",
        state: PeerState = 3 "state",
        receive_bytes: i64 = 4 "receiveBytes",
        transmit_bytes: i64 = 5 "transmitBytes",
        last_handshake_time: Timestamp = 6 "lastHandshakeTime",
        last_used_endpoint: Option<SocketAddr> = 7 "lastUsedEndpoint",
        last_endpoint_change: Timestamp = 8 "lastEndpointChange",
    }
}
