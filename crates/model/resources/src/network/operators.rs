//! Dynamic network operators on links: DHCP, virtual IPs, probes.

use std::net::IpAddr;

use crate::enums::{ConfigLayer, Operator};
use crate::values::Nanoseconds;

message! {
    /// Settings of the DHCPv4 client.
    Dhcp4Operator {
        route_metric: u32 = 1 "routeMetric",
        skip_hostname_request: bool = 2 "skipHostnameRequest" omitempty,
    }
}

message! {
    /// Settings of the DHCPv6 client.
    Dhcp6Operator {
        duid: String = 1 "DUID" omitempty,
        route_metric: u32 = 2 "routeMetric",
        skip_hostname_request: bool = 3 "skipHostnameRequest" omitempty,
    }
}

message! {
    /// Equinix Metal API settings for moving a virtual IP.
    VipEquinixMetal {
        project_id: String = 1 "projectID",
        device_id: String = 2 "deviceID",
        api_token: String = 3 "apiToken",
    }
}

message! {
    /// Hetzner Cloud API settings for moving a virtual IP.
    VipHCloud {
        device_id: i64 = 1 "deviceID",
        network_id: i64 = 2 "networkID",
        api_token: String = 3 "apiToken",
    }
}

message! {
    /// A virtual IP.
    VipOperator {
        ip: Option<IpAddr> = 1 "ip",
        gratuitous_arp: bool = 2 "gratuitousARP",
        equinix_metal: VipEquinixMetal = 3 "equinixMetal" omitempty,
        hcloud: VipHCloud = 4 "hcloud" omitempty,
    }
}

resource! {
    /// A dynamic configuration method of a link.
    OperatorSpec: "OperatorSpecs.net.talos.dev" in "network" sensitive,
    {
        operator: Operator = 1 "operator",
        link_name: String = 2 "linkName",
        require_up: bool = 3 "requireUp",
        dhcp4: Dhcp4Operator = 4 "dhcp4" omitempty,
        dhcp6: Dhcp6Operator = 5 "dhcp6" omitempty,
        vip: VipOperator = 6 "vip" omitempty,
        layer: ConfigLayer = 7 "layer",
    }
}

message! {
    /// A TCP probe.
    TcpProbe {
        endpoint: String = 1 "endpoint",
        timeout: Nanoseconds = 2 "timeout",
    }
}

resource! {
    /// A probe of connectivity.
    ProbeSpec: "ProbeSpecs.net.talos.dev" in "network",
    {
        interval: Nanoseconds = 1 "interval",
        failure_threshold: i64 = 2 "failureThreshold",
        tcp: TcpProbe = 3 "tcp" omitempty,
        layer: ConfigLayer = 4 "layer",
    }
}

resource! {
    /// Result of a probe.
    ProbeStatus: "ProbeStatuses.net.talos.dev" in "network", aliases ["probe", "probes"],
    columns ["Success" => "{.success}"],
    {
        success: bool = 1 "success",
        last_error: String = 2 "lastError",
    }
}
