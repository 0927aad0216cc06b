//! Pods of a node in memory.

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tonic::Status;

use crate::containerd::ContainerdError;
use crate::pods::{Pods, Sandbox};

/// A call that changed something, by the pod's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PodCall {
    Stop(String, Duration),
    Remove(String),
}

/// Strict: a pod is removed after it was stopped, and only one that is there.
#[derive(Debug, Default)]
pub struct FakePods {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    sandboxes: Vec<Sandbox>,
    stopped: BTreeSet<String>,
    failing: BTreeSet<String>,
    calls: Vec<PodCall>,
}

impl FakePods {
    #[must_use]
    pub fn new(sandboxes: impl IntoIterator<Item = Sandbox>) -> Self {
        let state = State { sandboxes: sandboxes.into_iter().collect(), ..State::default() };
        Self { state: Mutex::new(state) }
    }

    /// A pod of this name cannot be stopped.
    pub fn fail(&self, name: &str) {
        self.state.lock().failing.insert(name.to_owned());
    }

    /// All calls, in order.
    #[must_use]
    pub fn calls(&self) -> Vec<PodCall> {
        self.state.lock().calls.clone()
    }

    /// Names of the pods that are there.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.state.lock().sandboxes.iter().map(|sandbox| sandbox.name.clone()).collect()
    }
}

fn refused(operation: &'static str, sandbox: &Sandbox, status: Status) -> ContainerdError {
    ContainerdError::call(operation, &sandbox.id)(status)
}

#[async_trait]
impl Pods for FakePods {
    async fn sandboxes(&self) -> Result<Vec<Sandbox>, ContainerdError> {
        Ok(self.state.lock().sandboxes.clone())
    }

    async fn stop(&self, sandbox: &Sandbox, grace: Duration) -> Result<(), ContainerdError> {
        let mut state = self.state.lock();
        state.calls.push(PodCall::Stop(sandbox.name.clone(), grace));
        if state.failing.contains(&sandbox.name) {
            return Err(refused("stopping pod", sandbox, Status::deadline_exceeded("made to fail")));
        }
        state.stopped.insert(sandbox.id.clone());
        Ok(())
    }

    async fn remove(&self, sandbox: &Sandbox) -> Result<(), ContainerdError> {
        let mut state = self.state.lock();
        state.calls.push(PodCall::Remove(sandbox.name.clone()));
        if !state.stopped.contains(&sandbox.id) {
            return Err(refused("removing pod", sandbox, Status::failed_precondition("it runs")));
        }
        let before = state.sandboxes.len();
        state.sandboxes.retain(|known| known.id != sandbox.id);
        if state.sandboxes.len() == before {
            return Err(refused("removing pod", sandbox, Status::not_found("no such pod")));
        }
        Ok(())
    }
}
