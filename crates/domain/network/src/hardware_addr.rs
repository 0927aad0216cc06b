//! The hardware address that identifies the node.

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use resources::enums::LinkType;
use resources::network::{HardwareAddress, LinkStatus};

/// `LinkStatus` → `HardwareAddress` `first`: of the physical Ethernet link with the lowest number. In a container, which
/// has none, a virtual Ethernet link takes its place.
#[derive(Debug)]
pub struct HardwareAddrController;

#[async_trait]
impl Controller for HardwareAddrController {
    fn name(&self) -> &'static str {
        "network.HardwareAddrController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![Input::weak::<LinkStatus>()]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<HardwareAddress>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let mut links = ctx.list::<LinkStatus>()?;
        links.retain(|link| link.r#type == LinkType::ETHER && ["", "veth"].contains(&link.kind.as_str()));
        links.sort_by_key(|link| (!link.kind.is_empty(), link.index));
        if let Some(first) = links.first() {
            let address = HardwareAddress { name: first.id().to_owned(), hardware_addr: first.hardware_addr.clone() };
            ctx.put(HardwareAddress::ID, address)?;
        }
        ctx.keep_touched::<HardwareAddress>()
    }
}

#[cfg(test)]
mod tests {
    use controller::testing::Harness;

    use super::*;

    fn link(index: u32, kind: &str, address: &str) -> LinkStatus {
        let hardware_addr = address.parse().unwrap();
        LinkStatus { index, r#type: LinkType::ETHER, kind: kind.into(), hardware_addr, ..Default::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_physical_link_comes_before_a_virtual_one() {
        let harness = Harness::with(HardwareAddrController);
        harness.put("br0", link(1, "bridge", "02:00:00:00:00:01"));
        harness.put("eth0", link(2, "veth", "02:00:00:00:00:02"));
        harness.settle().await;
        assert_eq!(harness.get::<HardwareAddress>("first").unwrap().name, "eth0");
        harness.put("ens3", link(3, "", "02:00:00:00:00:03"));
        harness.settle().await;
        let first = harness.get::<HardwareAddress>("first").unwrap();
        assert_eq!((first.name.as_str(), first.hardware_addr.to_string().as_str()), ("ens3", "02:00:00:00:00:03"));
    }
}
