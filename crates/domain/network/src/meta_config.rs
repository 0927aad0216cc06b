//! Network settings of the layer `platform` that an operator wrote into META (key 0x0a), as YAML.

mod settings;

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use resources::network::{CONFIG_NAMESPACE, HostnameSpec, OperatorSpec, ResolverSpec, TimeServerSpec};
use resources::runtime::MetaKey;
use stdx::error_chain;

use crate::route_config;
use crate::{devices, layer_specs};
use settings::{LAYER, Settings};

/// The key of META.
const KEY: &str = "0x0a";

/// `network.MetaConfigController`: `MetaKey` `0x0a` → specs of the layer `platform`, as it changes, where the network is the
/// machine's own. Each value replaces the one before; one that cannot be read sets nothing, and the log says why.
#[derive(Debug, Default)]
pub struct MetaConfigController {
    /// The last value that was complained about.
    refused: String,
}

#[async_trait]
impl Controller for MetaConfigController {
    fn name(&self) -> &'static str {
        "network.MetaConfigController"
    }

    fn inputs(&self) -> Vec<Input> {
        let mut inputs = devices::inputs();
        inputs.push(Input::weak::<MetaKey>());
        inputs
    }

    fn outputs(&self) -> Vec<Output> {
        let mut outputs = layer_specs::outputs();
        outputs.push(Output::shared::<OperatorSpec>());
        outputs
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let key = ctx.get::<MetaKey>(KEY)?;
        let text = key.map(|key| key.value.clone()).filter(|text| !text.trim().is_empty());
        if let Some(text) = text.filter(|_| devices::are_own(ctx).unwrap_or_default()) {
            match Settings::read(&text) {
                Ok(settings) => {
                    if self.refused != text {
                        for part in &settings.without_effect {
                            tracing::warn!(part, "part of the network settings in META without effect in this version");
                        }
                        self.refused = text;
                    }
                    publish(ctx, settings)?;
                }
                Err(error) if self.refused != text => {
                    tracing::error!(error = error_chain(&error), "network settings in META (0x0a) are ignored");
                    self.refused = text;
                }
                Err(_) => {}
            }
        }
        layer_specs::keep_touched(ctx)?;
        ctx.keep_touched::<OperatorSpec>()
    }
}

fn publish(ctx: &mut Ctx, settings: Settings) -> Result<(), ReconcileError> {
    let id = |rest: &str| format!("{LAYER}/{rest}");
    for spec in settings.addresses {
        if let Some(address) = spec.address {
            ctx.put_in(CONFIG_NAMESPACE, &id(&format!("{}/{address}", spec.link_name)), spec)?;
        }
    }
    for spec in settings.routes {
        route_config::put(ctx, &LAYER.to_string(), spec)?;
    }
    for spec in settings.links {
        ctx.put_in(CONFIG_NAMESPACE, &id(&spec.name), spec)?;
    }
    for spec in settings.operators {
        ctx.put_in(CONFIG_NAMESPACE, &id(&format!("{}/{}", spec.operator, spec.link_name)), spec)?;
    }
    if let Some(spec) = settings.hostname {
        ctx.put_in(CONFIG_NAMESPACE, &id(HostnameSpec::ID), spec)?;
    }
    if !settings.resolvers.is_empty() {
        let spec = ResolverSpec { dns_servers: settings.resolvers, layer: LAYER };
        ctx.put_in(CONFIG_NAMESPACE, &id(ResolverSpec::ID), spec)?;
    }
    if !settings.time_servers.is_empty() {
        let spec = TimeServerSpec { time_servers: settings.time_servers, layer: LAYER };
        ctx.put_in(CONFIG_NAMESPACE, &id(TimeServerSpec::ID), spec)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
