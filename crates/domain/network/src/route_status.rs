//! Routes as the kernel has them.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use netlink::{Links, Route, Routes};
use resources::enums::RoutingTable;
use resources::network::RouteStatus;

use crate::address_status::link_names;
use crate::watch::WatchOnce;

/// Kernel routes → `RouteStatus`, one each, by `[TABLE/]LINK/FAMILY/GATEWAY/DESTINATION/METRIC`.
#[derive(Debug)]
pub struct RouteStatusController {
    links: Arc<dyn Links>,
    routes: Arc<dyn Routes>,
    watch: WatchOnce,
}

impl RouteStatusController {
    /// Reads `routes`, and the names of links from `links`.
    pub fn new(links: Arc<dyn Links>, routes: Arc<dyn Routes>) -> Self {
        Self { links, routes, watch: WatchOnce::default() }
    }
}

#[async_trait]
impl Controller for RouteStatusController {
    fn name(&self) -> &'static str {
        "network.RouteStatusController"
    }

    fn inputs(&self) -> Vec<Input> {
        Vec::new()
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<RouteStatus>()]
    }

    fn resync(&self) -> Option<Duration> {
        Some(Duration::from_secs(60))
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        self.watch.start(ctx, [self.links.link_changes(), self.routes.route_changes()]);
        let names = link_names(&*self.links).await?;
        for route in self.routes.routes().await? {
            let link = names.get(&route.out_link_index).cloned().unwrap_or_default();
            ctx.put(&id(&route, &link), status(&route, link))?;
        }
        ctx.keep_touched::<RouteStatus>()
    }
}

fn text(value: Option<impl Display>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

fn id(route: &Route, link: &str) -> String {
    let table = if route.table == RoutingTable::MAIN { String::new() } else { format!("{}/", route.table) };
    let (gateway, destination) = (text(route.gateway), text(route.destination));
    format!("{table}{link}/{}/{gateway}/{destination}/{}", route.family, route.priority)
}

fn status(route: &Route, link: String) -> RouteStatus {
    RouteStatus {
        family: route.family,
        dst: route.destination,
        src: route.source,
        gateway: route.gateway,
        out_link_index: route.out_link_index,
        out_link_name: link,
        table: route.table,
        priority: route.priority,
        scope: route.scope,
        r#type: route.route_type,
        flags: route.flags,
        protocol: route.protocol,
        mtu: route.mtu,
    }
}

#[cfg(test)]
mod tests {
    use controller::testing::Harness;
    use netlink::FakeNetlink;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn ids_say_link_family_gateway_destination_and_metric() {
        let fake = Arc::new(FakeNetlink::default());
        fake.create_veth("eth0", "peer").await.unwrap();
        let default =
            Route { gateway: Some("10.5.0.1".parse().unwrap()), out_link_index: 1, priority: 1024, ..Route::default() };
        fake.add_route(&default).await.unwrap();
        let local = Route {
            destination: Some("10.5.0.2/32".parse().unwrap()),
            out_link_index: 1,
            table: RoutingTable::LOCAL,
            ..Route::default()
        };
        fake.add_route(&local).await.unwrap();
        let harness = Harness::with(RouteStatusController::new(fake.clone(), fake.clone()));
        harness.settle().await;
        assert_eq!(harness.ids::<RouteStatus>(), ["eth0/inet4/10.5.0.1//1024", "local/eth0/inet4//10.5.0.2/32/0"]);
        fake.delete_route(&default).await.unwrap();
        harness.settle().await;
        assert_eq!(harness.ids::<RouteStatus>().len(), 1);
    }
}
