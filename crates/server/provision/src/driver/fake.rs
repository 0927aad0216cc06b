//! Recorded nodes, for tests of decisions about nodes.
//!
//! Stricter than a real one: starting a node that was not seeded or runs, and power-cycling one that was never started, panic.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;

use super::{Ended, NodeDriver, NodeStatus, Seed};
use crate::error::{DriverError, Problem};
use crate::plan::{Plan, PlannedNode};
use crate::spec::ClusterSpec;

/// A call that changes something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Call {
    Prepare,
    OpenPort(u16),
    Seed(String, Option<Vec<u8>>),
    Start(String),
    PowerCycle(String),
    Remove(String),
    RemoveAll,
}

#[derive(Debug, Default)]
struct Inner {
    calls: Vec<Call>,
    seeded: BTreeSet<String>,
    /// Those that were started; none runs.
    nodes: BTreeMap<String, Option<Ended>>,
    end_at_start: BTreeMap<String, Ended>,
    failing: BTreeSet<String>,
    left: Vec<String>,
}

#[derive(Debug, Default)]
pub(crate) struct FakeDriver(Mutex<Inner>);

impl FakeDriver {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.0.lock().calls.clone()
    }

    /// How often a node was powered on again.
    pub(crate) fn power_cycles(&self, node: &str) -> usize {
        self.calls().iter().filter(|call| **call == Call::PowerCycle(node.to_owned())).count()
    }

    /// A node ends, as if it had been started.
    pub(crate) fn end(&self, node: &str, ended: Ended) {
        self.0.lock().nodes.insert(node.to_owned(), Some(ended));
    }

    /// A node ends so as soon as it is started, from now on.
    pub(crate) fn end_at_start(&self, node: &str, ended: Ended) {
        self.0.lock().end_at_start.insert(node.to_owned(), ended);
    }

    /// A node cannot be started from now on.
    pub(crate) fn fail(&self, node: &str) {
        self.0.lock().failing.insert(node.to_owned());
    }

    /// Something cannot be removed.
    pub(crate) fn leave(&self, what: &str) {
        self.0.lock().left.push(what.to_owned());
    }

    fn switch_on(&self, node: &str) -> Result<(), DriverError> {
        let mut inner = self.0.lock();
        if inner.failing.contains(node) {
            return Err(DriverError::Start { node: node.to_owned(), reason: "it fails".to_owned() });
        }
        let ended = inner.end_at_start.get(node).copied();
        inner.nodes.insert(node.to_owned(), ended);
        Ok(())
    }
}

#[async_trait]
impl NodeDriver for FakeDriver {
    fn problems(&self, _: &ClusterSpec) -> Vec<Problem> {
        Vec::new()
    }

    fn notices(&self, _: &Plan) -> Vec<String> {
        Vec::new()
    }

    async fn prepare(&self, _: &ClusterSpec) -> Result<(), DriverError> {
        self.0.lock().calls.push(Call::Prepare);
        Ok(())
    }

    async fn open_port(&self, _: &Plan, port: u16) -> Result<(), DriverError> {
        self.0.lock().calls.push(Call::OpenPort(port));
        Ok(())
    }

    async fn seed(&self, _: &Plan, node: &PlannedNode, seed: Seed<'_>) -> Result<(), DriverError> {
        let mut inner = self.0.lock();
        inner.seeded.insert(node.name.clone());
        inner.calls.push(Call::Seed(node.name.clone(), seed.user_data.map(<[u8]>::to_vec)));
        Ok(())
    }

    async fn start(&self, _: &Plan, node: &PlannedNode) -> Result<(), DriverError> {
        {
            let mut inner = self.0.lock();
            assert!(inner.seeded.contains(&node.name), "{} was not seeded", node.name);
            assert!(inner.nodes.get(&node.name) != Some(&None), "{} runs", node.name);
            inner.calls.push(Call::Start(node.name.clone()));
        }
        self.switch_on(&node.name)
    }

    async fn has_ended(&self, node: &PlannedNode) -> Result<Option<Ended>, DriverError> {
        Ok(self.0.lock().nodes.get(&node.name).copied().flatten())
    }

    async fn power_cycle(&self, _: &Plan, node: &PlannedNode) -> Result<(), DriverError> {
        {
            let mut inner = self.0.lock();
            assert!(inner.nodes.contains_key(&node.name), "{} was never started", node.name);
            inner.calls.push(Call::PowerCycle(node.name.clone()));
        }
        self.switch_on(&node.name)
    }

    async fn remove(&self, _: &Plan, node: &PlannedNode) -> Result<(), DriverError> {
        let mut inner = self.0.lock();
        inner.nodes.remove(&node.name);
        inner.seeded.remove(&node.name);
        inner.calls.push(Call::Remove(node.name.clone()));
        Ok(())
    }

    async fn report(&self, node: &PlannedNode) -> Result<NodeStatus, DriverError> {
        Ok(match self.0.lock().nodes.get(&node.name) {
            None => NodeStatus::Absent,
            Some(None) => NodeStatus::Running { pid: 1 },
            Some(Some(ended)) => NodeStatus::Ended(*ended),
        })
    }

    async fn remove_all(&self) -> Vec<DriverError> {
        let mut inner = self.0.lock();
        inner.calls.push(Call::RemoveAll);
        inner.nodes.clear();
        let left = |what: String| DriverError::Unusable { subject: what, reason: "it stays".to_owned() };
        inner.left.drain(..).map(left).collect()
    }

    fn has_traces(&self) -> bool {
        !self.0.lock().nodes.is_empty()
    }
}
