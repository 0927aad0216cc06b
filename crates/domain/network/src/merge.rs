//! Layers of a setting become one: the highest layer wins whole.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use resources::Spec;
use resources::enums::ConfigLayer;
use resources::network::{CONFIG_NAMESPACE, HostnameSpec, LinkSpec, ResolverSpec, TimeServerSpec};

/// A layered setting.
pub trait Layered: Spec {
    /// The layer that this one is.
    fn layer(&self) -> ConfigLayer;
}

/// Settings in `network-config`, by layer and id (`default/hostname`) → those in `network`, by id.
#[derive(Debug)]
pub struct MergeController<S> {
    name: &'static str,
    spec: PhantomData<fn() -> S>,
}

impl MergeController<HostnameSpec> {
    /// Host names.
    pub const fn hostname() -> Self {
        Self { name: "network.HostnameMergeController", spec: PhantomData }
    }
}

impl MergeController<ResolverSpec> {
    /// DNS servers.
    pub const fn resolver() -> Self {
        Self { name: "network.ResolverMergeController", spec: PhantomData }
    }
}

impl MergeController<TimeServerSpec> {
    /// Time servers.
    pub const fn time_server() -> Self {
        Self { name: "network.TimeServerMergeController", spec: PhantomData }
    }
}

impl MergeController<LinkSpec> {
    /// Links.
    pub const fn link() -> Self {
        Self { name: "network.LinkMergeController", spec: PhantomData }
    }
}

impl Layered for LinkSpec {
    fn layer(&self) -> ConfigLayer {
        self.layer
    }
}

impl Layered for HostnameSpec {
    fn layer(&self) -> ConfigLayer {
        self.layer
    }
}

impl Layered for ResolverSpec {
    fn layer(&self) -> ConfigLayer {
        self.layer
    }
}

impl Layered for TimeServerSpec {
    fn layer(&self) -> ConfigLayer {
        self.layer
    }
}

#[async_trait]
impl<S: Layered> Controller for MergeController<S> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn inputs(&self) -> Vec<Input> {
        vec![Input::weak::<S>().namespace(CONFIG_NAMESPACE)]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::shared::<S>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let layers = ctx.list_in::<S>(CONFIG_NAMESPACE)?;
        let mut highest = BTreeMap::new();
        for spec in &layers {
            let id = spec.id().split_once('/').map_or(spec.id(), |(_, id)| id);
            let known = highest.entry(id).or_insert(spec);
            if spec.layer() >= known.layer() {
                *known = spec;
            }
        }
        for (id, spec) in highest {
            ctx.put(id, S::clone(spec))?;
        }
        ctx.keep_touched::<S>()
    }
}

#[cfg(test)]
mod tests {
    use controller::testing::Harness;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_higher_layer_wins_and_the_lower_returns_when_it_goes() {
        let harness = Harness::with(MergeController::hostname());
        let put = |id: &str, layer, name: &str| {
            let spec = HostnameSpec { hostname: name.into(), layer, ..Default::default() };
            harness.put_in(CONFIG_NAMESPACE, id, spec);
        };
        put("default/hostname", ConfigLayer::Default, "talos-abc-def");
        put("configuration/hostname", ConfigLayer::MachineConfiguration, "cp-1");
        put("platform/hostname", ConfigLayer::Platform, "vm-7");
        harness.settle().await;
        let merged = harness.get::<HostnameSpec>("hostname").unwrap();
        assert_eq!((merged.hostname.as_str(), merged.layer), ("cp-1", ConfigLayer::MachineConfiguration));
        let key = state_key("configuration/hostname");
        harness.store.destroy(&key, "").unwrap();
        harness.settle().await;
        assert_eq!(harness.get::<HostnameSpec>("hostname").unwrap().hostname, "vm-7");
    }

    fn state_key(id: &str) -> state::Key {
        state::Kind::of_in::<HostnameSpec>(CONFIG_NAMESPACE).key(id)
    }
}
