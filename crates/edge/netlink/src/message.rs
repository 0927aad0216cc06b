//! Conversion of kernel messages to our model, and of routes to messages.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressFlags as PacketAddressFlags, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkInfo, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags as PacketFlags, RouteHeader, RouteMessage, RouteMetric,
};
use netlink_packet_route::{AddressFamily, route};
use resources::enums::{
    AddressFlags, Family, LinkFlags, LinkType, OperationalState, RouteFlags, RouteProtocol, RouteType, RoutingTable,
    Scope,
};
use resources::values::HardwareAddr;

use crate::{Address, Link, Route};

pub(crate) fn link(message: &LinkMessage) -> Link {
    let header = &message.header;
    let mut link = Link {
        index: header.index,
        link_type: LinkType(u16::from(header.link_layer_type).into()),
        flags: LinkFlags(header.flags.bits()),
        ..Link::default()
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Link(index) => link.parent_index = *index,
            LinkAttribute::Address(bytes) => link.hardware_addr = HardwareAddr(bytes.clone()),
            LinkAttribute::PermAddress(bytes) => link.permanent_addr = HardwareAddr(bytes.clone()),
            LinkAttribute::Broadcast(bytes) => link.broadcast_addr = HardwareAddr(bytes.clone()),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Qdisc(name) => link.queue_disc.clone_from(name),
            LinkAttribute::Controller(index) => link.master_index = *index,
            LinkAttribute::OperState(state) => link.operational_state = OperationalState(u8::from(*state).into()),
            LinkAttribute::Carrier(carrier) => link.carrier = *carrier != 0,
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    match info {
                        LinkInfo::Kind(kind) => link.kind = kind.to_string(),
                        LinkInfo::PortKind(kind) => link.slave_kind = kind.to_string(),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    link
}

pub(crate) fn address(message: &AddressMessage) -> Address {
    let header = &message.header;
    let mut result = Address {
        link_index: header.index,
        family: Family(u8::from(header.family).into()),
        scope: Scope(u8::from(header.scope).into()),
        flags: AddressFlags(header.flags.bits().into()),
        ..Address::default()
    };
    let prefix = |address: IpAddr| IpNet::new(address, header.prefix_len).ok();
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Address(address) => result.address = prefix(*address),
            AddressAttribute::Local(address) => result.local = Some(*address),
            AddressAttribute::Broadcast(address) => result.broadcast = Some((*address).into()),
            AddressAttribute::Anycast(address) => result.anycast = Some((*address).into()),
            AddressAttribute::Multicast(address) => result.multicast = Some((*address).into()),
            AddressAttribute::Flags(flags) => result.flags = AddressFlags(flags.bits()),
            _ => {}
        }
    }
    // A point-to-point link reports its peer as the address and its own address as the local one.
    if let Some(local) = result.local
        && result.address.is_none_or(|address| address.addr() != local)
    {
        result.address = prefix(local);
    }
    result
}

pub(crate) fn route(message: &RouteMessage) -> Route {
    let header = &message.header;
    let mut result = Route {
        family: Family(u8::from(header.address_family).into()),
        table: RoutingTable(header.table.into()),
        scope: Scope(u8::from(header.scope).into()),
        route_type: RouteType(u8::from(header.kind).into()),
        protocol: RouteProtocol(u8::from(header.protocol).into()),
        flags: RouteFlags(header.flags.bits()),
        ..Route::default()
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => {
                result.destination =
                    ip(address).and_then(|address| IpNet::new(address, header.destination_prefix_length).ok());
            }
            RouteAttribute::PrefSource(address) => result.source = ip(address),
            RouteAttribute::Gateway(address) => result.gateway = ip(address),
            RouteAttribute::Oif(index) => result.out_link_index = *index,
            RouteAttribute::Priority(priority) => result.priority = *priority,
            RouteAttribute::Table(table) => {
                result.table = RoutingTable(i32::try_from(*table).unwrap_or(i32::MAX));
            }
            RouteAttribute::Metrics(metrics) => {
                for metric in metrics {
                    if let RouteMetric::Mtu(mtu) = metric {
                        result.mtu = *mtu;
                    }
                }
            }
            _ => {}
        }
    }
    result
}

/// Whether the entry is a cached route of the kernel.
pub(crate) fn is_cached(message: &RouteMessage) -> bool {
    message.header.flags.contains(PacketFlags::Cloned)
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

/// A request for all routes of a family.
pub(crate) fn all_routes(family: AddressFamily) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    message
}

/// The message to add or remove a route, with the defaults documented on `Route`.
pub(crate) fn route_message(wanted: &Route) -> RouteMessage {
    let low = |value: i32| u8::try_from(value).unwrap_or_default();
    let or = |value: i32, default: i32| if value == 0 { default } else { value };
    let mut message = RouteMessage::default();
    let header = &mut message.header;
    header.address_family = match wanted.effective_family() {
        Family::INET6 => AddressFamily::Inet6,
        _ => AddressFamily::Inet,
    };
    let table = or(wanted.table.0, RoutingTable::MAIN.0);
    header.table = u8::try_from(table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC);
    header.protocol = route::RouteProtocol::from(low(or(wanted.protocol.0, RouteProtocol::STATIC.0)));
    header.kind = route::RouteType::from(low(or(wanted.route_type.0, RouteType::UNICAST.0)));
    header.scope = route::RouteScope::from(low(wanted.scope.0));
    header.flags = PacketFlags::from_bits_retain(wanted.flags.0);
    let mut attributes = Vec::new();
    if u8::try_from(table).is_err() {
        attributes.push(RouteAttribute::Table(u32::try_from(table).unwrap_or_default()));
    }
    if let Some(destination) = wanted.destination {
        header.destination_prefix_length = destination.prefix_len();
        attributes.push(RouteAttribute::Destination(destination.network().into()));
    }
    if let Some(gateway) = wanted.gateway {
        attributes.push(RouteAttribute::Gateway(gateway.into()));
    }
    if let Some(source) = wanted.source {
        attributes.push(RouteAttribute::PrefSource(source.into()));
    }
    if wanted.out_link_index != 0 {
        attributes.push(RouteAttribute::Oif(wanted.out_link_index));
    }
    if wanted.priority != 0 {
        attributes.push(RouteAttribute::Priority(wanted.priority));
    }
    if wanted.mtu != 0 {
        attributes.push(RouteAttribute::Metrics(vec![RouteMetric::Mtu(wanted.mtu)]));
    }
    message.attributes = attributes;
    message
}

/// Completes the message that adds an address.
pub(crate) fn set_address(message: &mut AddressMessage, address: IpNet, scope: Scope, flags: AddressFlags) {
    message.header.scope = u8::try_from(scope.0).unwrap_or_default().into();
    message.attributes.retain(|attribute| !matches!(attribute, AddressAttribute::Broadcast(_)));
    message.attributes.extend(broadcast(address).map(AddressAttribute::Broadcast));
    if flags != AddressFlags::default() {
        message.attributes.push(AddressAttribute::Flags(PacketAddressFlags::from_bits_retain(flags.0)));
    }
}

/// The broadcast address of an IPv4 prefix, where it has one.
fn broadcast(address: IpNet) -> Option<Ipv4Addr> {
    match address {
        IpNet::V4(net) if net.prefix_len() < 31 => Some(net.broadcast()),
        _ => None,
    }
}
