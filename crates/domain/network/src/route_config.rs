//! Routes by layer: the kernel's arguments and the devices of the configuration.

use std::net::IpAddr;

use async_trait::async_trait;
use config::v1alpha1;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use ipnet::IpNet;
use resources::enums::{ConfigLayer, Family, RouteProtocol, RouteType, RoutingTable, Scope};
use resources::network::{CONFIG_NAMESPACE, LinkStatus, RouteSpec};

use crate::arguments::{Arguments, ResolvedLink};
use crate::devices::{self, Devices};

/// The metric of a route that has none.
pub(crate) const METRIC: u32 = 1024;

/// `network.RouteConfigController`: arguments, devices → `RouteSpec` of the layers `cmdline` and `configuration`, where the
/// network is the machine's own.
#[derive(Debug)]
pub struct RouteConfigController {
    arguments: Arguments,
}

impl RouteConfigController {
    /// With the arguments of the kernel.
    pub const fn new(arguments: Arguments) -> Self {
        Self { arguments }
    }
}

#[async_trait]
impl Controller for RouteConfigController {
    fn name(&self) -> &'static str {
        "network.RouteConfigController"
    }

    fn inputs(&self) -> Vec<Input> {
        let mut inputs = devices::inputs();
        inputs.push(Input::weak::<LinkStatus>());
        inputs
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::shared::<RouteSpec>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        if devices::are_own(ctx)? {
            let devices = Devices::read(ctx)?;
            for link in self.arguments.resolved(&ctx.list::<LinkStatus>()?).links {
                if !devices.ignores(&link.name) {
                    for spec in of_argument(&link) {
                        put(ctx, &spec.layer.to_string(), spec)?;
                    }
                }
            }
            for device in devices.in_force() {
                for route in &device.routes {
                    let spec = configured(&device.interface, route)?;
                    put(ctx, &spec.layer.to_string(), spec)?;
                }
            }
        }
        ctx.keep_touched::<RouteSpec>()
    }
}

/// Writes a spec under its id, `[TABLE/][LINK/]FAMILY/GATEWAY/DESTINATION/METRIC`, behind the place that it comes from.
pub(crate) fn put(ctx: &mut Ctx, from: &str, spec: RouteSpec) -> Result<(), ReconcileError> {
    ctx.put_in(CONFIG_NAMESPACE, &format!("{from}/{}", id(&spec)), spec).map(drop)
}

fn id(spec: &RouteSpec) -> String {
    let table = if spec.table == RoutingTable::MAIN { String::new() } else { format!("{}/", spec.table) };
    let link = if spec.family == Family::INET6 { format!("{}/", spec.out_link_name) } else { String::new() };
    let gateway = spec.gateway.map(|gateway| gateway.to_string()).unwrap_or_default();
    let destination = spec.dst.map(|destination| destination.to_string()).unwrap_or_default();
    format!("{table}{link}{}/{gateway}/{destination}/{}", spec.family, spec.priority)
}

/// A route of the main table in the form that ids and the kernel agree on: without the destination of everything, without
/// host bits, and with the scope that its gateway or destination implies.
pub(crate) fn normal(link: &str, destination: Option<IpNet>, gateway: Option<IpAddr>) -> RouteSpec {
    let dst = destination.map(|net| net.trunc()).filter(|net| net.prefix_len() > 0);
    let gateway = gateway.filter(|gateway| !gateway.is_unspecified());
    let is_v6 = dst.map(|net| net.addr()).or(gateway).is_some_and(|address| address.is_ipv6());
    let is_multicast = dst.is_some_and(|net| net.addr().is_multicast());
    RouteSpec {
        family: if is_v6 { Family::INET6 } else { Family::INET4 },
        dst,
        gateway,
        out_link_name: link.to_owned(),
        table: RoutingTable::MAIN,
        priority: METRIC,
        scope: match dst {
            Some(net) if net.addr().is_loopback() => Scope::HOST,
            // IPv6 has no scopes of routes.
            _ if gateway.is_none() && !is_v6 => Scope::LINK,
            _ => Scope::GLOBAL,
        },
        r#type: if is_multicast { RouteType::MULTICAST } else { RouteType::UNICAST },
        protocol: RouteProtocol::STATIC,
        ..RouteSpec::default()
    }
}

/// The default route of an argument, and the way to a gateway that is not in the prefix.
fn of_argument(link: &ResolvedLink) -> Vec<RouteSpec> {
    let Some(gateway) = link.gateway else { return Vec::new() };
    let priority = METRIC.saturating_add(u32::try_from(link.index).unwrap_or_default());
    let layer = ConfigLayer::Cmdline;
    let of = |spec: RouteSpec| RouteSpec { priority, protocol: RouteProtocol::BOOT, layer, ..spec };
    let mut specs = vec![of(normal(&link.name, None, Some(gateway)))];
    if gateway.is_ipv4() && link.address.is_some_and(|address| !address.contains(&gateway)) {
        specs.push(of(normal(&link.name, Some(gateway.into()), None)));
    }
    specs
}

fn configured(link: &str, route: &v1alpha1::Route) -> Result<RouteSpec, ReconcileError> {
    let address = |text: &str| (!text.is_empty()).then(|| text.parse::<IpAddr>()).transpose();
    let destination = (!route.network.is_empty()).then(|| route.network.parse::<IpNet>()).transpose()?;
    // The source shows in which family a default route without a gateway is.
    let src = address(&route.source)?;
    Ok(RouteSpec {
        src,
        priority: route.metric.unwrap_or(METRIC),
        mtu: route.mtu.unwrap_or_default(),
        layer: ConfigLayer::MachineConfiguration,
        ..normal(link, destination, address(&route.gateway)?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configured_id(network: &str, gateway: &str) -> (String, Scope) {
        let route = v1alpha1::Route { network: network.into(), gateway: gateway.into(), ..v1alpha1::Route::default() };
        let spec = configured("eth0", &route).unwrap();
        (id(&spec), spec.scope)
    }

    #[test]
    fn ids_are_the_same_for_all_spellings_of_a_route() {
        for network in ["0.0.0.0/0", "", "10.0.0.0/0"] {
            assert_eq!(configured_id(network, "10.0.0.1"), ("inet4/10.0.0.1//1024".into(), Scope::GLOBAL));
        }
        assert_eq!(configured_id("192.168.7.9/24", ""), ("inet4//192.168.7.0/24/1024".into(), Scope::LINK));
        assert_eq!(configured_id("::/0", "fe80::1"), ("eth0/inet6/fe80::1//1024".into(), Scope::GLOBAL));
    }

    #[test]
    fn an_argument_makes_a_default_route_and_the_way_to_a_gateway_outside_the_prefix() {
        let link = |address: &str| ResolvedLink {
            name: "eth0".into(),
            address: Some(address.parse().unwrap()),
            gateway: Some("10.0.0.1".parse().unwrap()),
            dhcp: false,
            index: 2,
        };
        let ids = |address| of_argument(&link(address)).iter().map(id).collect::<Vec<_>>();
        assert_eq!(ids("10.0.0.2/24"), ["inet4/10.0.0.1//1026"]);
        assert_eq!(ids("10.9.0.2/32"), ["inet4/10.0.0.1//1026", "inet4//10.0.0.1/32/1026"]);
    }
}
