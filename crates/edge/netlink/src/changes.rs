//! Change notifications without content: a receiver reads the state again.

use tokio::sync::watch;

/// Receiver of change notifications. Changes between two calls are coalesced.
#[derive(Debug, Clone)]
pub struct Changes(watch::Receiver<u64>);

impl Changes {
    /// Waits for a change since the last one returned; false after the sender is dropped.
    ///
    /// Cancel-safe.
    pub async fn changed(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }
}

/// The sender of [`Changes`].
#[derive(Debug, Default)]
pub struct ChangeSender(watch::Sender<u64>);

impl ChangeSender {
    /// A receiver of changes from now on.
    #[must_use]
    pub fn subscribe(&self) -> Changes {
        Changes(self.0.subscribe())
    }

    /// Notifies all receivers.
    pub fn notify(&self) {
        self.0.send_modify(|count| *count = count.wrapping_add(1));
    }
}
