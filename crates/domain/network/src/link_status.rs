//! Links as the kernel has them.
//!
//! Speed (ethtool) and the settings of VLANs, bonds and bridges are not read yet.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use netlink::{Link, LinkHardware, Links};
use resources::enums::{Duplex, LinkFlags, Port};
use resources::network::LinkStatus;

use crate::watch::WatchOnce;

/// Kernel links → `LinkStatus`, one each, by name.
#[derive(Debug)]
pub struct LinkStatusController {
    links: Arc<dyn Links>,
    watch: WatchOnce,
}

impl LinkStatusController {
    /// Reads `links`.
    pub fn new(links: Arc<dyn Links>) -> Self {
        Self { links, watch: WatchOnce::default() }
    }
}

#[async_trait]
impl Controller for LinkStatusController {
    fn name(&self) -> &'static str {
        "network.LinkStatusController"
    }

    fn inputs(&self) -> Vec<Input> {
        Vec::new()
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<LinkStatus>()]
    }

    fn resync(&self) -> Option<Duration> {
        Some(Duration::from_secs(60))
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        self.watch.start(ctx, [self.links.link_changes()]);
        for link in self.links.links().await? {
            let name = link.name.clone();
            let hardware = self.links.hardware(&name).await;
            ctx.put(&name, status(link, hardware))?;
        }
        ctx.keep_touched::<LinkStatus>()
    }
}

fn status(link: Link, hardware: LinkHardware) -> LinkStatus {
    LinkStatus {
        index: link.index,
        r#type: link.link_type,
        link_index: link.parent_index,
        flags: link.flags,
        link_state: link.carrier || link.flags.contains(LinkFlags(LinkFlags::UP.0 | LinkFlags::LOWER_UP.0)),
        hardware_addr: link.hardware_addr,
        permanent_addr: link.permanent_addr,
        broadcast_addr: link.broadcast_addr,
        mtu: link.mtu,
        queue_disc: link.queue_disc,
        master_index: link.master_index,
        operational_state: link.operational_state,
        kind: link.kind,
        bus_path: hardware.bus_path,
        pci_id: hardware.pci_id,
        driver: hardware.driver,
        slave_kind: link.slave_kind,
        port: Port::OTHER,
        duplex: Duplex::UNKNOWN,
        ..LinkStatus::default()
    }
}

#[cfg(test)]
mod tests {
    use controller::testing::Harness;
    use netlink::FakeNetlink;
    use resources::enums::{LinkType, OperationalState};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn links_appear_change_and_vanish() {
        let fake = FakeNetlink::default();
        fake.create_veth("eth0", "peer").await.unwrap();
        let harness = Harness::with(LinkStatusController::new(Arc::new(fake.clone())));
        harness.settle().await;
        let eth0 = harness.get::<LinkStatus>("eth0").unwrap();
        assert_eq!((eth0.r#type, eth0.kind.as_str(), eth0.link_state), (LinkType::ETHER, "veth", false));

        let up = netlink::LinkChange { up: Some(true), ..Default::default() };
        fake.change_link("eth0", up).await.unwrap();
        fake.delete_link("peer").await.unwrap();
        harness.settle().await;
        assert_eq!(harness.ids::<LinkStatus>(), ["eth0"]);
        assert_eq!(harness.get::<LinkStatus>("eth0").unwrap().operational_state, OperationalState::UP);
    }
}
