//! Mirrors the lifecycle into a resource.

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use resources::lifecycle::{MachineOutcome, SequenceName, SequenceState, SequenceStatus};
use sequencer::{LastResult, Outcome, Status};
use tokio::sync::watch;

/// `runtime.SequenceStatusController`.
#[derive(Debug)]
pub struct SequenceStatusController {
    lifecycle: watch::Receiver<Status>,
}

impl SequenceStatusController {
    /// `lifecycle` is the state of the machine's lifecycle.
    #[must_use]
    pub const fn new(lifecycle: watch::Receiver<Status>) -> Self {
        Self { lifecycle }
    }
}

#[async_trait]
impl Controller for SequenceStatusController {
    fn name(&self) -> &'static str {
        "runtime.SequenceStatusController"
    }

    fn inputs(&self) -> Vec<Input> {
        Vec::new()
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<SequenceStatus>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        ctx.wake_on_change("lifecycle", &self.lifecycle);
        let status = resource(&self.lifecycle.borrow());
        ctx.put(SequenceStatus::ID, status).map(drop)
    }
}

fn resource(status: &Status) -> SequenceStatus {
    let mut resource = SequenceStatus { outcome: outcome(status.outcome), ..SequenceStatus::default() };
    if let Some(current) = &status.current {
        resource.sequence = name(current.sequence);
        resource.state = if current.canceled { SequenceState::Canceling } else { SequenceState::Running };
        current.actor.as_str().clone_into(&mut resource.actor);
        resource.run = current.id.0;
        if let Some((phase, number, phases)) = current.phase {
            phase.clone_into(&mut resource.phase);
            resource.phase_number = u32::try_from(number).unwrap_or(u32::MAX);
            resource.phases = u32::try_from(phases).unwrap_or(u32::MAX);
        }
        resource.tasks = current.tasks.iter().map(ToString::to_string).collect();
    } else if let Some(last) = &status.last {
        resource.sequence = name(last.sequence);
        last.actor.as_str().clone_into(&mut resource.actor);
        resource.run = last.id.0;
        (resource.state, resource.error) = match &last.result {
            LastResult::Done => (SequenceState::Done, String::new()),
            LastResult::Failed(error) => (SequenceState::Failed, error.clone()),
            LastResult::Canceled => (SequenceState::Canceled, String::new()),
        };
    }
    resource
}

fn name(sequence: sequencer::Sequence) -> SequenceName {
    use sequencer::Sequence as From;
    match sequence {
        From::Initialize => SequenceName::Initialize,
        From::Install => SequenceName::Install,
        From::Boot => SequenceName::Boot,
        From::Reboot => SequenceName::Reboot,
        From::Shutdown => SequenceName::Shutdown,
        From::Reset => SequenceName::Reset,
        From::Upgrade => SequenceName::Upgrade,
        From::StageUpgrade => SequenceName::StageUpgrade,
        From::MaintenanceUpgrade => SequenceName::MaintenanceUpgrade,
    }
}

const fn outcome(outcome: Option<Outcome>) -> MachineOutcome {
    match outcome {
        None => MachineOutcome::None,
        Some(Outcome::Reboot) => MachineOutcome::Reboot,
        Some(Outcome::PowerOff) => MachineOutcome::PowerOff,
        Some(Outcome::Halt) => MachineOutcome::Halt,
        Some(Outcome::Kexec) => MachineOutcome::Kexec,
    }
}

#[cfg(test)]
mod tests {
    use controller::testing::Harness;
    use sequencer::{ActorId, Current, Last, Sequence, SequenceId};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_resource_follows_what_runs_and_keeps_what_ran_last() {
        let lifecycle = watch::Sender::new(Status::default());
        let harness = Harness::with(SequenceStatusController::new(lifecycle.subscribe()));
        harness.settle().await;
        let read = || (*harness.get::<SequenceStatus>(SequenceStatus::ID).unwrap().spec).clone();
        assert_eq!(read(), SequenceStatus::default());
        let (id, sequence, actor) = (SequenceId(2), Sequence::Boot, ActorId::new("me"));
        lifecycle.send_modify(|status| {
            status.current = Some(Current {
                id,
                sequence,
                actor: actor.clone(),
                phase: Some(("startEverything", 1, 1)),
                tasks: vec!["startAllServices"],
                canceled: false,
            });
        });
        harness.settle().await;
        let running = read();
        assert_eq!((running.sequence, running.state), (SequenceName::Boot, SequenceState::Running));
        assert_eq!((running.actor.as_str(), running.run), ("me", 2));
        assert_eq!((running.phase.as_str(), running.tasks), ("startEverything", vec!["startAllServices".to_owned()]));
        lifecycle.send_modify(|status| {
            status.current = None;
            status.last = Some(Last { id, sequence, actor, result: LastResult::Failed("no disk".into()) });
            status.outcome = Some(Outcome::Reboot);
        });
        harness.settle().await;
        let failed = read();
        assert_eq!((failed.state, failed.error.as_str()), (SequenceState::Failed, "no disk"));
        assert_eq!((failed.outcome, failed.tasks.len()), (MachineOutcome::Reboot, 0));
    }
}
