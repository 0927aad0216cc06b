//! Addresses of links as they are to be.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use netlink::{Address, Addresses, Links, NetlinkError};
use resources::enums::AddressFlags;
use resources::network::AddressSpec;
use resources::runtime::DevicesStatus;

use crate::held::{FirstError, devices_are_ready, hold_all};
use crate::watch::WatchOnce;

/// Flags that the kernel sets while it looks for duplicates of an address.
const STATE_FLAGS: AddressFlags =
    AddressFlags(AddressFlags::TENTATIVE.0 | AddressFlags::DAD_FAILED.0 | AddressFlags::PERMANENT.0);

/// `AddressSpec` → addresses of the kernel. Those without a spec are left alone; one of a spec that somebody removed comes
/// back.
#[derive(Debug)]
pub struct AddressSpecController {
    links: Arc<dyn Links>,
    addresses: Arc<dyn Addresses>,
    watch: WatchOnce,
}

impl AddressSpecController {
    /// Changes `addresses` of `links`.
    pub fn new(links: Arc<dyn Links>, addresses: Arc<dyn Addresses>) -> Self {
        Self { links, addresses, watch: WatchOnce::default() }
    }

    async fn ensure(&self, spec: &AddressSpec, found: Option<&Address>) -> Result<(), NetlinkError> {
        let Some(address) = spec.address else { return Ok(()) };
        if let Some(found) = found {
            let flags = |flags: AddressFlags| flags.0 & !STATE_FLAGS.0;
            if found.scope == spec.scope && flags(found.flags) == flags(spec.flags) {
                return Ok(());
            }
            self.addresses.delete_address(&spec.link_name, address).await?;
        }
        let flags = AddressFlags(spec.flags.0 & !STATE_FLAGS.0);
        self.addresses.add_address_with(&spec.link_name, address, spec.scope, flags).await?;
        tracing::info!(%address, link = spec.link_name, "address assigned");
        Ok(())
    }
}

#[async_trait]
impl Controller for AddressSpecController {
    fn name(&self) -> &'static str {
        "network.AddressSpecController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![Input::strong::<AddressSpec>(), Input::weak::<DevicesStatus>().id(DevicesStatus::ID)]
    }

    fn outputs(&self) -> Vec<Output> {
        Vec::new()
    }

    fn resync(&self) -> Option<Duration> {
        Some(Duration::from_secs(60))
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        self.watch.start(ctx, [self.links.link_changes(), self.addresses.address_changes()]);
        if !devices_are_ready(ctx)? {
            return Ok(());
        }
        let specs = hold_all::<AddressSpec>(ctx)?;
        let links = self.links.links().await?;
        let addresses = self.addresses.addresses().await?;
        let find = |spec: &AddressSpec| {
            let link = links.iter().find(|link| link.name == spec.link_name)?;
            Some(addresses.iter().find(|known| known.link_index == link.index && known.address == spec.address))
        };
        let mut failures = FirstError::default();
        for (id, spec) in specs.going {
            let removed = match (find(&spec).flatten(), spec.address) {
                (Some(_), Some(address)) => {
                    tracing::info!(%address, link = spec.link_name, "address removed");
                    self.addresses.delete_address(&spec.link_name, address).await
                }
                _ => Ok(()),
            };
            if failures.keep(removed) {
                ctx.remove_finalizer::<AddressSpec>(&id)?;
            }
        }
        for spec in &specs.wanted {
            // An absent link may come; its coming wakes this controller.
            if let Some(found) = find(spec) {
                failures.keep(self.ensure(spec, found).await);
            }
        }
        failures.into_result()
    }
}

#[cfg(test)]
mod tests {
    use controller::testing::Harness;
    use netlink::FakeNetlink;
    use resources::enums::{Family, Scope};

    use super::*;

    fn spec(link: &str, address: &str, scope: Scope) -> AddressSpec {
        let flags = AddressFlags::PERMANENT;
        AddressSpec {
            address: Some(address.parse().unwrap()),
            link_name: link.into(),
            family: Family::INET4,
            scope,
            flags,
            ..Default::default()
        }
    }

    async fn addresses(fake: &FakeNetlink) -> Vec<String> {
        fake.addresses()
            .await
            .unwrap()
            .iter()
            .map(|known| format!("{} {}", known.address.unwrap(), known.scope))
            .collect()
    }

    fn machine() -> (Arc<FakeNetlink>, Harness) {
        let fake = Arc::new(FakeNetlink::default());
        let harness = Harness::with(AddressSpecController::new(fake.clone(), fake.clone()));
        (fake, harness)
    }

    #[tokio::test(start_paused = true)]
    async fn addresses_come_with_their_link_go_with_their_spec_and_others_are_left_alone() {
        let (fake, harness) = machine();
        harness.put("eth0/10.0.0.2/24", spec("eth0", "10.0.0.2/24", Scope::GLOBAL));
        harness.settle().await;
        fake.create_veth("eth0", "peer").await.unwrap();
        fake.add_address("eth0", "10.9.0.1/24".parse().unwrap()).await.unwrap();
        harness.settle().await;
        assert_eq!(addresses(&fake).await, ["10.9.0.1/24 global"], "links have no names before udev is ready");
        harness.put(DevicesStatus::ID, DevicesStatus { ready: true });
        harness.settle().await;
        assert_eq!(addresses(&fake).await, ["10.9.0.1/24 global", "10.0.0.2/24 global"]);
        fake.delete_address("eth0", "10.0.0.2/24".parse().unwrap()).await.unwrap();
        harness.settle().await;
        assert_eq!(addresses(&fake).await.len(), 2, "it comes back");
        assert!(!harness.teardown::<AddressSpec>("eth0/10.0.0.2/24"), "it is held");
        harness.settle().await;
        assert_eq!(addresses(&fake).await, ["10.9.0.1/24 global"]);
        harness.destroy::<AddressSpec>("eth0/10.0.0.2/24");
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_of_another_scope_is_replaced() {
        let (fake, harness) = machine();
        harness.put(DevicesStatus::ID, DevicesStatus { ready: true });
        fake.create_veth("lo", "peer").await.unwrap();
        fake.add_address("lo", "127.0.0.1/8".parse().unwrap()).await.unwrap();
        harness.put("lo/127.0.0.1/8", spec("lo", "127.0.0.1/8", Scope::HOST));
        harness.settle().await;
        assert_eq!(addresses(&fake).await, ["127.0.0.1/8 host"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_spec_whose_link_is_gone_is_released() {
        let (fake, harness) = machine();
        harness.put(DevicesStatus::ID, DevicesStatus { ready: true });
        fake.create_veth("eth0", "peer").await.unwrap();
        harness.put("eth0/10.0.0.2/24", spec("eth0", "10.0.0.2/24", Scope::GLOBAL));
        harness.settle().await;
        fake.delete_link("eth0").await.unwrap();
        harness.teardown::<AddressSpec>("eth0/10.0.0.2/24");
        harness.settle().await;
        harness.destroy::<AddressSpec>("eth0/10.0.0.2/24");
    }
}
