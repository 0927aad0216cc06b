//! The management tunnel.

use std::net::SocketAddr;

resource! {
    /// Configuration of the management tunnel.
    SiderolinkConfig: "SiderolinkConfigs.siderolink.talos.dev" in "config" sensitive,
    columns ["API Endpoint" => "{.apiEndpoint}", "Tunnel" => "{.tunnel}"],
    {
        api_endpoint: String = 1 "apiEndpoint",
        host: String = 2 "host",
        join_token: String = 3 "joinToken",
        insecure: bool = 4 "insecure",
        tunnel: bool = 5 "tunnel",
    }
}

impl SiderolinkConfig {
    /// ID of the single instance.
    pub const ID: &'static str = "siderolink";
}

resource! {
    /// The userspace end of the management tunnel.
    SiderolinkTunnel: "SiderolinkTunnels.siderolink.talos.dev" in "config" sensitive,
    columns [
        "API Endpoint" => "{.apiEndpoint}",
        "Interface name" => "{.ifaceName}",
        "MTU" => "{.mtu}",
        "Node address" => "{.nodeAddress}",
    ],
    {
        api_endpoint: String = 1 "apiEndpoint",
        link_name: String = 2 "linkName",
        mtu: i64 = 3 "mtu",
        node_address: Option<SocketAddr> = 4 "nodeAddress",
    }
}

impl SiderolinkTunnel {
    /// ID of the single instance.
    pub const ID: &'static str = "siderolink-tunnel";
}
