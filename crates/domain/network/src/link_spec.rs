//! Links as they are to be.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use netlink::{Link, LinkChange, Links, NetlinkError};
use resources::enums::LinkFlags;
use resources::network::LinkSpec;

use crate::held::{FirstError, devices_are_ready, hold_all};
use crate::link_config::LOOPBACK;
use crate::watch::WatchOnce;
use resources::runtime::DevicesStatus;

/// `network.LinkSpecController`: `LinkSpec` → links of the kernel. Links without a spec are left alone, and physical ones stay
/// as they are when their spec goes.
#[derive(Debug)]
pub struct LinkSpecController {
    links: Arc<dyn Links>,
    watch: WatchOnce,
}

impl LinkSpecController {
    /// Changes `links`.
    pub fn new(links: Arc<dyn Links>) -> Self {
        Self { links, watch: WatchOnce::default() }
    }

    async fn ensure(&self, spec: &LinkSpec, link: &Link) -> Result<(), NetlinkError> {
        let change = difference(spec, link);
        if change == LinkChange::default() {
            return Ok(());
        }
        tracing::info!(link = link.name, up = change.up, mtu = change.mtu, "link changed");
        self.links.change_link(&link.name, change).await
    }
}

/// What is to be changed of a link; an MTU of 0 means the one that it has.
fn difference(spec: &LinkSpec, link: &Link) -> LinkChange {
    let is_up = link.flags.contains(LinkFlags::UP);
    LinkChange {
        up: (is_up != spec.up).then_some(spec.up),
        mtu: (spec.mtu != 0 && spec.mtu != link.mtu).then_some(spec.mtu),
        ..LinkChange::default()
    }
}

#[async_trait]
impl Controller for LinkSpecController {
    fn name(&self) -> &'static str {
        "network.LinkSpecController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![Input::strong::<LinkSpec>(), Input::weak::<DevicesStatus>().id(DevicesStatus::ID)]
    }

    fn outputs(&self) -> Vec<Output> {
        Vec::new()
    }

    fn resync(&self) -> Option<Duration> {
        Some(Duration::from_secs(60))
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        self.watch.start(ctx, [self.links.link_changes()]);
        let is_ready = devices_are_ready(ctx)?;
        let specs = hold_all::<LinkSpec>(ctx)?;
        let links = self.links.links().await?;
        let mut failures = FirstError::default();
        for (id, _) in specs.going {
            ctx.remove_finalizer::<LinkSpec>(&id)?;
        }
        for spec in &specs.wanted {
            // The loopback has its name from the beginning.
            if !is_ready && spec.name != LOOPBACK {
                continue;
            }
            if let Some(link) = links.iter().find(|link| link.name == spec.name) {
                failures.keep(self.ensure(spec, link).await);
            }
        }
        failures.into_result()
    }
}

#[cfg(test)]
mod tests {
    use controller::testing::Harness;
    use netlink::FakeNetlink;
    use resources::enums::ConfigLayer;

    use super::*;
    use crate::arguments::Arguments;
    use crate::{LinkConfigController, LinkStatusController, MergeController};

    fn is_up(link: &Link) -> bool {
        link.flags.contains(LinkFlags::UP)
    }

    #[tokio::test(start_paused = true)]
    async fn a_loopback_that_is_down_is_set_up() {
        let fake = Arc::new(FakeNetlink::default());
        fake.create_veth(LOOPBACK, "peer").await.unwrap();
        let harness = Harness::with(LinkConfigController::new(Arguments::default()));
        harness.run(MergeController::link());
        harness.run(LinkStatusController::new(fake.clone()));
        harness.run(LinkSpecController::new(fake.clone()));
        harness.settle().await;
        let spec = harness.get::<LinkSpec>(LOOPBACK).unwrap();
        assert_eq!((spec.up, spec.logical, spec.layer), (true, false, ConfigLayer::Default));
        assert!(fake.link(LOOPBACK).await.unwrap().is_some_and(|link| is_up(&link)));
        assert!(!fake.link("peer").await.unwrap().is_some_and(|link| is_up(&link)), "no other link is touched");
    }

    #[tokio::test(start_paused = true)]
    async fn a_link_is_set_up_when_it_comes_and_stays_when_its_spec_goes() {
        let fake = Arc::new(FakeNetlink::default());
        let harness = Harness::with(LinkSpecController::new(fake.clone()));
        let spec = LinkSpec { name: "eth0".into(), up: true, mtu: 1400, ..Default::default() };
        harness.put("eth0", spec);
        harness.settle().await;
        fake.create_veth("eth0", "peer").await.unwrap();
        harness.settle().await;
        assert!(!is_up(&fake.link("eth0").await.unwrap().unwrap()), "udev may still rename it");
        harness.put(DevicesStatus::ID, DevicesStatus { ready: true });
        harness.settle().await;
        let eth0 = fake.link("eth0").await.unwrap().unwrap();
        assert!(is_up(&eth0) && eth0.mtu == 1400);
        harness.teardown::<LinkSpec>("eth0");
        harness.settle().await;
        harness.destroy::<LinkSpec>("eth0");
        assert!(is_up(&fake.link("eth0").await.unwrap().unwrap()));
    }
}
