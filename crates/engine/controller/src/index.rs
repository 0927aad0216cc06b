//! Maps changes to the controllers to wake.

use std::{collections::HashMap, sync::Arc};

use parking_lot::RwLock;
use state::{Change, ChangeKind, Kind, Observer};

use crate::{
    io::{Input, Strength},
    signal::Signal,
};

/// Subscriptions of all controllers of a runtime. The store notifies it of each change before the write returns, so no
/// change can be lost between a controller's read and its wait.
#[derive(Debug, Default)]
pub(crate) struct Index {
    inner: RwLock<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    by_kind: HashMap<Kind, Vec<Subscription>>,
    by_owner: HashMap<&'static str, Arc<Signal>>,
}

#[derive(Debug)]
struct Subscription {
    controller: &'static str,
    id: Option<String>,
    strength: Strength,
    signal: Arc<Signal>,
}

impl Index {
    /// Replaces the subscriptions of `controller` with `inputs`.
    pub(crate) fn set(&self, controller: &'static str, inputs: &[Input], signal: &Arc<Signal>) {
        let mut inner = self.inner.write();
        for subscriptions in inner.by_kind.values_mut() {
            subscriptions.retain(|known| known.controller != controller);
        }
        inner.by_owner.insert(controller, Arc::clone(signal));
        for input in inputs {
            inner.by_kind.entry(input.kind.clone()).or_default().push(Subscription {
                controller,
                id: input.id.clone(),
                strength: input.strength,
                signal: Arc::clone(signal),
            });
        }
        inner.by_kind.retain(|_, subscriptions| !subscriptions.is_empty());
    }
}

impl Observer for Index {
    fn changed(&self, change: &Change) {
        let metadata = &change.resource.metadata;
        let destroy_ready = metadata.is_destroy_ready() && change.kind != ChangeKind::Destroyed;
        let inner = self.inner.read();
        for subscription in inner.by_kind.get(&metadata.kind()).into_iter().flatten() {
            let wanted = subscription.id.as_ref().is_none_or(|id| *id == metadata.id)
                && (subscription.strength != Strength::DestroyReady || destroy_ready);
            if wanted {
                subscription.signal.wake();
            }
        }
        // Its owner waits to finish the teardown, without having to declare that.
        if destroy_ready && let Some(owner) = inner.by_owner.get(metadata.owner.as_str()) {
            owner.wake();
        }
    }
}
