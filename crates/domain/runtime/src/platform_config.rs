//! The platform's facts about the machine, as resources.

use std::sync::Arc;

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use platform::{Platform, PlatformNetwork};
use resources::enums::ConfigLayer;
use resources::machine::PlatformCapabilities;
use resources::network::{CONFIG_NAMESPACE, ResolverSpec, TimeServerSpec};
use resources::runtime::PlatformMetadata;
use tokio::sync::watch;

/// `runtime.PlatformCapabilitiesController`: the parts that this machine owns, for decisions elsewhere.
#[derive(Debug)]
pub struct PlatformCapabilitiesController {
    platform: Arc<dyn Platform>,
}

impl PlatformCapabilitiesController {
    pub fn new(platform: Arc<dyn Platform>) -> Self {
        Self { platform }
    }
}

#[async_trait]
impl Controller for PlatformCapabilitiesController {
    fn name(&self) -> &'static str {
        "runtime.PlatformCapabilitiesController"
    }

    fn inputs(&self) -> Vec<Input> {
        Vec::new()
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<PlatformCapabilities>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        ctx.put(PlatformCapabilities::ID, self.platform.capabilities()).map(drop)
    }
}

/// `network.PlatformConfigController`: metadata, and the network settings of layer `platform`. The host name is among the
/// metadata; `network.HostnameConfigController` makes its layer.
#[derive(Debug)]
pub struct PlatformConfigController {
    metadata: watch::Receiver<Option<PlatformMetadata>>,
    network: watch::Receiver<PlatformNetwork>,
}

impl PlatformConfigController {
    pub fn new(platform: &dyn Platform) -> Self {
        Self { metadata: platform.metadata(), network: platform.network() }
    }
}

#[async_trait]
impl Controller for PlatformConfigController {
    fn name(&self) -> &'static str {
        "network.PlatformConfigController"
    }

    fn inputs(&self) -> Vec<Input> {
        Vec::new()
    }

    fn outputs(&self) -> Vec<Output> {
        vec![
            Output::exclusive::<PlatformMetadata>(),
            Output::shared::<ResolverSpec>(),
            Output::shared::<TimeServerSpec>(),
        ]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        ctx.wake_on_change("platform metadata", &self.metadata);
        ctx.wake_on_change("platform network", &self.network);
        let metadata = self.metadata.borrow().clone();
        if let Some(metadata) = metadata {
            ctx.put(PlatformMetadata::ID, metadata)?;
        }
        let PlatformNetwork { resolvers, time_servers } = self.network.borrow().clone();
        let layer = ConfigLayer::Platform;
        if !resolvers.is_empty() {
            let spec = ResolverSpec { dns_servers: resolvers, layer };
            ctx.put_in(CONFIG_NAMESPACE, &format!("{layer}/{}", ResolverSpec::ID), spec)?;
        }
        if !time_servers.is_empty() {
            let spec = TimeServerSpec { time_servers, layer };
            ctx.put_in(CONFIG_NAMESPACE, &format!("{layer}/{}", TimeServerSpec::ID), spec)?;
        }
        ctx.keep_touched::<PlatformMetadata>()?;
        ctx.keep_touched::<ResolverSpec>()?;
        ctx.keep_touched::<TimeServerSpec>()
    }
}

#[cfg(test)]
mod tests {
    use controller::testing::Harness;
    use platform::FakePlatform;
    use resources::machine::{Ownership, PlatformMode};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn capabilities_are_those_of_the_platform() {
        let capabilities = PlatformCapabilities { power: Ownership::Host, ..metal() };
        let platform = Arc::new(FakePlatform::new(capabilities.clone()));
        let harness = Harness::with(PlatformCapabilitiesController::new(platform));
        harness.settle().await;
        assert_eq!(*harness.get::<PlatformCapabilities>(PlatformCapabilities::ID).unwrap().spec, capabilities);
    }

    #[tokio::test(start_paused = true)]
    async fn metadata_and_settings_follow_the_platform() {
        let platform = FakePlatform::new(metal());
        let harness = Harness::with(PlatformConfigController::new(&platform));
        harness.settle().await;
        assert!(harness.ids::<PlatformMetadata>().is_empty(), "nothing is known yet");
        let named = PlatformMetadata { region: "eu-1".into(), ..PlatformMetadata::default() };
        platform.metadata.send_replace(Some(named));
        let resolvers = vec!["10.0.0.1".parse().unwrap()];
        platform.network.send_replace(PlatformNetwork { resolvers, time_servers: vec!["ntp.example".into()] });
        harness.settle().await;
        assert_eq!(harness.get::<PlatformMetadata>(PlatformMetadata::ID).unwrap().region, "eu-1");
        let resolver = harness.get_in::<ResolverSpec>(CONFIG_NAMESPACE, "platform/resolvers").unwrap();
        assert_eq!((resolver.dns_servers.len(), resolver.layer), (1, ConfigLayer::Platform));
        assert!(harness.get_in::<TimeServerSpec>(CONFIG_NAMESPACE, "platform/timeservers").is_some());
        platform.network.send_replace(PlatformNetwork::default());
        harness.settle().await;
        assert!(harness.get_in::<ResolverSpec>(CONFIG_NAMESPACE, "platform/resolvers").is_none());
    }

    fn metal() -> PlatformCapabilities {
        PlatformCapabilities::owning_all(PlatformMode::Metal)
    }
}
