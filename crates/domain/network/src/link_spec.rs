//! Links that the node sets up itself. So far this is the loopback, which every node has; others are its platform's.

use std::sync::Arc;

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use netlink::{LinkChange, Links};
use resources::enums::{ConfigLayer, LinkFlags, LinkType};
use resources::network::{CONFIG_NAMESPACE, LinkSpec, LinkStatus};

/// The name of the loopback.
const LOOPBACK: &str = "lo";

/// `network.LinkConfigController`: the default layer of links.
#[derive(Debug)]
pub struct LinkConfigController;

#[async_trait]
impl Controller for LinkConfigController {
    fn name(&self) -> &'static str {
        "network.LinkConfigController"
    }

    fn inputs(&self) -> Vec<Input> {
        Vec::new()
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::shared::<LinkSpec>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let layer = ConfigLayer::Default;
        let loopback =
            LinkSpec { name: LOOPBACK.to_owned(), up: true, r#type: LinkType::LOOPBACK, layer, ..LinkSpec::default() };
        ctx.put_in(CONFIG_NAMESPACE, &format!("{layer}/{LOOPBACK}"), loopback)?;
        Ok(())
    }
}

/// `network.LinkSpecController`: a link that is to be up, and is down, is set up.
#[derive(Debug)]
pub struct LinkSpecController {
    links: Arc<dyn Links>,
}

impl LinkSpecController {
    /// Changes `links`.
    pub fn new(links: Arc<dyn Links>) -> Self {
        Self { links }
    }
}

#[async_trait]
impl Controller for LinkSpecController {
    fn name(&self) -> &'static str {
        "network.LinkSpecController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![Input::weak::<LinkSpec>(), Input::weak::<LinkStatus>()]
    }

    fn outputs(&self) -> Vec<Output> {
        Vec::new()
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        for spec in ctx.list::<LinkSpec>()? {
            let status = ctx.get::<LinkStatus>(&spec.name)?;
            if spec.up && status.is_some_and(|status| !status.flags.contains(LinkFlags::UP)) {
                self.links.change_link(&spec.name, LinkChange { up: Some(true), ..LinkChange::default() }).await?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use controller::testing::Harness;
    use netlink::FakeNetlink;

    use super::*;
    use crate::{LinkStatusController, MergeController};

    #[tokio::test(start_paused = true)]
    async fn a_loopback_that_is_down_is_set_up() {
        let fake = Arc::new(FakeNetlink::default());
        fake.create_veth(LOOPBACK, "peer").await.unwrap();
        let harness = Harness::with(LinkConfigController);
        harness.run(MergeController::link());
        harness.run(LinkStatusController::new(fake.clone()));
        harness.run(LinkSpecController::new(fake.clone()));
        harness.settle().await;
        let spec = harness.get::<LinkSpec>(LOOPBACK).unwrap();
        assert_eq!((spec.up, spec.logical, spec.layer), (true, false, ConfigLayer::Default));
        let is_up = |link: netlink::Link| link.flags.contains(LinkFlags::UP);
        assert!(fake.link(LOOPBACK).await.unwrap().is_some_and(is_up));
        assert!(!fake.link("peer").await.unwrap().is_some_and(is_up), "no other link is touched");
    }
}
