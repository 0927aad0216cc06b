//! Whether the clock can be relied on.
//!
//! A clock that is the host's is the host's to set: it counts as synced, and `syncDisabled` says that this machine does
//! nothing for it. A clock of the machine's own is not synced before an SNTP client has set it, and there is none yet.

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use resources::machine::{Ownership, PlatformCapabilities};
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
        vec![Input::weak::<PlatformCapabilities>().id(PlatformCapabilities::ID)]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<TimeStatus>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let Some(capabilities) = ctx.get::<PlatformCapabilities>(PlatformCapabilities::ID)? else { return Ok(()) };
        let is_set_by_host = capabilities.clock == Ownership::Host;
        ctx.put(TimeStatus::ID, TimeStatus { synced: is_set_by_host, epoch: 0, sync_disabled: is_set_by_host })?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use controller::testing::Harness;
    use resources::machine::PlatformMode;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_clock_counts_as_synced_only_where_it_is_the_hosts() {
        let harness = Harness::with(SyncController);
        harness.settle().await;
        assert!(harness.get::<TimeStatus>(TimeStatus::ID).is_none(), "the owner of the clock is unknown");
        harness.put(PlatformCapabilities::ID, PlatformCapabilities::owning_all(PlatformMode::Metal));
        harness.settle().await;
        let own = harness.get::<TimeStatus>(TimeStatus::ID).unwrap();
        assert_eq!((own.synced, own.sync_disabled), (false, false));
        let container = PlatformCapabilities { clock: Ownership::Host, ..PlatformCapabilities::default() };
        harness.put(PlatformCapabilities::ID, container);
        harness.settle().await;
        let hosts = harness.get::<TimeStatus>(TimeStatus::ID).unwrap();
        assert_eq!((hosts.synced, hosts.sync_disabled), (true, true));
    }
}
