//! The set of services.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::join_all;
use parking_lot::Mutex;
use stdx::Clock;
use stdx::tasks::TaskSet;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

use crate::run;
use crate::service::{Restart, Service};
use crate::shared::{Entry, Shared};
use crate::status::{ServiceStatus, StateChange};

/// Changes that a slow subscriber may lag behind; more than the whole boot makes.
const CHANGE_BACKLOG: usize = 1024;

/// How long the services of a node may take to end in their order.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(60);

/// How long those that are left then may take, all told at once.
const SHUTDOWN_LAST_CALL: Duration = Duration::from_secs(5);

/// A failed request to the supervisor.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SupervisorError {
    #[error("service {0:?} is not known")]
    Unknown(String),
    #[error("services still running: {}", .0.join(", "))]
    StillRunning(Vec<String>),
}

/// How far a service is that was told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    Ended,
    Ending,
}

/// Keeps services running. Cheap to clone.
#[derive(Clone)]
pub struct Supervisor {
    shared: Arc<Shared>,
    tasks: Arc<TaskSet>,
}

impl std::fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Supervisor").field("services", &self.list().len()).finish_non_exhaustive()
    }
}

impl Supervisor {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let shared = Shared {
            entries: Mutex::new(BTreeMap::new()),
            closed: AtomicBool::new(false),
            revision: watch::Sender::new(0),
            changes: broadcast::Sender::new(CHANGE_BACKLOG),
            clock,
        };
        Self { shared: Arc::new(shared), tasks: Arc::new(TaskSet::new("supervisor")) }
    }

    /// Starts a service that is not there or has ended for good; one that is up, or on its way, is left as it is. Once
    /// [`shutdown`](Self::shutdown) was called nothing starts any more.
    pub fn ensure(&self, service: Arc<dyn Service>) {
        let id = service.id().to_owned();
        let mut entries = self.shared.entries.lock();
        if self.shared.closed.load(Ordering::SeqCst) {
            tracing::info!(service = id, "service is not started: the node stops");
            return;
        }
        let (generation, events) = match entries.get(&id) {
            Some(entry) if !entry.has_ended() => return,
            Some(entry) => (entry.generation + 1, entry.status.events.clone()),
            None => (0, std::collections::VecDeque::new()),
        };
        let one_shot = service.restart() != Restart::Always;
        let mut status = ServiceStatus::new(&id, service.health().is_some(), one_shot, self.shared.now());
        status.events = events;
        let stop = CancellationToken::new();
        let (done, finished) = watch::channel(false);
        let depends_on = service.depends_on();
        entries.insert(id.clone(), Entry { status, stop: stop.clone(), generation, depends_on, finished });
        drop(entries);
        let (shared, done) = (Arc::clone(&self.shared), Arc::new(done));
        // A panic here is ours, not one of the service, which `run` takes for a failed run.
        self.tasks.keep(format!("service {id}"), move || {
            let (shared, service, stop, done) =
                (Arc::clone(&shared), Arc::clone(&service), stop.clone(), Arc::clone(&done));
            async move {
                run::keep(&shared, service.as_ref(), generation, &stop).await;
                done.send_replace(true);
                shared.revision.send_modify(|revision| *revision += 1);
            }
        });
    }

    /// Tells a service to end, and whether it has: the revision changes when it has. It stays in the list as finished.
    ///
    /// # Errors
    /// `Unknown`.
    pub fn request_stop(&self, id: &str) -> Result<Stopped, SupervisorError> {
        let entries = self.shared.entries.lock();
        let entry = entries.get(id).ok_or_else(|| SupervisorError::Unknown(id.to_owned()))?;
        entry.stop.cancel();
        Ok(if entry.has_ended() { Stopped::Ended } else { Stopped::Ending })
    }

    /// Ends a service and waits until it has ended.
    ///
    /// # Errors
    /// `Unknown`.
    pub async fn stop(&self, id: &str) -> Result<(), SupervisorError> {
        let mut finished = {
            let entries = self.shared.entries.lock();
            let entry = entries.get(id).ok_or_else(|| SupervisorError::Unknown(id.to_owned()))?;
            entry.stop.cancel();
            entry.finished.clone()
        };
        // The sender is dropped only with its task, which is as finished as it gets.
        drop(finished.wait_for(|finished| *finished).await);
        Ok(())
    }

    /// All services, by id.
    pub fn list(&self) -> Vec<ServiceStatus> {
        self.shared.entries.lock().values().map(|entry| entry.status.clone()).collect()
    }

    /// One service.
    pub fn get(&self, id: &str) -> Option<ServiceStatus> {
        self.shared.entries.lock().get(id).map(|entry| entry.status.clone())
    }

    /// Changes whenever the list does. The value counts changes.
    pub fn revision(&self) -> watch::Receiver<u64> {
        self.shared.revision.subscribe()
    }

    /// Each change of state from now on.
    pub fn changes(&self) -> broadcast::Receiver<StateChange> {
        self.shared.changes.subscribe()
    }

    /// Ends all services, those that others depend on last, and starts none any more. Returns when all have ended, or when
    /// those that did not within a minute had another five seconds.
    ///
    /// # Errors
    /// `StillRunning` names services that have not ended.
    pub async fn shutdown(&self) -> Result<(), SupervisorError> {
        {
            // Under the lock: no `ensure` is half way.
            let _entries = self.shared.entries.lock();
            self.shared.closed.store(true, Ordering::SeqCst);
        }
        let deadline = tokio::time::Instant::now() + SHUTDOWN_DEADLINE;
        loop {
            let leaves = self.leaves();
            if leaves.is_empty() {
                return Ok(());
            }
            let stops = join_all(leaves.iter().map(|id| self.stop(id)));
            if tokio::time::timeout_at(deadline, stops).await.is_err() {
                break;
            }
        }
        tracing::error!(services = ?self.alive(), "services did not end in time; all are told to");
        let alive = self.alive();
        let stops = join_all(alive.iter().map(|id| self.stop(id)));
        drop(tokio::time::timeout(SHUTDOWN_LAST_CALL, stops).await);
        let alive = self.alive();
        if alive.is_empty() { Ok(()) } else { Err(SupervisorError::StillRunning(alive)) }
    }

    /// Services that have not ended, sorted.
    pub fn alive(&self) -> Vec<String> {
        let entries = self.shared.entries.lock();
        entries.iter().filter(|(_, entry)| !entry.has_ended()).map(|(id, _)| id.clone()).collect()
    }

    /// Services that have not ended and that no other such service depends on.
    fn leaves(&self) -> Vec<String> {
        let entries = self.shared.entries.lock();
        let alive = || entries.iter().filter(|(_, entry)| !entry.has_ended());
        let needed: Vec<&String> = alive().flat_map(|(_, entry)| &entry.depends_on).collect();
        let leaves: Vec<String> = alive().map(|(id, _)| id).filter(|id| !needed.contains(id)).cloned().collect();
        if leaves.is_empty() { alive().map(|(id, _)| id.clone()).collect() } else { leaves }
    }
}

#[cfg(test)]
mod tests;
