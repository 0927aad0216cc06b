//! Tells etcd when this member is reached by other addresses than before.

use std::sync::Arc;

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use etcd_edge::Connector;
use resources::etcd::EtcdSpec;

use crate::local::{self, LocalEtcd};

/// `etcd.AdvertisedPeerController`.
#[derive(Debug)]
pub struct AdvertisedPeerController {
    local: LocalEtcd,
}

impl AdvertisedPeerController {
    /// Tells etcd by `connector`.
    #[must_use]
    pub fn new(connector: Arc<dyn Connector>) -> Self {
        Self { local: LocalEtcd::new(connector) }
    }
}

#[async_trait]
impl Controller for AdvertisedPeerController {
    fn name(&self) -> &'static str {
        "etcd.AdvertisedPeerController"
    }

    fn inputs(&self) -> Vec<Input> {
        let mut inputs = LocalEtcd::inputs();
        inputs.push(Input::weak::<EtcdSpec>().id(EtcdSpec::ID));
        inputs
    }

    fn outputs(&self) -> Vec<Output> {
        Vec::new()
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let Some(spec) = ctx.get::<EtcdSpec>(EtcdSpec::ID)? else { return Ok(()) };
        let Some(etcd) = self.local.get(ctx).await? else { return Ok(()) };
        let mut wanted = local::peer_urls(&spec.advertised_addresses);
        wanted.sort();
        let id = etcd.status().await?.id;
        let members = etcd.members().await?;
        let Some(own) = members.into_iter().find(|member| member.id == id) else { return Ok(()) };
        let mut known = own.peer_urls;
        known.sort();
        if known != wanted {
            etcd.update_peers(id, &wanted).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use controller::testing::Harness;
    use etcd_edge::{Etcd, fake::FakeEtcd};

    use super::*;
    use crate::local::testing::run_etcd;

    #[tokio::test(start_paused = true)]
    async fn peer_urls_follow_the_advertised_addresses() {
        let etcd = FakeEtcd::default();
        etcd.add_member("cp", "10.5.0.2");
        let harness = Harness::with(AdvertisedPeerController::new(Arc::new(etcd.clone())));
        run_etcd(&harness);
        let advertised_addresses = vec!["10.5.0.7".parse().unwrap(), "fd00::7".parse().unwrap()];
        harness.put(EtcdSpec::ID, EtcdSpec { advertised_addresses, ..EtcdSpec::default() });
        harness.settle().await;
        assert_eq!(etcd.members().await.unwrap()[0].peer_urls, ["https://10.5.0.7:2380", "https://[fd00::7]:2380"]);
    }

    #[tokio::test(start_paused = true)]
    async fn etcd_that_does_not_answer_is_asked_again() {
        let etcd = FakeEtcd::default();
        etcd.add_member("cp", "10.5.0.2");
        etcd.set_down(true);
        let harness = Harness::with(AdvertisedPeerController::new(Arc::new(etcd.clone())));
        run_etcd(&harness);
        let advertised_addresses = vec!["10.5.0.7".parse().unwrap()];
        harness.put(EtcdSpec::ID, EtcdSpec { advertised_addresses, ..EtcdSpec::default() });
        harness.settle().await;
        assert!(harness.status("etcd.AdvertisedPeerController").failures > 0);
        etcd.set_down(false);
        harness.advance(std::time::Duration::from_secs(5)).await;
        assert_eq!(etcd.members().await.unwrap()[0].peer_urls, ["https://10.5.0.7:2380"]);
    }
}
