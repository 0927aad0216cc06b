//! The management tunnel.

use std::net::SocketAddr;

resource! {
    /// The management tunnel to set up.
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
    /// Its only id.
    pub const ID: &'static str = "siderolink";
}

resource! {
    /// The management tunnel's userspace end.
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
    /// Its only id.
    pub const ID: &'static str = "siderolink-tunnel";
}
