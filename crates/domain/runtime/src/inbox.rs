//! Configurations on their way in: from the API to the controller that owns the configuration.

use std::sync::Arc;

use tokio::sync::watch;

/// Holds the latest configuration that was handed in. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ConfigInbox {
    latest: Arc<watch::Sender<Option<String>>>,
}

impl Default for ConfigInbox {
    fn default() -> Self {
        Self { latest: Arc::new(watch::Sender::new(None)) }
    }
}

impl ConfigInbox {
    /// Hands in a configuration that has been validated and persisted.
    pub fn submit(&self, text: String) {
        self.latest.send_replace(Some(text));
    }

    /// What was handed in last.
    pub fn latest(&self) -> Option<String> {
        self.latest.borrow().clone()
    }

    /// Changes with each submission.
    pub fn subscribe(&self) -> watch::Receiver<Option<String>> {
        self.latest.subscribe()
    }
}
