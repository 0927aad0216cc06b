//! The type of the machine, from its configuration.

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use resources::config::{MachineConfig, MachineType};

/// `config.MachineTypeController`.
#[derive(Debug, Default)]
pub struct MachineTypeController;

#[async_trait]
impl Controller for MachineTypeController {
    fn name(&self) -> &'static str {
        "config.MachineTypeController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![Input::weak::<MachineConfig>().id(MachineConfig::ACTIVE_ID)]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<MachineType>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let active = ctx.get::<MachineConfig>(MachineConfig::ACTIVE_ID)?;
        let kind = match MachineConfig::root_of(active.as_deref())?.map(config::v1alpha1::Config::machine_type) {
            None => MachineType::Unknown,
            Some(config::MachineType::Worker) => MachineType::Worker,
            Some(config::MachineType::Init) => MachineType::Init,
            Some(config::MachineType::ControlPlane) => MachineType::ControlPlane,
        };
        ctx.put(MachineType::ID, kind).map(drop)
    }
}
