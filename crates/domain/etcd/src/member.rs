//! Which member of etcd this node is.

use std::sync::Arc;

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use etcd_edge::Connector;
use resources::etcd::EtcdMember;

use crate::local::LocalEtcd;

/// `etcd.MemberController`.
#[derive(Debug)]
pub struct MemberController {
    local: LocalEtcd,
}

impl MemberController {
    /// Asks etcd by `connector`.
    #[must_use]
    pub fn new(connector: Arc<dyn Connector>) -> Self {
        Self { local: LocalEtcd::new(connector) }
    }
}

#[async_trait]
impl Controller for MemberController {
    fn name(&self) -> &'static str {
        "etcd.MemberController"
    }

    fn inputs(&self) -> Vec<Input> {
        LocalEtcd::inputs()
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<EtcdMember>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        if let Some(etcd) = self.local.get(ctx).await? {
            let member_id = etcd.status().await?.id.to_string();
            ctx.put(EtcdMember::ID, EtcdMember { member_id })?;
        }
        ctx.keep_touched::<EtcdMember>()
    }
}

#[cfg(test)]
mod tests {
    use controller::testing::Harness;
    use etcd_edge::fake::FakeEtcd;

    use super::*;
    use crate::local::testing::{run_etcd, stop_etcd};

    #[tokio::test(start_paused = true)]
    async fn the_member_is_known_while_etcd_runs() {
        let etcd = FakeEtcd::default();
        let id = etcd.add_member("cp", "10.5.0.2");
        let harness = Harness::with(MemberController::new(Arc::new(etcd.clone())));
        harness.settle().await;
        assert_eq!((harness.list::<EtcdMember>(), etcd.connections().len()), (vec![], 0));
        run_etcd(&harness);
        harness.settle().await;
        assert_eq!(harness.get::<EtcdMember>(EtcdMember::ID).unwrap().member_id, id.to_string());
        assert_eq!(etcd.connections(), [["https://127.0.0.1:2379"]]);
        stop_etcd(&harness);
        harness.settle().await;
        assert_eq!(harness.list::<EtcdMember>(), []);
    }
}
