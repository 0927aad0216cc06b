//! Mirrors the supervisor's services into resources.

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use resources::v1alpha1::Service;
use supervisor::{ServiceState, Supervisor};

/// `v1alpha1.ServiceController`: a `Service` for each service that runs.
#[derive(Debug)]
pub struct ServiceController {
    supervisor: Supervisor,
}

impl ServiceController {
    pub fn new(supervisor: Supervisor) -> Self {
        Self { supervisor }
    }
}

#[async_trait]
impl Controller for ServiceController {
    fn name(&self) -> &'static str {
        "v1alpha1.ServiceController"
    }

    fn inputs(&self) -> Vec<Input> {
        Vec::new()
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<Service>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        ctx.wake_on_change("service changes", &self.supervisor.revision());
        for status in self.supervisor.list() {
            let running = status.state == ServiceState::Running;
            if running {
                let (healthy, unknown) = (status.health.healthy, status.health.unknown);
                ctx.put(&status.id, Service { running, healthy, unknown })?;
            }
        }
        ctx.keep_touched::<Service>()
    }
}
