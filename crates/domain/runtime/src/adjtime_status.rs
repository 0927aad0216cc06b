//! What the kernel does to the clock, for whoever looks.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use ntp::SystemTime;
use resources::machine::{Ownership, PlatformCapabilities};
use resources::time::AdjtimeStatus;
use resources::values::Nanoseconds;

/// How often the kernel is asked.
const INTERVAL: Duration = Duration::from_secs(30);

/// `time.AdjtimeStatusController`: the kernel's clock → `AdjtimeStatus`, each half minute, where the clock is the machine's own.
#[derive(Debug)]
pub struct AdjtimeStatusController {
    clock: Arc<dyn SystemTime>,
}

impl AdjtimeStatusController {
    /// Asks `clock`.
    pub fn new(clock: Arc<dyn SystemTime>) -> Self {
        Self { clock }
    }
}

#[async_trait]
impl Controller for AdjtimeStatusController {
    fn name(&self) -> &'static str {
        "time.AdjtimeStatusController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![Input::weak::<PlatformCapabilities>().id(PlatformCapabilities::ID)]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<AdjtimeStatus>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let capabilities = ctx.get::<PlatformCapabilities>(PlatformCapabilities::ID)?;
        if capabilities.is_some_and(|capabilities| capabilities.clock == Ownership::Machine) {
            let state = self.clock.state()?;
            let status = AdjtimeStatus {
                offset: Nanoseconds(state.offset.nanos()),
                frequency_adjustment_ratio: state.frequency,
                max_error: state.max_error.into(),
                est_error: state.estimated_error.into(),
                status: state.status,
                constant: state.constant,
                sync_status: state.is_synchronized,
                state: state.state.to_owned(),
            };
            ctx.put(AdjtimeStatus::ID, status)?;
            ctx.requeue_after(INTERVAL);
        }
        ctx.keep_touched::<AdjtimeStatus>()
    }
}

#[cfg(test)]
mod tests {
    use controller::testing::Harness;
    use ntp::{AdjtimeState, FakeTime, Offset};
    use resources::machine::PlatformMode;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_state_of_an_own_clock_is_told_each_half_minute() {
        let clock = FakeTime::default();
        let harness = Harness::with(AdjtimeStatusController::new(Arc::new(clock.clone())));
        harness.put(PlatformCapabilities::ID, PlatformCapabilities::default());
        harness.settle().await;
        assert!(harness.ids::<AdjtimeStatus>().is_empty(), "the clock is the host's");
        harness.put(PlatformCapabilities::ID, PlatformCapabilities::owning_all(PlatformMode::Metal));
        harness.settle().await;
        assert!(!harness.get::<AdjtimeStatus>(AdjtimeStatus::ID).unwrap().sync_status);
        let offset = Offset::from_millis(-3);
        clock.set_state(AdjtimeState { offset, is_synchronized: true, state: "TIME_OK", ..AdjtimeState::default() });
        harness.advance(Duration::from_secs(31)).await;
        let status = harness.get::<AdjtimeStatus>(AdjtimeStatus::ID).unwrap();
        assert_eq!(
            (status.offset, status.sync_status, status.state.as_str()),
            (Nanoseconds(-3_000_000), true, "TIME_OK")
        );
    }
}
