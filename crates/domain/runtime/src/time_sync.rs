//! Whether the clock can be relied on.
//!
//! In a container the host keeps the time, so it counts as set. Setting it by SNTP comes with the machines that have a
//! clock of their own.

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use resources::time::TimeStatus;

/// `time.SyncController`.
#[derive(Debug, Default)]
pub struct SyncController;

#[async_trait]
impl Controller for SyncController {
    fn name(&self) -> &'static str {
        "time.SyncController"
    }

    fn inputs(&self) -> Vec<Input> {
        Vec::new()
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<TimeStatus>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        ctx.put(TimeStatus::ID, TimeStatus { synced: true, epoch: 0, sync_disabled: true }).map(drop)
    }
}
