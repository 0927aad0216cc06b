//! Addresses of links, and node addresses derived from them.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::enums::{AddressFlags, ConfigLayer, Family, Scope};
use crate::values::HardwareAddr;

resource! {
    /// A desired address of a link.
    AddressSpec: "AddressSpecs.net.talos.dev" in "network",
    {
        address: Option<IpNet> = 1 "address",
        link_name: String = 2 "linkName",
        family: Family = 3 "family",
        scope: Scope = 4 "scope",
        flags: AddressFlags = 5 "flags",
        announce_with_arp: bool = 6 "announceWithARP" omitempty,
        layer: ConfigLayer = 7 "layer",
    }
}

resource! {
    /// An address of a link.
    AddressStatus: "AddressStatuses.net.talos.dev" in "network", aliases ["address", "addresses"],
    columns ["Address" => "{.address}", "Link" => "{.linkName}"],
    {
        address: Option<IpNet> = 1 "address",
        local: Option<IpAddr> = 2 "local" omitempty,
        broadcast: Option<IpAddr> = 3 "broadcast" omitempty,
        anycast: Option<IpAddr> = 4 "anycast" omitempty,
        multicast: Option<IpAddr> = 5 "multicast" omitempty,
        link_index: u32 = 6 "linkIndex",
        link_name: String = 7 "linkName",
        family: Family = 8 "family",
        scope: Scope = 9 "scope",
        flags: AddressFlags = 10 "flags",
    }
}

resource! {
    /// The address of the first physical link.
    HardwareAddress: "HardwareAddresses.net.talos.dev" in "network",
    {
        name: String = 1 "name",
        hardware_addr: HardwareAddr = 2 "hardwareAddr",
    }
}

impl HardwareAddress {
    /// ID of the single instance.
    pub const ID: &'static str = "first";
}

resource! {
    /// Addresses of the node, by kind (the id).
    NodeAddress: "NodeAddresses.net.talos.dev" in "network",
    columns ["Addresses" => "{.addresses}"],
    {
        addresses: Vec<IpNet> = 1 "addresses",
    }
}

resource! {
    /// A filter for node addresses.
    NodeAddressFilter: "NodeAddressFilters.net.talos.dev" in "network",
    columns ["Include Subnets" => "{.includeSubnets}", "Exclude Subnets" => "{.excludeSubnets}"],
    {
        include_subnets: Vec<IpNet> = 1 "includeSubnets",
        exclude_subnets: Vec<IpNet> = 2 "excludeSubnets",
    }
}
