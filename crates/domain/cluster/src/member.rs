//! Nodes of the cluster.

use std::collections::BTreeSet;

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use resources::cluster::{Affiliate, Member};

/// `Affiliate` → `Member`, by node name. An affiliate without a node name is not a member yet.
///
/// A name that several nodes claim belongs to the one whose id is lowest, on every node alike; the others are members
/// get a part of their id appended, so that none is hidden.
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
        let mut affiliates = ctx.list::<Affiliate>()?;
        affiliates.sort_by(|a, b| a.node_id.cmp(&b.node_id));
        let mut taken = BTreeSet::new();
        for affiliate in affiliates.iter().filter(|affiliate| !affiliate.nodename.is_empty()) {
            let member = Member {
                node_id: affiliate.node_id.clone(),
                addresses: affiliate.addresses.clone(),
                hostname: affiliate.hostname.clone(),
                machine_type: affiliate.machine_type,
                operating_system: affiliate.operating_system.clone(),
                control_plane: affiliate.control_plane.clone(),
            };
            let mut name = affiliate.nodename.clone();
            if !taken.insert(name.clone()) {
                name = format!("{name}-{}", affiliate.node_id.chars().take(8).collect::<String>());
            }
            ctx.put(&name, member)?;
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
    #[tokio::test(start_paused = true)]
    async fn a_name_taken_twice_hides_nobody() {
        let harness = Harness::with(MemberController);
        let affiliate = |id: &str| Affiliate { node_id: id.into(), nodename: "w-1".into(), ..Default::default() };
        for id in ["later-than-the-other", "earlier-than-the-other"] {
            harness.put(id, affiliate(id));
        }
        harness.settle().await;
        assert_eq!(harness.ids::<Member>(), ["w-1", "w-1-later-th"]);
        assert_eq!(harness.get::<Member>("w-1").unwrap().node_id, "earlier-than-the-other");
    }
}
