//! The plans of this machine's sequences.
//!
//! A plan is a table of steps ([`container`], [`machine`]), each to be read on one screen. What a step does is behind
//! [`Actions`]; the one that acts on a node is [`crate::actions::NodeActions`].

mod container;
mod departure;
mod machine;
mod outline;
mod step;

use std::sync::{Arc, OnceLock};

use sequencer::{Plan, Planner, Request};

pub(crate) use outline::{Actions, Data, Facts, Job, Outline};
pub(crate) use step::Step;

/// The kind of a machine, which decides its plans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MachineKind {
    /// Kernel and disks are its host's.
    Container,
    /// Kernel and disks are its own.
    Machine,
}

/// Plans the sequences of this machine.
pub(crate) struct NodePlanner {
    pub(crate) kind: MachineKind,
    /// Set before the first sequence is asked for; the actions hold the lifecycle, which holds this planner.
    pub(crate) actions: Arc<OnceLock<Arc<dyn Actions>>>,
}

impl NodePlanner {
    fn outline(&self, request: &Request, facts: Facts) -> Option<Outline> {
        match self.kind {
            MachineKind::Container => container::outline(request, facts),
            MachineKind::Machine => machine::outline(request, facts),
        }
    }
}

impl Planner for NodePlanner {
    fn plan(&self, request: &Request) -> Option<Plan> {
        let actions = self.actions.get()?;
        Some(self.outline(request, actions.facts())?.plan(actions, request))
    }
}

#[cfg(test)]
mod tests;
