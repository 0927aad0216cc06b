//! Addresses as the kernel has them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use netlink::{Addresses, Links};
use resources::network::AddressStatus;

use crate::watch::WatchOnce;

/// Kernel addresses → `AddressStatus`, one each, by `LINK/ADDRESS/LENGTH`.
#[derive(Debug)]
pub struct AddressStatusController {
    links: Arc<dyn Links>,
    addresses: Arc<dyn Addresses>,
    watch: WatchOnce,
}

impl AddressStatusController {
    /// Reads `addresses`, and the names of links from `links`.
    pub fn new(links: Arc<dyn Links>, addresses: Arc<dyn Addresses>) -> Self {
        Self { links, addresses, watch: WatchOnce::default() }
    }
}

/// The names of links by number.
pub(crate) async fn link_names(links: &dyn Links) -> Result<HashMap<u32, String>, ReconcileError> {
    Ok(links.links().await?.into_iter().map(|link| (link.index, link.name)).collect())
}

#[async_trait]
impl Controller for AddressStatusController {
    fn name(&self) -> &'static str {
        "network.AddressStatusController"
    }

    fn inputs(&self) -> Vec<Input> {
        Vec::new()
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<AddressStatus>()]
    }

    fn resync(&self) -> Option<Duration> {
        Some(Duration::from_secs(60))
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        self.watch.start(ctx, [self.links.link_changes(), self.addresses.address_changes()]);
        let names = link_names(&*self.links).await?;
        for address in self.addresses.addresses().await? {
            // The link of an address may go between the two looks; its going wakes us again.
            let (Some(prefix), Some(link_name)) = (address.address, names.get(&address.link_index)) else {
                continue;
            };
            let status = AddressStatus {
                address: Some(prefix),
                local: address.local,
                broadcast: address.broadcast,
                anycast: address.anycast,
                multicast: address.multicast,
                link_index: address.link_index,
                link_name: link_name.clone(),
                family: address.family,
                scope: address.scope,
                flags: address.flags,
            };
            ctx.put(&format!("{link_name}/{prefix}"), status)?;
        }
        ctx.keep_touched::<AddressStatus>()
    }
}

#[cfg(test)]
mod tests {
    use controller::testing::Harness;
    use netlink::FakeNetlink;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn ids_are_link_and_prefix_and_follow_the_kernel() {
        let fake = Arc::new(FakeNetlink::default());
        fake.create_veth("eth0", "peer").await.unwrap();
        fake.add_address("eth0", "10.5.0.2/24".parse().unwrap()).await.unwrap();
        let harness = Harness::with(AddressStatusController::new(fake.clone(), fake.clone()));
        harness.settle().await;
        assert_eq!(harness.ids::<AddressStatus>(), ["eth0/10.5.0.2/24"]);
        fake.add_address("eth0", "fd00::2/64".parse().unwrap()).await.unwrap();
        fake.delete_address("eth0", "10.5.0.2/24".parse().unwrap()).await.unwrap();
        harness.settle().await;
        assert_eq!(harness.ids::<AddressStatus>(), ["eth0/fd00::2/64"]);
        assert_eq!(harness.get::<AddressStatus>("eth0/fd00::2/64").unwrap().link_name, "eth0");
    }
}
