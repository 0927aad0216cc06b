//! Resources of one kind with the ring of their latest changes. The unit of locking.
//!
//! The ring of a sensitive type keeps of a superseded or destroyed resource its metadata alone.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{
    change::{Change, ChangeKind},
    error::StateError,
    redacted::is_sensitive,
    resource::AnyResource,
};

pub(crate) struct Collection {
    data: Mutex<Data>,
    /// The newest sequence number; watches sleep on it. Sent with `data` locked.
    newest: watch::Sender<u64>,
    capacity: usize,
}

#[derive(Default)]
pub(crate) struct Data {
    items: BTreeMap<String, AnyResource>,
    ring: VecDeque<Arc<Change>>,
    /// The newest change that the ring no longer holds; 0 when it holds all.
    evicted: u64,
}

/// A writer's decision while it holds the lock.
pub(crate) enum Decision {
    /// Nothing changes.
    Keep(AnyResource),
    /// This replaces, or is, the resource.
    Put(AnyResource),
    /// The resource is removed.
    Remove(AnyResource),
}

impl Collection {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { data: Mutex::default(), newest: watch::Sender::new(0), capacity: capacity.max(1) }
    }

    pub(crate) fn get(&self, id: &str) -> Option<AnyResource> {
        self.data.lock().items.get(id).cloned()
    }

    pub(crate) fn read<R>(&self, f: impl FnOnce(&Data) -> R) -> R {
        f(&self.data.lock())
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// Lets `decide` look at the resource `id` and carries out what it decides, in one piece. `record` stamps the
    /// change with its sequence number and tells observers.
    pub(crate) fn write(
        &self,
        id: &str,
        decide: impl FnOnce(Option<&AnyResource>) -> Result<Decision, StateError>,
        record: impl FnOnce(ChangeKind, AnyResource, Option<AnyResource>) -> Arc<Change>,
    ) -> Result<AnyResource, StateError> {
        let mut data = self.data.lock();
        let (change, result) = match decide(data.items.get(id))? {
            Decision::Keep(resource) => return Ok(resource),
            Decision::Put(resource) => {
                let old = data.items.insert(id.to_owned(), resource.clone());
                let kind = if old.is_some() { ChangeKind::Updated } else { ChangeKind::Created };
                (record(kind, resource.clone(), old), resource)
            }
            Decision::Remove(resource) => {
                data.items.remove(id);
                (record(ChangeKind::Destroyed, resource.clone(), None), resource)
            }
        };
        let seq = change.seq;
        if data.ring.len() >= self.capacity
            && let Some(oldest) = data.ring.pop_front()
        {
            data.evicted = oldest.seq;
        }
        if is_sensitive(&change.resource) {
            data.drop_values(id);
        }
        data.ring.push_back(change.for_history());
        self.newest.send_replace(seq);
        Ok(result)
    }
}

impl Data {
    /// Drops the values of the latest change of `id`, which is about to be superseded; those before it have none.
    fn drop_values(&mut self, id: &str) {
        let latest = self.ring.iter_mut().rev().find(|change| change.resource.metadata.id == id);
        if let Some(change) = latest {
            *change = Arc::new(change.without_values());
        }
    }

    pub(crate) fn items(&self) -> impl Iterator<Item = &AnyResource> {
        self.items.values()
    }

    pub(crate) fn get(&self, id: &str) -> Option<&AnyResource> {
        self.items.get(id)
    }

    pub(crate) fn history(&self) -> impl DoubleEndedIterator<Item = &Arc<Change>> {
        self.ring.iter()
    }

    /// The sequence number of the newest change; 0 before the first.
    pub(crate) fn newest(&self) -> u64 {
        self.ring.back().map_or(self.evicted, |change| change.seq)
    }

    /// Changes after `cursor`, oldest first; `None` when some of them are gone.
    pub(crate) fn since(&self, cursor: u64) -> Option<impl Iterator<Item = &Arc<Change>>> {
        (cursor >= self.evicted).then(|| {
            let start = self.ring.partition_point(|change| change.seq <= cursor);
            self.ring.range(start..)
        })
    }
}
