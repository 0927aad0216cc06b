//! Routes as they are to be.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use netlink::{Addresses, Links, NetlinkError, Route, Routes};
use resources::enums::{Family, RouteProtocol, RouteType, RoutingTable};
use resources::network::RouteSpec;
use resources::runtime::DevicesStatus;

use crate::held::{FirstError, devices_are_ready, hold_all};
use crate::watch::WatchOnce;

/// The flags of a route that its maker sets.
const OWN_FLAGS: u32 = 0xf00;
/// The kernel's metric of IPv6 routes without one.
const DEFAULT_PRIORITY_V6: u32 = 1024;

/// `RouteSpec` → routes of the kernel. Those without a spec are left alone; one of a spec that went, as those of a link that
/// was down, comes back.
#[derive(Debug)]
pub struct RouteSpecController {
    links: Arc<dyn Links>,
    addresses: Arc<dyn Addresses>,
    routes: Arc<dyn Routes>,
    watch: WatchOnce,
}

impl RouteSpecController {
    /// Changes `routes`; they depend on `links` and `addresses`.
    pub fn new(links: Arc<dyn Links>, addresses: Arc<dyn Addresses>, routes: Arc<dyn Routes>) -> Self {
        Self { links, addresses, routes, watch: WatchOnce::default() }
    }

    async fn ensure(&self, wanted: &Route, known: &[Route]) -> Result<(), NetlinkError> {
        if let Some(found) = known.iter().find(|route| is_same(route, wanted)) {
            if fits(found, wanted) {
                return Ok(());
            }
            self.routes.delete_route(found).await?;
        }
        self.routes.append_route(wanted).await?;
        let destination = wanted.destination.map_or_else(|| "default".to_owned(), |net| net.to_string());
        tracing::info!(destination, gateway = ?wanted.gateway, metric = wanted.priority, "route added");
        Ok(())
    }
}

/// Whether the kernel has it for the same thing.
fn is_same(known: &Route, wanted: &Route) -> bool {
    let is_everything = |route: &Route| route.destination.filter(|net| net.prefix_len() > 0).map(|net| net.trunc());
    known.family == wanted.family
        && is_everything(known) == is_everything(wanted)
        && known.gateway == wanted.gateway
        && known.table == wanted.table
        && known.priority == wanted.priority
}

/// Whether it needs no replacement.
fn fits(known: &Route, wanted: &Route) -> bool {
    known.scope == wanted.scope
        && known.flags.0 & OWN_FLAGS == wanted.flags.0 & OWN_FLAGS
        && known.protocol == wanted.protocol
        && (wanted.out_link_index == 0 || known.out_link_index == wanted.out_link_index)
        && (wanted.source.is_none() || known.source == wanted.source)
        && known.mtu == wanted.mtu
}

/// The route of the kernel that a spec means; `index` is that of its link.
fn route(spec: &RouteSpec, index: u32) -> Route {
    let or = |value: i32, default: i32| if value == 0 { default } else { value };
    let mut route = Route {
        family: spec.family,
        destination: spec.dst.filter(|net| net.prefix_len() > 0),
        source: spec.src,
        gateway: spec.gateway,
        out_link_index: index,
        table: RoutingTable(or(spec.table.0, RoutingTable::MAIN.0)),
        priority: spec.priority,
        scope: spec.scope,
        route_type: RouteType(or(spec.r#type.0, RouteType::UNICAST.0)),
        flags: spec.flags,
        protocol: RouteProtocol(or(spec.protocol.0, RouteProtocol::STATIC.0)),
        mtu: spec.mtu,
    };
    route.family = route.effective_family();
    if route.family == Family::INET6 && route.priority == 0 {
        route.priority = DEFAULT_PRIORITY_V6;
    }
    route
}

#[async_trait]
impl Controller for RouteSpecController {
    fn name(&self) -> &'static str {
        "network.RouteSpecController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![Input::strong::<RouteSpec>(), Input::weak::<DevicesStatus>().id(DevicesStatus::ID)]
    }

    fn outputs(&self) -> Vec<Output> {
        Vec::new()
    }

    fn resync(&self) -> Option<Duration> {
        Some(Duration::from_secs(60))
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let (links, addresses) = (self.links.link_changes(), self.addresses.address_changes());
        self.watch.start(ctx, [links, addresses, self.routes.route_changes()]);
        if !devices_are_ready(ctx)? {
            return Ok(());
        }
        let mut specs = hold_all::<RouteSpec>(ctx)?;
        // Routes on the link come first: gateways are reached by them.
        specs.wanted.sort_by_key(|spec| spec.gateway.is_some());
        let links = self.links.links().await?;
        let known = self.routes.routes().await?;
        let index = |spec: &RouteSpec| match spec.out_link_name.as_str() {
            "" => Some(0),
            name => links.iter().find(|link| link.name == name).map(|link| link.index),
        };
        let mut failures = FirstError::default();
        for (id, spec) in specs.going {
            let meant = route(&spec, 0);
            let removed = match known.iter().find(|known| is_same(known, &meant)) {
                Some(found) => self.routes.delete_route(found).await,
                None => Ok(()),
            };
            if failures.keep(removed) {
                ctx.remove_finalizer::<RouteSpec>(&id)?;
            }
        }
        for spec in &specs.wanted {
            // An absent link may come, which wakes this controller.
            if let Some(index) = index(spec) {
                failures.keep(self.ensure(&route(spec, index), &known).await);
            }
        }
        failures.into_result()
    }
}

#[cfg(test)]
mod tests {
    use controller::testing::Harness;
    use netlink::FakeNetlink;
    use resources::enums::Scope;

    use super::*;

    fn spec(gateway: &str, priority: u32) -> RouteSpec {
        RouteSpec {
            family: Family::INET4,
            gateway: Some(gateway.parse().unwrap()),
            out_link_name: "eth0".into(),
            table: RoutingTable::MAIN,
            priority,
            protocol: RouteProtocol::BOOT,
            ..Default::default()
        }
    }

    async fn machine() -> (Arc<FakeNetlink>, Harness) {
        let fake = Arc::new(FakeNetlink::default());
        fake.create_veth("eth0", "peer").await.unwrap();
        let harness = Harness::with(RouteSpecController::new(fake.clone(), fake.clone(), fake.clone()));
        harness.put(DevicesStatus::ID, DevicesStatus { ready: true });
        (fake, harness)
    }

    async fn gateways(fake: &FakeNetlink) -> Vec<String> {
        fake.routes().await.unwrap().iter().map(|route| route.gateway.unwrap().to_string()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn routes_come_back_and_go_with_their_specs() {
        let (fake, harness) = machine().await;
        let others = Route { gateway: Some("10.9.0.1".parse().unwrap()), priority: 5, ..Default::default() };
        fake.add_route(&others).await.unwrap();
        harness.put("a", spec("10.0.0.1", 1024));
        harness.put("b", spec("10.0.0.2", 1024));
        harness.settle().await;
        assert_eq!(gateways(&fake).await, ["10.9.0.1", "10.0.0.1", "10.0.0.2"], "two of the same metric are there");
        fake.set_routes(Vec::new());
        harness.settle().await;
        assert_eq!(gateways(&fake).await, ["10.0.0.1", "10.0.0.2"]);
        assert!(!harness.teardown::<RouteSpec>("a"));
        harness.settle().await;
        harness.destroy::<RouteSpec>("a");
        assert_eq!(gateways(&fake).await, ["10.0.0.2"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_route_that_differs_is_replaced() {
        let (fake, harness) = machine().await;
        harness.put("a", spec("10.0.0.1", 1024));
        harness.settle().await;
        harness.put("a", RouteSpec { mtu: 1400, scope: Scope::GLOBAL, ..spec("10.0.0.1", 1024) });
        harness.settle().await;
        let routes = fake.routes().await.unwrap();
        assert_eq!(routes.iter().map(|route| route.mtu).collect::<Vec<_>>(), [1400]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_route_waits_for_its_link() {
        let (fake, harness) = machine().await;
        harness.put("a", RouteSpec { out_link_name: "eth9".into(), ..spec("10.0.0.1", 1) });
        harness.settle().await;
        assert!(gateways(&fake).await.is_empty());
        fake.create_veth("eth9", "peer9").await.unwrap();
        harness.settle().await;
        assert_eq!(gateways(&fake).await, ["10.0.0.1"]);
    }
}
