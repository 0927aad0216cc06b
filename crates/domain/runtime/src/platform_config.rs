//! What the platform says about the machine.

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use resources::runtime::PlatformMetadata;

use crate::platform::Platform;

/// `network.PlatformConfigController`.
#[derive(Debug)]
pub struct PlatformConfigController {
    platform: Platform,
    hostname: String,
}

impl PlatformConfigController {
    /// `hostname` is the name that the machine was started with, before anybody here set one.
    pub fn new(platform: Platform, hostname: String) -> Self {
        Self { platform, hostname }
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
        vec![Output::exclusive::<PlatformMetadata>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let Platform::Container { sku, .. } = &self.platform;
        let metadata = PlatformMetadata {
            platform: self.platform.name().to_owned(),
            hostname: self.hostname.clone(),
            instance_type: sku.clone().unwrap_or_default(),
            ..PlatformMetadata::default()
        };
        ctx.put(PlatformMetadata::ID, metadata).map(drop)
    }
}
