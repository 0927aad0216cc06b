//! Runs sequences: executes the arbiter's effects and publishes events.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use parking_lot::Mutex;
use stdx::tasks::{self, CancellationToken};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::arbiter::{Arbiter, Effect, Finish, Locked, REBOOT_AFTER_FAILURE};
use crate::events::{ErrorCode, EventBus, Payload, SequenceAction, SequenceError};
use crate::plan::{Plan, Then};
use crate::run::{Run, Unfinished};
use crate::sequence::{ActorId, Outcome, Request, Sequence, SequenceId};
use crate::status::{Current, Last, LastResult, Status};

/// Makes plans from the machine as it is.
pub trait Planner: Send + Sync + 'static {
    /// The plan of a request; `None` where this machine has no such sequence. Asked when the request comes, to refuse it, and
    /// again when the sequence starts. Must not block.
    fn plan(&self, request: &Request) -> Option<Plan>;
}

/// Why a sequence will not run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error(transparent)]
    Locked(#[from] Locked),
    #[error("this machine has no sequence {0}")]
    Unsupported(Sequence),
}

/// The lifecycle of this machine. Cheap to clone; clones are the same lifecycle.
///
/// Guarantees: those of [`Arbiter`]; a panic of a plan or of the planner is the failure of its sequence.
/// Assumptions: somebody awaits [`outcome`](Self::outcome), which also keeps the time of takeovers.
#[derive(Clone)]
pub struct Lifecycle {
    inner: Arc<Inner>,
}

struct Inner {
    planner: Box<dyn Planner>,
    events: EventBus,
    config: watch::Receiver<u64>,
    status: watch::Sender<Status>,
    begun: Instant,
    machine: Mutex<Machine>,
    /// The arbiter's deadline or the outcome may be another.
    changed: Notify,
}

#[derive(Default)]
struct Machine {
    arbiter: Arbiter,
    running: Option<Running>,
}

/// What becomes of the sequence that ended last, when another one ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Previous {
    Replaced,
    /// The machine is still what that one made of it.
    Kept,
}

struct Running {
    id: SequenceId,
    cancel: CancellationToken,
    task: tasks::Task<()>,
}

impl std::fmt::Debug for Lifecycle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lifecycle").field("status", &*self.inner.status.borrow()).finish_non_exhaustive()
    }
}

impl Lifecycle {
    /// `config` changes with each revision of the configuration.
    pub fn new(planner: impl Planner, events: EventBus, config: watch::Receiver<u64>) -> Self {
        let inner = Inner {
            planner: Box::new(planner),
            events,
            config,
            status: watch::Sender::new(Status::default()),
            begun: Instant::now(),
            machine: Mutex::default(),
            changed: Notify::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Asks for a sequence. It starts after this returned, at once or when the one that it takes over has ended.
    ///
    /// # Errors
    /// `Locked` is also announced as an event of the actor.
    pub fn request(&self, request: Request) -> Result<SequenceId, Refused> {
        let sequence = request.sequence;
        if self.inner.planner.plan(&request).is_none() {
            return Err(Refused::Unsupported(sequence));
        }
        let actor = request.actor.clone();
        let mut machine = self.inner.machine.lock();
        match machine.arbiter.request(self.inner.now(), request) {
            Ok((id, effects)) => {
                tracing::info!(%sequence, %id, %actor, "sequence requested");
                self.inner.apply(&mut machine, effects);
                Ok(id)
            }
            Err(locked) => {
                tracing::warn!(%sequence, %actor, error = %locked, "sequence refused");
                let error = SequenceError { code: ErrorCode::Locked, message: locked.to_string() };
                self.inner.announce(sequence, &actor, SequenceAction::Noop, Some(error));
                Err(locked.into())
            }
        }
    }

    /// The state of the lifecycle, and each change of it.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.inner.status.subscribe()
    }

    /// Waits until it is decided how the machine ends, and keeps the time of takeovers meanwhile. Cancel-safe.
    pub async fn outcome(&self) -> Outcome {
        loop {
            if let Some(outcome) = self.inner.status.borrow().outcome {
                return outcome;
            }
            let deadline = self.inner.machine.lock().arbiter.next_deadline();
            let due = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(self.inner.begun + deadline).await,
                    None => std::future::pending().await,
                }
            };
            // Both arms are cancel-safe: a notification without a waiter is kept.
            tokio::select! {
                () = self.inner.changed.notified() => {}
                () = due => {
                    let mut machine = self.inner.machine.lock();
                    let effects = machine.arbiter.tick(self.inner.now());
                    self.inner.apply(&mut machine, effects);
                }
            }
        }
    }
}

impl Inner {
    fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    fn announce(&self, sequence: Sequence, actor: &ActorId, action: SequenceAction, error: Option<SequenceError>) {
        let payload = Payload::Sequence { sequence: sequence.name().to_owned(), action, error };
        self.events.publish_for(actor.as_str(), payload);
    }

    fn apply(self: &Arc<Self>, machine: &mut Machine, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Start(id, request) => machine.running = Some(self.start(id, request)),
                Effect::Cancel(id) => {
                    if let Some(running) = machine.running.as_ref().filter(|running| running.id == id) {
                        running.cancel.cancel();
                        self.status.send_modify(|status| {
                            status.current.iter_mut().for_each(|current| current.canceled = true);
                        });
                    }
                }
                Effect::Drop(id) => {
                    if let Some(running) = machine.running.take_if(|running| running.id == id) {
                        tracing::error!(%id, "sequence did not end when it was taken over; it is dropped");
                        running.task.abort();
                        self.record(id, LastResult::Canceled, Previous::Replaced);
                    }
                }
                Effect::Superseded(id, request) => {
                    let message = format!("{} was superseded before it started", request.sequence);
                    tracing::warn!(%id, message);
                    let error = SequenceError { code: ErrorCode::Canceled, message };
                    self.announce(request.sequence, &request.actor, SequenceAction::Noop, Some(error));
                }
                Effect::End(outcome) => {
                    tracing::info!(?outcome, "the end of the machine is decided");
                    self.events.publish(Payload::Restart { command: outcome.reboot_command() });
                    self.status.send_modify(|status| status.outcome = Some(outcome));
                }
            }
        }
        self.changed.notify_one();
    }

    fn start(self: &Arc<Self>, id: SequenceId, request: Request) -> Running {
        let cancel = CancellationToken::new();
        let current = Current {
            id,
            sequence: request.sequence,
            actor: request.actor.clone(),
            phase: None,
            tasks: Vec::new(),
            canceled: false,
        };
        self.status.send_modify(|status| status.current = Some(current));
        let run = Run {
            id,
            sequence: request.sequence,
            actor: request.actor.clone(),
            cancel: cancel.clone(),
            events: self.events.clone(),
            status: self.status.clone(),
            config: self.config.clone(),
        };
        let inner = Arc::clone(self);
        let name = format!("sequence {}", request.sequence);
        let work = async move {
            tracing::info!(sequence = %request.sequence, %id, "sequence started");
            inner.announce(request.sequence, &request.actor, SequenceAction::Start, None);
            let started = Instant::now();
            let run = AssertUnwindSafe(inner.run(&run, &request)).catch_unwind().await;
            let result = run.unwrap_or_else(|panic| {
                let message = stdx::tasks::panic_message(&*panic);
                (Finish::Failed, LastResult::Failed(format!("{}: panicked: {message}", request.sequence)))
            });
            inner.finished(id, result, started.elapsed());
        };
        // Not below the span of the sequence that it follows.
        let task = tracing::Span::none().in_scope(|| tasks::spawn(name, work));
        Running { id, cancel, task }
    }

    async fn run(&self, run: &Run, request: &Request) -> (Finish, LastResult) {
        let Some(plan) = self.planner.plan(request) else {
            return (Finish::Failed, LastResult::Failed(Refused::Unsupported(request.sequence).to_string()));
        };
        let then = match (plan.then(), request.options.end) {
            (Then::End(_), Some(outcome)) => Then::End(outcome),
            (then, _) => then,
        };
        match run.run(plan).await {
            Ok(()) => (Finish::Done(then), LastResult::Done),
            Err(Unfinished::Canceled) => (Finish::Canceled, LastResult::Canceled),
            Err(Unfinished::Failed(error)) => (Finish::Failed, LastResult::Failed(error.to_string())),
            Err(Unfinished::Refused(error)) => (Finish::Refused, LastResult::Failed(error.to_string())),
        }
    }

    fn finished(self: &Arc<Self>, id: SequenceId, (finish, result): (Finish, LastResult), duration: Duration) {
        let mut machine = self.machine.lock();
        if machine.running.take_if(|running| running.id == id).is_some_and(|running| {
            // This is that task: its handle must not abort it here.
            running.task.detach();
            true
        }) {
            let runs_on = machine.arbiter.runs_on_after(id, finish);
            match &result {
                LastResult::Failed(error) if runs_on => {
                    tracing::error!(%id, error, "sequence refused before it changed anything; the machine runs on");
                }
                LastResult::Done => tracing::info!(%id, ?duration, "sequence done"),
                LastResult::Canceled => tracing::warn!(%id, ?duration, "sequence canceled"),
                LastResult::Failed(error) => {
                    tracing::error!(%id, error, "sequence failed; the machine reboots in {REBOOT_AFTER_FAILURE:?}");
                }
            }
            self.record(id, result, if runs_on { Previous::Kept } else { Previous::Replaced });
            let effects = machine.arbiter.finished(self.now(), id, finish);
            self.apply(&mut machine, effects);
        }
    }

    /// Moves the running sequence to the last one, unless it changed nothing, and publishes its end.
    fn record(&self, id: SequenceId, result: LastResult, previous: Previous) {
        let mut ended = None;
        self.status.send_modify(|status| {
            ended = status.current.take_if(|current| current.id == id);
            if let Some(Current { id, sequence, actor, .. }) = ended.clone()
                && previous == Previous::Replaced
            {
                status.last = Some(Last { id, sequence, actor, result: result.clone() });
            }
        });
        let Some(Current { sequence, actor, .. }) = ended else { return };
        let error = match result {
            LastResult::Done => None,
            LastResult::Failed(message) => Some(SequenceError { code: ErrorCode::Fatal, message }),
            LastResult::Canceled => {
                Some(SequenceError { code: ErrorCode::Canceled, message: format!("{sequence} was canceled") })
            }
        };
        self.announce(sequence, &actor, SequenceAction::Stop, error);
    }
}

#[cfg(test)]
mod tests;
