//! The table of services that the supervisor and the runs of its services share.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use jiff::Timestamp;
use parking_lot::Mutex;
use stdx::Clock;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

use crate::status::{ServiceState, ServiceStatus, StateChange};

pub(crate) struct Entry {
    pub(crate) status: ServiceStatus,
    pub(crate) stop: CancellationToken,
    pub(crate) generation: u64,
    pub(crate) depends_on: Vec<String>,
    pub(crate) finished: watch::Receiver<bool>,
}

impl Entry {
    pub(crate) fn has_ended(&self) -> bool {
        // The sender goes with the last run of its task, which is as finished as it gets.
        *self.finished.borrow() || self.finished.has_changed().is_err()
    }
}

pub(crate) struct Shared {
    pub(crate) entries: Mutex<BTreeMap<String, Entry>>,
    /// Set for good when the node stops: nothing starts any more.
    pub(crate) closed: AtomicBool,
    pub(crate) revision: watch::Sender<u64>,
    pub(crate) changes: broadcast::Sender<StateChange>,
    pub(crate) clock: Arc<dyn Clock>,
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
