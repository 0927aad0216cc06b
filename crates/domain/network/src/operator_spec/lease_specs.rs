//! The settings that a lease of IPv4 makes.

use std::net::{IpAddr, Ipv4Addr};

use dhcp::Lease;
use ipnet::{IpNet, Ipv4Net};
use resources::enums::{ConfigLayer, RouteProtocol};
use resources::network::{AddressSpec, HostnameSpec, LinkSpec, OperatorSpec, ResolverSpec, RouteSpec, TimeServerSpec};

use crate::{address_config, route_config};

const LAYER: ConfigLayer = ConfigLayer::Operator;

/// One lease, as specs of the layer `operator`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct LeaseSpecs {
    pub(super) address: AddressSpec,
    pub(super) routes: Vec<RouteSpec>,
    pub(super) link: Option<LinkSpec>,
    pub(super) hostname: Option<HostnameSpec>,
    pub(super) resolvers: Option<ResolverSpec>,
    pub(super) time_servers: Option<TimeServerSpec>,
}

impl LeaseSpecs {
    pub(super) fn of(lease: &Lease, operator: &OperatorSpec) -> Self {
        let link = operator.link_name.as_str();
        let resolvers = addresses(&lease.dns_servers);
        let time_servers: Vec<String> = lease.time_servers.iter().map(ToString::to_string).collect();
        Self {
            address: address_config::spec(link, IpNet::V4(lease.address), LAYER),
            routes: routes(lease, link, operator.dhcp4.route_metric),
            link: lease.mtu.map(|mtu| LinkSpec {
                name: link.to_owned(),
                up: true,
                mtu: mtu.into(),
                layer: LAYER,
                ..LinkSpec::default()
            }),
            hostname: hostname(lease),
            resolvers: (!resolvers.is_empty()).then_some(ResolverSpec { dns_servers: resolvers, layer: LAYER }),
            time_servers: (!time_servers.is_empty()).then_some(TimeServerSpec { time_servers, layer: LAYER }),
        }
    }
}

fn addresses(list: &[Ipv4Addr]) -> Vec<IpAddr> {
    list.iter().map(|address| IpAddr::V4(*address)).collect()
}

/// The classless routes, else the way to the first router; and the way to each gateway that is not on the link.
fn routes(lease: &Lease, link: &str, metric: u32) -> Vec<RouteSpec> {
    let by_router = lease.routers.first().map(|router| (Ipv4Net::default(), Some(*router)));
    let wanted = if lease.routes.is_empty() { by_router.into_iter().collect() } else { lease.routes.clone() };
    let own = lease.address;
    let of = |destination: Ipv4Net, gateway: Option<Ipv4Addr>| RouteSpec {
        src: Some(own.addr().into()),
        priority: if metric == 0 { route_config::METRIC } else { metric },
        protocol: RouteProtocol::BOOT,
        layer: LAYER,
        ..route_config::normal(link, Some(destination.into()), gateway.map(IpAddr::V4))
    };
    let mut specs = Vec::new();
    for (destination, gateway) in wanted {
        if let Some(gateway) = gateway.filter(|gateway| !own.contains(gateway)) {
            let way = of(Ipv4Net::from(gateway), None);
            if !specs.contains(&way) {
                specs.push(way);
            }
        }
        specs.push(of(destination, gateway));
    }
    specs
}

/// The name without its domain; the domain that the server tells by itself comes before that of the name.
fn hostname(lease: &Lease) -> Option<HostnameSpec> {
    let name = lease.host_name.as_deref()?;
    let (hostname, of_name) = name.split_once('.').unwrap_or((name, ""));
    let domainname = lease.domain_name.as_deref().unwrap_or(of_name);
    Some(HostnameSpec { hostname: hostname.to_owned(), domainname: domainname.to_owned(), layer: LAYER })
}

#[cfg(test)]
mod tests {
    use dhcp::{Code, Message, MessageType};
    use resources::enums::Scope;
    use resources::network::Dhcp4Operator;

    use super::*;

    fn specs(options: &[(Code, &[u8])]) -> LeaseSpecs {
        let mut ack = Message::request(1, [0; 6]).reply().of(MessageType::Ack).with(Code::ServerId, [10, 0, 2, 2]);
        ack.yiaddr = [10, 0, 2, 15].into();
        for (code, value) in options {
            ack = ack.with(*code, *value);
        }
        let dhcp4 = Dhcp4Operator { route_metric: 1024, ..Default::default() };
        let operator = OperatorSpec { link_name: "eth0".into(), dhcp4, ..Default::default() };
        LeaseSpecs::of(&Lease::from_message(&ack).unwrap(), &operator)
    }

    fn texts(specs: &LeaseSpecs) -> Vec<String> {
        let text = |route: &RouteSpec| {
            let destination = route.dst.map_or("default".to_owned(), |net| net.to_string());
            let gateway = route.gateway.map_or("link".to_owned(), |gateway| gateway.to_string());
            format!("{destination} {gateway} {}", route.scope)
        };
        specs.routes.iter().map(text).collect()
    }

    const MASK: (Code, &[u8]) = (Code::SubnetMask, &[255, 255, 255, 0]);

    #[test]
    fn a_router_makes_the_default_route_with_the_address_as_source() {
        let specs = specs(&[MASK, (Code::Router, &[10, 0, 2, 2, 10, 0, 2, 3]), (Code::Mtu, &[5, 120])]);
        assert_eq!(texts(&specs), ["default 10.0.2.2 global"]);
        let route = &specs.routes[0];
        assert_eq!((route.src, route.priority), (Some([10, 0, 2, 15].into()), 1024));
        assert_eq!((route.protocol, specs.link.unwrap().mtu), (RouteProtocol::BOOT, 1400));
        assert_eq!((specs.address.scope, specs.address.layer), (Scope::GLOBAL, ConfigLayer::Operator));
    }

    #[test]
    fn a_router_outside_the_prefix_is_reached_over_the_link() {
        let specs = specs(&[(Code::Router, &[10, 9, 0, 1])]);
        assert_eq!(texts(&specs), ["10.9.0.1/32 link link", "default 10.9.0.1 global"]);
    }

    #[test]
    fn classless_routes_replace_the_router() {
        let routes = [&[0, 10, 0, 2, 2][..], &[16, 192, 168, 10, 0, 2, 3], &[24, 10, 7, 7, 0, 0, 0, 0]].concat();
        let specs = specs(&[MASK, (Code::Router, &[10, 0, 2, 9]), (Code::ClasslessRoutes, &routes)]);
        assert_eq!(
            texts(&specs),
            ["default 10.0.2.2 global", "192.168.0.0/16 10.0.2.3 global", "10.7.7.0/24 link link"]
        );
    }

    #[test]
    fn a_name_has_the_domain_of_the_server_or_its_own() {
        let name = |options: &[(Code, &[u8])]| specs(options).hostname.map(|spec| (spec.hostname, spec.domainname));
        let full = (Code::HostName, &b"vm-1.example.org"[..]);
        assert_eq!(name(&[full]), Some(("vm-1".into(), "example.org".into())));
        assert_eq!(name(&[full, (Code::DomainName, b"lab")]), Some(("vm-1".into(), "lab".into())));
        assert_eq!(name(&[(Code::DomainName, b"lab")]), None);
    }
}
