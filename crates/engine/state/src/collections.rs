//! All kinds of a store. A kind comes into being with the first resource that is written to it; no read makes one, so
//! readers cannot make the store grow.

use std::{collections::HashMap, sync::Arc};

use parking_lot::RwLock;
use tokio::sync::watch;

use crate::{collection::Collection, metadata::Kind};

pub(crate) struct Collections {
    by_kind: RwLock<HashMap<Kind, Arc<Collection>>>,
    /// Number of collections; watches of kinds without one wait on it. Sent with `by_kind` locked.
    count: watch::Sender<usize>,
    /// Changes that each of them keeps.
    history: usize,
}

impl Collections {
    pub(crate) fn new(history: usize) -> Self {
        Self { by_kind: RwLock::default(), count: watch::Sender::new(0), history }
    }

    pub(crate) fn get(&self, kind: &Kind) -> Option<Arc<Collection>> {
        self.by_kind.read().get(kind).cloned()
    }

    /// For a write that may create a resource.
    pub(crate) fn get_or_create(&self, kind: &Kind) -> Arc<Collection> {
        self.get(kind).unwrap_or_else(|| {
            let mut by_kind = self.by_kind.write();
            let new = || Arc::new(Collection::new(self.history));
            let collection = Arc::clone(by_kind.entry(kind.clone()).or_insert_with(new));
            self.count.send_replace(by_kind.len());
            collection
        })
    }

    /// Wakes when a kind is added.
    pub(crate) fn subscribe(&self) -> watch::Receiver<usize> {
        self.count.subscribe()
    }

    pub(crate) fn kinds(&self) -> Vec<Kind> {
        self.by_kind.read().keys().cloned().collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.by_kind.read().len()
    }
}
