//! The type of the machine, from its configuration.

use async_trait::async_trait;
use config::Documents;
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
        let Some(active) = ctx.get::<MachineConfig>(MachineConfig::ACTIVE_ID)? else {
            return ctx.put(MachineType::ID, MachineType::Unknown).map(drop);
        };
        let documents = Documents::from_yaml(active.text.as_bytes())?;
        let kind = match documents.v1alpha1().map(config::v1alpha1::Config::machine_type) {
            None => MachineType::Unknown,
            Some(config::MachineType::Worker) => MachineType::Worker,
            Some(config::MachineType::Init) => MachineType::Init,
            Some(config::MachineType::ControlPlane) => MachineType::ControlPlane,
        };
        ctx.put(MachineType::ID, kind).map(drop)
    }
}
