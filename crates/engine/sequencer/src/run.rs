//! Runs one plan: its phases in order, the tasks of each side by side.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::join_all;
use stdx::ErrorChain;
use stdx::tasks::CancellationToken;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::events::{Action, EventBus, Payload};
use crate::plan::{OnFailure, Phase, Plan, Task, TaskContext, TaskError};
use crate::sequence::{ActorId, Sequence, SequenceId};
use crate::status::{PHASES_KEPT, PhaseTime, Status};

/// How long a task may take to end after it was canceled.
const TASK_GRACE: Duration = Duration::from_secs(5);

/// Failed tasks of the phase at which a sequence ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{sequence}: phase {phase}: {}", failures.join("; "))]
pub struct PlanError {
    pub sequence: Sequence,
    pub phase: &'static str,
    pub failures: Vec<String>,
}

/// How a run of a plan ended that did not do all of it.
#[derive(Debug)]
pub(crate) enum Unfinished {
    Canceled,
    Failed(PlanError),
    /// It ended before anything was changed.
    Refused(PlanError),
}

/// One run of a sequence.
pub(crate) struct Run {
    pub(crate) id: SequenceId,
    pub(crate) sequence: Sequence,
    pub(crate) actor: ActorId,
    pub(crate) cancel: CancellationToken,
    pub(crate) events: EventBus,
    pub(crate) status: watch::Sender<Status>,
    /// Changes with each revision of the configuration.
    pub(crate) config: watch::Receiver<u64>,
}

impl Run {
    pub(crate) async fn run(&self, plan: Plan) -> Result<(), Unfinished> {
        let total = plan.phases.len();
        for (index, phase) in plan.phases.into_iter().enumerate() {
            if self.cancel.is_cancelled() {
                return Err(Unfinished::Canceled);
            }
            self.phase(phase, index + 1, total).await?;
        }
        // Work that was done is done: a takeover that came with the last task has nothing left to cancel, but the machine
        // is the next one's.
        if self.cancel.is_cancelled() { Err(Unfinished::Canceled) } else { Ok(()) }
    }

    async fn phase(&self, phase: Phase, number: usize, total: usize) -> Result<(), Unfinished> {
        let started = Instant::now();
        let Phase { name, tasks } = phase;
        let count = tasks.len();
        tracing::info!(phase = name, "phase {name} ({number}/{total}): {count} tasks(s)");
        self.publish(Payload::Phase { phase: name.to_owned(), action: Action::Start });
        let mut names: Vec<&'static str> = tasks.iter().map(|task| task.name).collect();
        names.sort_unstable();
        self.report(|current| {
            current.phase = Some((name, number, total));
            current.tasks = names;
        });
        self.record_start(name, started);
        let results = join_all(tasks.iter().map(|task| self.task(task))).await;
        // Any other task may have changed something.
        let is_refusal = number == 1 && tasks.iter().all(|task| task.on_failure == OnFailure::Refuse);
        self.publish(Payload::Phase { phase: name.to_owned(), action: Action::Stop });
        self.record_end(name, started);
        let failures: Vec<String> = results.into_iter().filter_map(Result::err).collect();
        if self.cancel.is_cancelled() {
            return Err(Unfinished::Canceled);
        }
        if !failures.is_empty() {
            let error = PlanError { sequence: self.sequence, phase: name, failures };
            return Err(if is_refusal { Unfinished::Refused(error) } else { Unfinished::Failed(error) });
        }
        tracing::info!(phase = name, "phase {name} ({number}/{total}): done, {:?}", started.elapsed());
        Ok(())
    }

    /// Runs a task to its end and applies its failure policy.
    async fn task(&self, task: &Task) -> Result<(), String> {
        let name = task.name;
        let started = Instant::now();
        tracing::info!(task = name, "task started");
        self.publish(Payload::Task { task: name.to_owned(), action: Action::Start });
        let result = match task.on_failure {
            OnFailure::Abort | OnFailure::Refuse => self.attempt(task).await,
            OnFailure::Ignore => self.attempt(task).await.or_else(|error| {
                tracing::warn!(task = name, error, "task failed; the sequence continues");
                Ok(())
            }),
            OnFailure::PauseForConfig { at_most } => self.attempt_with_configs(task, at_most).await,
        };
        self.publish(Payload::Task { task: name.to_owned(), action: Action::Stop });
        self.report(|current| current.tasks.retain(|running| *running != name));
        match &result {
            Ok(()) => tracing::info!(task = name, duration = ?started.elapsed(), "task done"),
            Err(error) if self.cancel.is_cancelled() => tracing::warn!(task = name, error, "task canceled"),
            Err(error) => tracing::error!(task = name, error, "task failed"),
        }
        result
    }

    async fn attempt(&self, task: &Task) -> Result<(), String> {
        let name = task.name;
        let cancel = self.cancel.child_token();
        let context = TaskContext { cancel: cancel.clone(), actor: self.actor.clone() };
        // The function that makes the future may panic as well.
        let work = AssertUnwindSafe(async { (task.work)(context).await }).catch_unwind();
        tokio::pin!(work);
        let deadline = async {
            match task.deadline {
                Some(deadline) => tokio::time::sleep(deadline).await,
                None => std::future::pending().await,
            }
        };
        // All arms are cancel-safe: the work is pinned outside, the others hold nothing.
        let reason = tokio::select! {
            result = &mut work => return flatten(name, result),
            () = deadline => format!("task {name}: not done within {:?}", task.deadline.unwrap_or_default()),
            () = self.cancel.cancelled() => format!("task {name}: canceled"),
        };
        cancel.cancel();
        // A task that was done all the same has done its work; past its deadline that is too late only for the sequence.
        match tokio::time::timeout(TASK_GRACE, &mut work).await {
            Ok(result) if self.cancel.is_cancelled() => flatten(name, result),
            Ok(Ok(Err(error))) => Err(format!("{reason}: {}", ErrorChain(&*error))),
            Ok(_) => Err(reason),
            Err(_) => {
                tracing::warn!(task = name, "task does not end when canceled; it is dropped");
                Err(reason)
            }
        }
    }

    async fn attempt_with_configs(&self, task: &Task, at_most: Duration) -> Result<(), String> {
        let mut config = self.config.clone();
        let until = Instant::now() + at_most;
        loop {
            // Also a revision that comes while the task fails is a new one.
            config.mark_unchanged();
            let Err(error) = self.attempt(task).await else { return Ok(()) };
            tracing::error!(task = task.name, error, "task failed; waiting for another configuration");
            // All arms are cancel-safe: a change that is not taken is still there.
            tokio::select! {
                changed = config.changed() => if changed.is_err() { return Err(error) },
                () = tokio::time::sleep_until(until) => {
                    let waited = stdx::duration::format(at_most);
                    return Err(format!("{error}; no configuration mended it within {waited}"));
                }
                () = self.cancel.cancelled() => return Err(error),
            }
        }
    }

    fn publish(&self, payload: Payload) {
        self.events.publish_for(self.actor.as_str(), payload);
    }

    fn record_start(&self, phase: &'static str, started: Instant) {
        self.status.send_if_modified(|status| {
            let is_kept = status.phases.len() < PHASES_KEPT;
            if is_kept {
                status.phases.push(PhaseTime { sequence: self.sequence, phase, started, took: None });
            }
            is_kept
        });
    }

    fn record_end(&self, phase: &'static str, started: Instant) {
        self.status.send_if_modified(|status| {
            let ended = status.phases.iter_mut().find(|kept| {
                (kept.sequence, kept.phase, kept.started, kept.took) == (self.sequence, phase, started, None)
            });
            ended.map(|kept| kept.took = Some(started.elapsed())).is_some()
        });
    }

    fn report(&self, change: impl FnOnce(&mut crate::status::Current)) {
        // A run that was dropped is no longer the current one.
        self.status.send_if_modified(|status| match &mut status.current {
            Some(current) if current.id == self.id => {
                change(current);
                true
            }
            _ => false,
        });
    }
}

type Caught = Result<Result<(), TaskError>, Box<dyn std::any::Any + Send>>;

fn flatten(name: &str, result: Caught) -> Result<(), String> {
    match result {
        Err(panic) => Err(format!("task {name}: panicked: {}", stdx::tasks::panic_message(&*panic))),
        Ok(Err(error)) => Err(format!("task {name}: {}", ErrorChain(&*error))),
        Ok(Ok(())) => Ok(()),
    }
}
