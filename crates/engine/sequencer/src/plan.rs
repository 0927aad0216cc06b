//! Plans and the one place that runs them.

use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::time::Duration;

use futures::FutureExt as _;
use parking_lot::Mutex;
use stdx::ErrorChain;
use tokio::time::Instant;

use crate::events::{Action, EventBus, Payload};

/// Why a task failed.
pub type TaskError = Box<dyn std::error::Error + Send + Sync>;

type Work = Pin<Box<dyn Future<Output = Result<(), TaskError>> + Send>>;

/// One thing to do.
pub struct Task {
    name: &'static str,
    deadline: Duration,
    work: Work,
}

impl Task {
    /// A task that fails when it takes longer than `deadline`.
    pub fn new<F>(name: &'static str, deadline: Duration, work: F) -> Self
    where
        F: Future<Output = Result<(), TaskError>> + Send + 'static,
    {
        Self { name, deadline, work: Box::pin(work) }
    }
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Tasks that run side by side; the next phase starts when all have ended.
#[derive(Debug)]
pub struct Phase {
    name: &'static str,
    tasks: Vec<Task>,
}

/// Phases in order.
#[derive(Debug)]
pub struct Plan {
    name: &'static str,
    phases: Vec<Phase>,
}

/// What went wrong in a plan: each failed task of the phase at which it ended.
#[derive(Debug, thiserror::Error)]
#[error("{sequence}: phase {phase}: {}", failures.join("; "))]
pub struct PlanError {
    pub sequence: &'static str,
    pub phase: &'static str,
    pub failures: Vec<String>,
}

/// Why a plan was not run, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum SequencerError {
    #[error("{asked} cannot start while {running} runs")]
    Busy { asked: &'static str, running: &'static str },
    #[error(transparent)]
    Failed(#[from] PlanError),
}

impl Plan {
    pub fn new(name: &'static str) -> Self {
        Self { name, phases: Vec::new() }
    }

    #[must_use]
    pub fn phase(mut self, name: &'static str, tasks: Vec<Task>) -> Self {
        self.phases.push(Phase { name, tasks });
        self
    }
}

/// Runs one plan at a time.
#[derive(Debug)]
pub struct Sequencer {
    events: EventBus,
    running: Mutex<Option<&'static str>>,
}

impl Sequencer {
    pub fn new(events: EventBus) -> Self {
        Self { events, running: Mutex::new(None) }
    }

    /// Runs a plan to its end, or to the first phase in which a task failed.
    ///
    /// # Errors
    /// `Busy` while another plan runs; `Failed` with every failed task of the phase.
    pub async fn run(&self, plan: Plan) -> Result<(), SequencerError> {
        let name = plan.name;
        {
            let mut running = self.running.lock();
            if let Some(running) = *running {
                return Err(SequencerError::Busy { asked: name, running });
            }
            *running = Some(name);
        }
        let _turn = Turn(&self.running);
        let started = Instant::now();
        tracing::info!(sequence = name, "sequence started");
        self.announce_sequence(name, Action::Start, None);
        let result = self.phases(plan).await;
        let error = result.as_ref().err().map(ToString::to_string);
        self.announce_sequence(name, Action::Stop, error);
        match result {
            Ok(()) => tracing::info!(sequence = name, duration = ?started.elapsed(), "sequence done"),
            Err(ref error) => tracing::error!(sequence = name, %error, "sequence failed"),
        }
        Ok(result?)
    }

    fn announce_sequence(&self, name: &str, action: Action, error: Option<String>) {
        self.events.publish(Payload::Sequence { sequence: name.to_owned(), action, error });
    }

    async fn phases(&self, plan: Plan) -> Result<(), PlanError> {
        let total = plan.phases.len();
        for (index, phase) in plan.phases.into_iter().enumerate() {
            let started = Instant::now();
            let (name, count) = (phase.name, phase.tasks.len());
            tracing::info!(phase = name, "phase {name} ({}/{total}): {count} tasks", index + 1);
            self.events.publish(Payload::Phase { phase: name.to_owned(), action: Action::Start });
            let results = futures::future::join_all(phase.tasks.into_iter().map(|task| self.task(task))).await;
            self.events.publish(Payload::Phase { phase: name.to_owned(), action: Action::Stop });
            let failures: Vec<String> = results.into_iter().filter_map(Result::err).collect();
            if !failures.is_empty() {
                return Err(PlanError { sequence: plan.name, phase: name, failures });
            }
            tracing::info!(phase = name, "phase {name} ({}/{total}): done, {:?}", index + 1, started.elapsed());
        }
        Ok(())
    }

    async fn task(&self, task: Task) -> Result<(), String> {
        let name = task.name;
        let started = Instant::now();
        tracing::info!(task = name, "task started");
        self.events.publish(Payload::Task { task: name.to_owned(), action: Action::Start });
        let work = tokio::time::timeout(task.deadline, AssertUnwindSafe(task.work).catch_unwind());
        let result = match work.await {
            Err(_) => Err(format!("task {name}: not done within {:?}", task.deadline)),
            Ok(Err(panic)) => Err(format!("task {name}: panicked: {}", stdx::tasks::panic_message(&*panic))),
            Ok(Ok(Err(error))) => Err(format!("task {name}: {}", ErrorChain(&*error))),
            Ok(Ok(Ok(()))) => Ok(()),
        };
        self.events.publish(Payload::Task { task: name.to_owned(), action: Action::Stop });
        match &result {
            Ok(()) => tracing::info!(task = name, duration = ?started.elapsed(), "task done"),
            Err(error) => tracing::error!(task = name, error, "task failed"),
        }
        result
    }
}

/// Frees the sequencer also when the run is dropped.
struct Turn<'a>(&'a Mutex<Option<&'static str>>);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.lock() = None;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(5);

    fn sequencer() -> (Arc<Sequencer>, EventBus) {
        let bus = EventBus::new(Arc::new(stdx::SystemClock));
        (Arc::new(Sequencer::new(bus.clone())), bus)
    }

    #[tokio::test(start_paused = true)]
    async fn phases_run_in_order_and_each_step_is_announced() {
        let (sequencer, bus) = sequencer();
        let order = Arc::new(Mutex::new(Vec::new()));
        let note = |what: &'static str, after: u64| {
            let order = Arc::clone(&order);
            Task::new(what, DEADLINE, async move {
                tokio::time::sleep(Duration::from_secs(after)).await;
                order.lock().push(what);
                Ok(())
            })
        };
        let plan =
            Plan::new("boot").phase("one", vec![note("slow", 2), note("fast", 1)]).phase("two", vec![note("last", 0)]);
        sequencer.run(plan).await.unwrap();
        assert_eq!(*order.lock(), ["fast", "slow", "last"]);
        let announced: Vec<_> = bus.kept().into_iter().map(|event| event.payload).collect();
        assert_eq!(announced.len(), 2 + 2 * 2 + 3 * 2);
        assert_eq!(announced[0], Payload::Sequence { sequence: "boot".into(), action: Action::Start, error: None });
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_phase_ends_the_plan_and_names_every_failed_task() {
        let (sequencer, bus) = sequencer();
        let plan = Plan::new("boot")
            .phase(
                "one",
                vec![
                    Task::new("fails", DEADLINE, async { Err("no disk".into()) }),
                    Task::new("panics", DEADLINE, async { panic!("bug") }),
                    Task::new("hangs", DEADLINE, std::future::pending()),
                ],
            )
            .phase("two", vec![Task::new("never", DEADLINE, async { panic!("must not run") })]);
        let SequencerError::Failed(error) = sequencer.run(plan).await.unwrap_err() else { panic!("not busy") };
        assert_eq!(error.phase, "one");
        assert_eq!(
            error.failures,
            ["task fails: no disk", "task panics: panicked: bug", "task hangs: not done within 5s",]
        );
        let last = bus.kept().pop().unwrap().payload;
        assert_eq!(
            last,
            Payload::Sequence { sequence: "boot".into(), action: Action::Stop, error: Some(error.to_string()) }
        );
    }

    #[tokio::test(start_paused = true)]
    async fn one_plan_at_a_time() {
        let (sequencer, _) = sequencer();
        let first = {
            let sequencer = Arc::clone(&sequencer);
            let work = async {
                tokio::time::sleep(Duration::from_secs(1)).await;
                Ok(())
            };
            stdx::tasks::spawn("first", async move {
                sequencer.run(Plan::new("boot").phase("p", vec![Task::new("t", DEADLINE, work)])).await
            })
        };
        tokio::time::sleep(Duration::from_millis(10)).await;
        let error = sequencer.run(Plan::new("reset")).await.unwrap_err();
        assert!(matches!(error, SequencerError::Busy { asked: "reset", running: "boot" }));
        first.join().await.unwrap().unwrap();
        sequencer.run(Plan::new("reset")).await.unwrap();
    }
}
