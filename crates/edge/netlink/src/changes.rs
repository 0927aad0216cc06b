//! That something changed, without what: whoever is told looks again.

use tokio::sync::watch;

/// Tells of changes of one kind. Changes between two looks count as one.
#[derive(Debug, Clone)]
pub struct Changes(watch::Receiver<u64>);

impl Changes {
    /// Waits for a change since the last one that was returned; false once there will be no more.
    ///
    /// Cancel-safe.
    pub async fn changed(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }
}

/// The other end of [`Changes`].
#[derive(Debug, Default)]
pub struct ChangeSender(watch::Sender<u64>);

impl ChangeSender {
    /// A receiver that hears of changes from now on.
    #[must_use]
    pub fn subscribe(&self) -> Changes {
        Changes(self.0.subscribe())
    }

    /// Tells all receivers.
    pub fn notify(&self) {
        self.0.send_modify(|count| *count = count.wrapping_add(1));
    }
}
