//! DNS servers by layer.

use std::net::{IpAddr, Ipv4Addr};

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use resources::config::MachineConfig;
use resources::enums::ConfigLayer;
use resources::network::{CONFIG_NAMESPACE, ResolverSpec};

use crate::arguments::Arguments;

/// Default servers.
const DEFAULT: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(1, 1, 1, 1)), IpAddr::V4(Ipv4Addr::new(8, 8, 8, 8))];

/// Configuration, arguments of the kernel → `ResolverSpec`, one a layer.
#[derive(Debug)]
pub struct ResolverConfigController {
    arguments: Arguments,
}

impl ResolverConfigController {
    /// With the arguments of the kernel.
    pub const fn new(arguments: Arguments) -> Self {
        Self { arguments }
    }
}

#[async_trait]
impl Controller for ResolverConfigController {
    fn name(&self) -> &'static str {
        "network.ResolverConfigController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![Input::weak::<MachineConfig>().id(MachineConfig::ACTIVE_ID)]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::shared::<ResolverSpec>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        put(ctx, ConfigLayer::Default, DEFAULT.to_vec())?;
        let of_arguments = self.arguments.dns_servers().to_vec();
        if !of_arguments.is_empty() {
            put(ctx, ConfigLayer::Cmdline, of_arguments)?;
        }
        let active = ctx.get::<MachineConfig>(MachineConfig::ACTIVE_ID)?;
        let machine = MachineConfig::root_of(active.as_deref())?.map(|config| config.machine());
        let network = machine.and_then(|machine| machine.network.as_ref());
        let texts = network.map(|network| network.nameservers.as_slice()).unwrap_or_default();
        let servers: Vec<IpAddr> = texts.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
        if !servers.is_empty() {
            put(ctx, ConfigLayer::MachineConfiguration, servers)?;
        }
        ctx.keep_touched::<ResolverSpec>()
    }
}

fn put(ctx: &mut Ctx, layer: ConfigLayer, dns_servers: Vec<IpAddr>) -> Result<(), ReconcileError> {
    let spec = ResolverSpec { dns_servers, layer };
    ctx.put_in(CONFIG_NAMESPACE, &format!("{layer}/{}", ResolverSpec::ID), spec)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use controller::testing::Harness;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn configured_servers_are_a_layer_above_the_default_ones() {
        let harness = Harness::with(ResolverConfigController::new(Arguments::default()));
        let text = "version: v1alpha1\nmachine:\n  type: worker\n  network:\n    nameservers:\n      - 10.5.0.1\n";
        harness.put(MachineConfig::ACTIVE_ID, MachineConfig::new(text));
        harness.settle().await;
        let get = |id| harness.get_in::<ResolverSpec>(CONFIG_NAMESPACE, id).unwrap();
        assert_eq!(get("default/resolvers").dns_servers, DEFAULT);
        let configured = get("configuration/resolvers");
        assert_eq!(configured.dns_servers, ["10.5.0.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(configured.layer, ConfigLayer::MachineConfiguration);
    }
}
