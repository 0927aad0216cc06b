//! Time servers by layer.

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use resources::config::MachineConfig;
use resources::enums::ConfigLayer;
use resources::network::{CONFIG_NAMESPACE, TimeServerSpec};

use crate::arguments::Arguments;

/// Default servers.
const DEFAULT: &str = "time.cloudflare.com";

/// Configuration, arguments of the kernel → `TimeServerSpec`, one a layer.
#[derive(Debug)]
pub struct TimeServerConfigController {
    arguments: Arguments,
}

impl TimeServerConfigController {
    /// With the arguments of the kernel.
    pub const fn new(arguments: Arguments) -> Self {
        Self { arguments }
    }
}

#[async_trait]
impl Controller for TimeServerConfigController {
    fn name(&self) -> &'static str {
        "network.TimeServerConfigController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![Input::weak::<MachineConfig>().id(MachineConfig::ACTIVE_ID)]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::shared::<TimeServerSpec>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        put(ctx, ConfigLayer::Default, vec![DEFAULT.to_owned()])?;
        let of_arguments = self.arguments.time_servers().to_vec();
        if !of_arguments.is_empty() {
            put(ctx, ConfigLayer::Cmdline, of_arguments)?;
        }
        let active = ctx.get::<MachineConfig>(MachineConfig::ACTIVE_ID)?;
        let machine = MachineConfig::root_of(active.as_deref())?.map(|config| config.machine());
        let time = machine.and_then(|machine| machine.time.as_ref());
        let servers = time.map(|time| time.servers.clone()).unwrap_or_default();
        if !servers.is_empty() {
            put(ctx, ConfigLayer::MachineConfiguration, servers)?;
        }
        ctx.keep_touched::<TimeServerSpec>()
    }
}

fn put(ctx: &mut Ctx, layer: ConfigLayer, time_servers: Vec<String>) -> Result<(), ReconcileError> {
    let spec = TimeServerSpec { time_servers, layer };
    ctx.put_in(CONFIG_NAMESPACE, &format!("{layer}/{}", TimeServerSpec::ID), spec)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use controller::testing::Harness;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn configured_servers_are_a_layer_above_the_default_one() {
        let harness = Harness::with(TimeServerConfigController::new(Arguments::default()));
        let text = "version: v1alpha1\nmachine:\n  type: worker\n  time:\n    servers:\n      - ntp.example.org\n";
        harness.put(MachineConfig::ACTIVE_ID, MachineConfig::new(text));
        harness.settle().await;
        let get = |id| harness.get_in::<TimeServerSpec>(CONFIG_NAMESPACE, id).unwrap();
        assert_eq!(get("default/timeservers").time_servers, [DEFAULT]);
        assert_eq!(get("configuration/timeservers").time_servers, ["ntp.example.org"]);
    }
}
