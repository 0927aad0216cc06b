//! `k8s.NodeCordonedSpecController`: cordons the node while it shuts down.

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use resources::enums::MachineStage;
use resources::k8s::NodeCordonedSpec;
use resources::runtime::MachineStatus;

#[derive(Debug, Default)]
pub struct NodeCordonedSpecController;

#[async_trait]
impl Controller for NodeCordonedSpecController {
    fn name(&self) -> &'static str {
        "k8s.NodeCordonedSpecController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![Input::weak::<MachineStatus>().id(MachineStatus::ID)]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<NodeCordonedSpec>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let status = ctx.get::<MachineStatus>(MachineStatus::ID)?;
        if status.is_some_and(|status| goes_down(status.stage)) {
            ctx.put(NodeCordonedSpec::ID, NodeCordonedSpec {})?;
        }
        ctx.keep_touched::<NodeCordonedSpec>()
    }
}

fn goes_down(stage: MachineStage) -> bool {
    matches!(
        stage,
        MachineStage::Rebooting | MachineStage::ShuttingDown | MachineStage::Upgrading | MachineStage::Resetting
    )
}
