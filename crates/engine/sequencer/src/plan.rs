//! Plans of sequences as data: phases of tasks.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use stdx::tasks::CancellationToken;

use crate::sequence::{ActorId, Outcome, Sequence};

/// Why a task failed.
pub type TaskError = Box<dyn std::error::Error + Send + Sync>;

pub(crate) type Work = Pin<Box<dyn Future<Output = Result<(), TaskError>> + Send>>;

/// Inputs of one attempt of a task.
#[derive(Debug, Clone)]
pub struct TaskContext {
    /// Fires at the task's deadline and at a takeover. A task that ignores it is dropped some seconds later.
    pub cancel: CancellationToken,
    /// The actor of the sequence.
    pub actor: ActorId,
}

/// The effect of a failed task on its sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// The sequence fails once the other tasks of the phase have ended.
    Abort,
    /// Of a task in the first phase of a plan: the sequence ends before anything was changed, and the machine runs on as
    /// before. In a later phase, or where the sequence took over from another one, it is the same as `Abort`.
    Refuse,
    /// The task is tried again with each new revision of the configuration; the sequence fails when none of them helped
    /// within this time.
    PauseForConfig { at_most: Duration },
    /// It is logged.
    Ignore,
}

/// How long a sequence waits for a configuration that mends a failed task.
pub const CONFIG_PAUSE: Duration = Duration::from_secs(35 * 60);

/// One thing to do.
#[derive(Clone)]
pub struct Task {
    pub(crate) name: &'static str,
    /// None: it waits for an operator without a limit.
    pub(crate) deadline: Option<Duration>,
    pub(crate) on_failure: OnFailure,
    pub(crate) work: Arc<dyn Fn(TaskContext) -> Work + Send + Sync>,
}

impl Task {
    /// A task that fails when one try takes longer than `deadline`; its failure aborts the sequence.
    pub fn new<F, T>(name: &'static str, deadline: Duration, work: F) -> Self
    where
        F: Fn(TaskContext) -> T + Send + Sync + 'static,
        T: Future<Output = Result<(), TaskError>> + Send + 'static,
    {
        Self { deadline: Some(deadline), ..Self::waiting(name, work) }
    }

    /// A task that waits for an operator without a limit. `SequenceStatus` names it meanwhile.
    pub fn waiting<F, T>(name: &'static str, work: F) -> Self
    where
        F: Fn(TaskContext) -> T + Send + Sync + 'static,
        T: Future<Output = Result<(), TaskError>> + Send + 'static,
    {
        let work = Arc::new(move |context| Box::pin(work(context)) as Work);
        Self { name, deadline: None, on_failure: OnFailure::Abort, work }
    }

    #[must_use]
    pub const fn on_failure(mut self, on_failure: OnFailure) -> Self {
        self.on_failure = on_failure;
        self
    }
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, deadline, on_failure, work: _ } = self;
        let mut task = f.debug_struct("Task");
        task.field("name", name).field("deadline", deadline).field("on_failure", on_failure).finish_non_exhaustive()
    }
}

/// Tasks that run side by side; the next phase starts when all have ended.
#[derive(Debug, Clone)]
pub struct Phase {
    pub(crate) name: &'static str,
    pub(crate) tasks: Vec<Task>,
}

/// The continuation after a successful sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// The machine runs on.
    Idle,
    /// Another sequence, for the same actor.
    Follow(Sequence),
    /// The machine ends.
    End(Outcome),
}

/// Phases in order.
#[derive(Debug, Clone)]
pub struct Plan {
    pub(crate) phases: Vec<Phase>,
    pub(crate) then: Then,
}

impl Plan {
    #[must_use]
    pub const fn new(then: Then) -> Self {
        Self { phases: Vec::new(), then }
    }

    #[must_use]
    pub fn phase(mut self, name: &'static str, tasks: Vec<Task>) -> Self {
        self.phases.push(Phase { name, tasks });
        self
    }

    /// Its phases with the names of their tasks.
    pub fn outline(&self) -> impl Iterator<Item = (&'static str, Vec<&'static str>)> + '_ {
        self.phases.iter().map(|phase| (phase.name, phase.tasks.iter().map(|task| task.name).collect()))
    }

    #[must_use]
    pub const fn then(&self) -> Then {
        self.then
    }
}
