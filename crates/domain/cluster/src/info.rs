//! Which cluster this is.

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use resources::cluster::Info;
use resources::config::MachineConfig;

/// Configuration → `Info` `current`.
#[derive(Debug)]
pub struct InfoController;

#[async_trait]
impl Controller for InfoController {
    fn name(&self) -> &'static str {
        "cluster.InfoController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![Input::weak::<MachineConfig>().id(MachineConfig::ACTIVE_ID)]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<Info>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let active = ctx.get::<MachineConfig>(MachineConfig::ACTIVE_ID)?;
        if let Some(config) = MachineConfig::root_of(active.as_deref())? {
            let cluster = config.cluster();
            ctx.put(Info::ID, Info { cluster_id: cluster.id.clone(), cluster_name: cluster.name().to_owned() })?;
        }
        ctx.keep_touched::<Info>()
    }
}

#[cfg(test)]
mod tests {
    use controller::testing::Harness;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn id_and_name_come_from_the_configuration_and_go_with_it() {
        let harness = Harness::with(InfoController);
        let text = "version: v1alpha1\nmachine:\n  type: worker\ncluster:\n  id: abc\n  clusterName: prod\n";
        harness.put(MachineConfig::ACTIVE_ID, MachineConfig::new(text));
        harness.settle().await;
        let info = harness.get::<Info>("current").unwrap();
        assert_eq!((info.cluster_id.as_str(), info.cluster_name.as_str()), ("abc", "prod"));
        harness.destroy::<MachineConfig>(MachineConfig::ACTIVE_ID);
        harness.settle().await;
        assert_eq!(harness.get::<Info>("current"), None);
    }
}
