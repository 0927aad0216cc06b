//! Where a machine in maintenance mode is reached.

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use resources::network::NodeAddress;
use resources::runtime::{MaintenanceServiceConfig, MaintenanceServiceRequest};

/// All addresses of the machine that others may reach.
const CURRENT: &str = "current";
/// On all addresses, at the port of the machine API.
const LISTEN: &str = ":50000";

/// `runtime.MaintenanceConfigController`: a `MaintenanceServiceConfig` for each request.
#[derive(Debug)]
pub struct MaintenanceConfigController;

#[async_trait]
impl Controller for MaintenanceConfigController {
    fn name(&self) -> &'static str {
        "runtime.MaintenanceConfigController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![Input::weak::<MaintenanceServiceRequest>(), Input::weak::<NodeAddress>().id(CURRENT)]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<MaintenanceServiceConfig>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let addresses = ctx.get::<NodeAddress>(CURRENT)?.map(|known| known.addresses.clone()).unwrap_or_default();
        for request in ctx.list::<MaintenanceServiceRequest>()? {
            let reachable_addresses = addresses.iter().map(|net| net.addr()).collect();
            let config = MaintenanceServiceConfig { listen_address: LISTEN.to_owned(), reachable_addresses };
            ctx.put(request.id(), config)?;
        }
        ctx.keep_touched::<MaintenanceServiceConfig>()
    }
}

#[cfg(test)]
mod tests {
    use controller::testing::Harness;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_addresses_are_told_while_maintenance_is_asked_for() {
        let harness = Harness::with(MaintenanceConfigController);
        harness.put(CURRENT, NodeAddress { addresses: vec!["10.5.0.2/24".parse().unwrap()] });
        harness.settle().await;
        assert_eq!(harness.get::<MaintenanceServiceConfig>("maintenance"), None);
        harness.put("maintenance", MaintenanceServiceRequest {});
        harness.settle().await;
        let config = harness.get::<MaintenanceServiceConfig>("maintenance").unwrap();
        assert_eq!(config.reachable_addresses, ["10.5.0.2".parse::<std::net::IpAddr>().unwrap()]);
        harness.destroy::<MaintenanceServiceRequest>("maintenance");
        harness.settle().await;
        assert_eq!(harness.get::<MaintenanceServiceConfig>("maintenance"), None);
    }
}
