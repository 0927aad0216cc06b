//! Plans as tables of steps, and how a table becomes a plan that runs.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use sequencer::{OnFailure, Plan, Request, Task, TaskContext, TaskError, Then};

use super::step::Step;

/// State of the machine that plans depend on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// A disk of this machine has the system.
    pub(crate) installed: bool,
    /// It is a control plane of its cluster.
    pub(crate) control_plane: bool,
    /// The kernel command line asks for the system disk to be wiped.
    pub(crate) wipe_asked: bool,
    /// An upgrade was staged, for this start.
    pub(crate) staged: Option<Data>,
}

/// What an upgrade does with the data of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Data {
    Preserved,
    Wiped,
}

impl Data {
    pub(crate) const fn of(preserve: bool) -> Self {
        if preserve { Self::Preserved } else { Self::Wiped }
    }
}

/// One attempt of a step.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    /// What the sequence was asked for with.
    pub(crate) request: Arc<Request>,
    pub(crate) context: TaskContext,
}

/// Carries steps out.
#[async_trait]
pub(crate) trait Actions: Debug + Send + Sync + 'static {
    /// The machine as it is. Must not block.
    fn facts(&self) -> Facts;

    /// Carries out one attempt of a step.
    async fn perform(&self, step: Step, job: Job) -> Result<(), TaskError>;
}

/// Phases of steps, in order. Steps of a phase run side by side.
#[derive(Debug, Clone)]
pub(crate) struct Outline {
    phases: Vec<(&'static str, Vec<(Step, OnFailure)>)>,
    then: Then,
}

impl Outline {
    pub(crate) const fn new(then: Then) -> Self {
        Self { phases: Vec::new(), then }
    }

    /// A phase whose steps fail as they usually do.
    pub(crate) fn phase(mut self, name: &'static str, steps: &[Step]) -> Self {
        self.phases.push((name, steps.iter().map(|step| (*step, step.on_failure())).collect()));
        self
    }

    /// A phase behind another one; nothing where there is no such phase.
    pub(crate) fn after(mut self, other: &str, name: &'static str, steps: &[Step]) -> Self {
        if let Some(at) = self.phases.iter().position(|(phase, _)| *phase == other) {
            self.phases.insert(at + 1, (name, steps.iter().map(|step| (*step, step.on_failure())).collect()));
        }
        self
    }

    /// A phase whose steps are logged when they fail; the sequence goes on without them.
    pub(crate) fn optional_phase(mut self, name: &'static str, steps: &[Step]) -> Self {
        self.phases.push((name, steps.iter().map(|step| (*step, OnFailure::Ignore)).collect()));
        self
    }

    /// The plan that has `actions` carry the steps out for `request`.
    pub(crate) fn plan(&self, actions: &Arc<dyn Actions>, request: &Request) -> Plan {
        let request = Arc::new(request.clone());
        let task = |step: Step, on_failure| {
            let (actions, request) = (Arc::clone(actions), Arc::clone(&request));
            let work = move |context| {
                let (actions, request) = (Arc::clone(&actions), Arc::clone(&request));
                async move { actions.perform(step, Job { request, context }).await }
            };
            let task = match step.deadline() {
                Some(deadline) => Task::new(step.name(), deadline, work),
                None => Task::waiting(step.name(), work),
            };
            task.on_failure(on_failure)
        };
        self.phases.iter().fold(Plan::new(self.then), |plan, (name, steps)| {
            plan.phase(name, steps.iter().map(|(step, policy)| task(*step, *policy)).collect())
        })
    }
}
