//! A change of a resource, for the history and for observers.
//!
//! The history of a sensitive type holds no value but those in force: see [`Change::for_history`].

use std::{sync::Arc, time::SystemTime};

use crate::{
    redacted::{is_sensitive, redact},
    resource::AnyResource,
};

/// Type of change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// Created.
    Created,
    /// Its metadata or spec changed.
    Updated,
    /// Destroyed.
    Destroyed,
}

/// One entry of the history.
#[derive(Clone, Debug)]
pub struct Change {
    /// Rises through all kinds of the store.
    pub seq: u64,
    /// Type of change.
    pub kind: ChangeKind,
    /// The resource after the change; as it last was when destroyed.
    pub resource: AnyResource,
    /// The resource before an update.
    pub old: Option<AnyResource>,
    /// When.
    pub at: SystemTime,
    /// Its values were dropped, because a later change of the same resource is in the history.
    pub(crate) superseded: bool,
}

/// Receives each change while its kind is locked: must not block or call the store.
pub trait Observer: Send + Sync {
    /// `change` happened.
    fn changed(&self, change: &Change);
}

impl Change {
    /// What the history keeps of this change: of a sensitive resource neither the value before nor the last one of a
    /// resource that is gone.
    pub(crate) fn for_history(self: Arc<Self>) -> Arc<Self> {
        if !is_sensitive(&self.resource) {
            return self;
        }
        let resource = match self.kind {
            ChangeKind::Destroyed => redact(&self.resource),
            ChangeKind::Created | ChangeKind::Updated => self.resource.clone(),
        };
        Arc::new(Self { resource, old: self.old.as_ref().map(redact), ..(*self).clone() })
    }

    /// What the history keeps of this change of a sensitive resource once a later one is there.
    pub(crate) fn without_values(&self) -> Self {
        let old = self.old.as_ref().map(redact);
        Self { resource: redact(&self.resource), old, superseded: true, ..self.clone() }
    }
}
