//! Nodes of the cluster.

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use resources::cluster::{Affiliate, Member};

/// `Affiliate` → `Member`, by node name. Who has no node name is no node yet.
#[derive(Debug)]
pub struct MemberController;

#[async_trait]
impl Controller for MemberController {
    fn name(&self) -> &'static str {
        "cluster.MemberController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![Input::weak::<Affiliate>()]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<Member>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        for affiliate in ctx.list::<Affiliate>()?.iter().filter(|affiliate| !affiliate.nodename.is_empty()) {
            let member = Member {
                node_id: affiliate.node_id.clone(),
                addresses: affiliate.addresses.clone(),
                hostname: affiliate.hostname.clone(),
                machine_type: affiliate.machine_type,
                operating_system: affiliate.operating_system.clone(),
                control_plane: affiliate.control_plane.clone(),
            };
            ctx.put(&affiliate.nodename, member)?;
        }
        ctx.keep_touched::<Member>()
    }
}

#[cfg(test)]
mod tests {
    use controller::testing::Harness;
    use resources::MachineType;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn members_are_named_by_node_name_and_vanish_with_their_affiliate() {
        let harness = Harness::with(MemberController);
        let affiliate = |nodename: &str| Affiliate {
            node_id: "id".into(),
            nodename: nodename.into(),
            machine_type: MachineType::Worker,
            ..Default::default()
        };
        harness.put("id", affiliate(""));
        harness.settle().await;
        assert!(harness.ids::<Member>().is_empty());
        harness.put("id", affiliate("w-1"));
        harness.settle().await;
        assert_eq!(harness.get::<Member>("w-1").unwrap().machine_type, MachineType::Worker);
        harness.destroy::<Affiliate>("id");
        harness.settle().await;
        assert!(harness.ids::<Member>().is_empty());
    }
}
