//! Routes.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::enums::{ConfigLayer, Family, RouteFlags, RouteProtocol, RouteType, RoutingTable, Scope};

resource! {
    /// A desired route.
    RouteSpec: "RouteSpecs.net.talos.dev" in "network",
    {
        family: Family = 1 "family",
        dst: Option<IpNet> = 2 "dst",
        src: Option<IpAddr> = 3 "src",
        gateway: Option<IpAddr> = 4 "gateway",
        out_link_name: String = 5 "outLinkName" omitempty,
        table: RoutingTable = 6 "table",
        priority: u32 = 7 "priority" omitempty,
        scope: Scope = 8 "scope",
        r#type: RouteType = 9 "type",
        flags: RouteFlags = 10 "flags",
        protocol: RouteProtocol = 11 "protocol",
        layer: ConfigLayer = 12 "layer",
        mtu: u32 = 13 "mtu" omitempty,
    }
}

resource! {
    /// A route in the kernel.
    RouteStatus: "RouteStatuses.net.talos.dev" in "network", aliases ["route", "routes"],
    columns [
        "Destination" => "{.dst}",
        "Gateway" => "{.gateway}",
        "Link" => "{.outLinkName}",
        "Metric" => "{.priority}",
    ],
    {
        family: Family = 1 "family",
        dst: Option<IpNet> = 2 "dst",
        src: Option<IpAddr> = 3 "src",
        gateway: Option<IpAddr> = 4 "gateway",
        out_link_index: u32 = 5 "outLinkIndex" omitempty,
        out_link_name: String = 6 "outLinkName" omitempty,
        table: RoutingTable = 7 "table",
        priority: u32 = 8 "priority",
        scope: Scope = 9 "scope",
        r#type: RouteType = 10 "type",
        flags: RouteFlags = 11 "flags",
        protocol: RouteProtocol = 12 "protocol",
        mtu: u32 = 13 "mtu" omitempty,
    }
}
