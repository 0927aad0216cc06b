//! The set of services.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use stdx::Clock;
use stdx::tasks::TaskSet;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

use crate::run;
use crate::service::{Restart, Service};
use crate::status::{ServiceState, ServiceStatus, StateChange};

/// Changes that a slow subscriber may lag behind; more than the whole boot makes.
const CHANGE_BACKLOG: usize = 1024;

/// How long the services of a node may take to end, all together.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(60);

/// What cannot be done with a service.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SupervisorError {
    #[error("service {0:?} is not known")]
    Unknown(String),
}

pub(crate) struct Entry {
    pub(crate) status: ServiceStatus,
    pub(crate) stop: CancellationToken,
    pub(crate) generation: u64,
    depends_on: Vec<String>,
    finished: watch::Receiver<bool>,
}

pub(crate) struct Shared {
    pub(crate) entries: Mutex<BTreeMap<String, Entry>>,
    pub(crate) revision: watch::Sender<u64>,
    changes: broadcast::Sender<StateChange>,
    clock: Arc<dyn Clock>,
}

impl Shared {
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::try_from(self.clock.now()).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// Changes the status of the run of `generation`, and tells subscribers if `change` says that something changed.
    pub(crate) fn update(&self, id: &str, generation: u64, change: impl FnOnce(&mut ServiceStatus, Timestamp) -> bool) {
        let now = self.now();
        let published = {
            let mut entries = self.entries.lock();
            let entry = entries.get_mut(id).filter(|entry| entry.generation == generation);
            entry.and_then(|entry| change(&mut entry.status, now).then(|| entry.status.change()))
        };
        if let Some(published) = published {
            tracing::info!(service = id, state = %published.state, healthy = published.health.healthy, reason = published.message, "service state");
            // Nobody listening is fine.
            drop(self.changes.send(published));
            self.revision.send_modify(|revision| *revision += 1);
        }
    }

    pub(crate) fn enter(&self, id: &str, generation: u64, state: ServiceState, message: &str) {
        self.update(id, generation, |status, now| status.enter(state, message, now));
    }
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
            revision: watch::Sender::new(0),
            changes: broadcast::Sender::new(CHANGE_BACKLOG),
            clock,
        };
        Self { shared: Arc::new(shared), tasks: Arc::new(TaskSet::new("supervisor")) }
    }

    /// Starts a service that is not there or has ended for good; one that is up, or on its way, is left as it is.
    pub fn ensure(&self, service: Arc<dyn Service>) {
        let id = service.id().to_owned();
        let mut entries = self.shared.entries.lock();
        let (generation, events) = match entries.get(&id) {
            Some(entry) if !*entry.finished.borrow() => return,
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
        let shared = Arc::clone(&self.shared);
        self.tasks.spawn(format!("service {id}"), async move {
            run::keep(&shared, service.as_ref(), generation, &stop).await;
            done.send_replace(true);
        });
    }

    /// Ends a service and waits until it has ended. It stays in the list as finished.
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

    /// Ends what runs under the same id, if anything, and starts this instead.
    pub async fn replace(&self, service: Arc<dyn Service>) {
        match self.stop(service.id()).await {
            Ok(()) | Err(SupervisorError::Unknown(_)) => self.ensure(service),
        }
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

    /// Ends all services, those that others depend on last. Returns when all have ended, or after a minute.
    pub async fn shutdown(&self) {
        let deadline = tokio::time::Instant::now() + SHUTDOWN_DEADLINE;
        loop {
            let leaves = self.leaves();
            if leaves.is_empty() {
                return;
            }
            let stops = leaves.iter().map(|id| self.stop(id));
            if tokio::time::timeout_at(deadline, futures::future::join_all(stops)).await.is_err() {
                tracing::error!(services = ?leaves, "services did not end in time");
                return;
            }
        }
    }

    /// Services that have not ended and that no other such service depends on.
    fn leaves(&self) -> Vec<String> {
        let entries = self.shared.entries.lock();
        let alive = || entries.iter().filter(|(_, entry)| !*entry.finished.borrow());
        let needed: Vec<&String> = alive().flat_map(|(_, entry)| &entry.depends_on).collect();
        let leaves: Vec<String> = alive().map(|(id, _)| id).filter(|id| !needed.contains(id)).cloned().collect();
        if leaves.is_empty() { alive().map(|(id, _)| id.clone()).collect() } else { leaves }
    }
}

#[cfg(test)]
mod tests;
