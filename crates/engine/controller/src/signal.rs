//! A one-slot signal that wakes a controller.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::Notify;

/// Wakes before the next wait are coalesced.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    notify: Notify,
    pending: AtomicBool,
}

impl Signal {
    pub(crate) fn wake(&self) {
        self.pending.store(true, Ordering::SeqCst);
        self.notify.notify_one();
    }

    /// Waits for a wake and consumes it. Cancel-safe: a wake is consumed only on return.
    pub(crate) async fn woken(&self) {
        while !self.pending.swap(false, Ordering::SeqCst) {
            self.notify.notified().await;
        }
    }

    /// Consumes a pending wake, for passes that start for another reason.
    pub(crate) fn take(&self) {
        self.pending.store(false, Ordering::SeqCst);
    }

    pub(crate) fn is_pending(&self) -> bool {
        self.pending.load(Ordering::SeqCst)
    }
}

/// Wakes one controller from anywhere. Cheap to clone.
#[derive(Clone)]
pub struct Waker(pub(crate) Arc<Signal>);

impl Waker {
    /// Requests a pass. Calls before it starts are coalesced.
    pub fn wake(&self) {
        self.0.wake();
    }
}

impl fmt::Debug for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Waker")
    }
}
