//! The one-time permission to start a new etcd cluster on this node.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::watch;

/// Why a cluster is not bootstrapped here.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BootstrapError {
    #[error("etcd data directory is not empty")]
    AlreadyBootstrapped,
    #[error("bootstrap is already in progress")]
    InProgress,
    #[error("bootstrap can only be performed on a control plane node")]
    NotControlPlane,
}

/// Opened by the API's bootstrap call, waited for by the etcd service. Cheap to clone.
#[derive(Debug, Clone)]
pub struct BootstrapGate {
    open: Arc<watch::Sender<bool>>,
}

impl Default for BootstrapGate {
    fn default() -> Self {
        Self { open: Arc::new(watch::Sender::new(false)) }
    }
}

impl BootstrapGate {
    /// Lets etcd start a new cluster.
    ///
    /// # Errors
    /// When it was let already, or when there is data of a member.
    pub fn open(&self, data_directory: &Path) -> Result<(), BootstrapError> {
        if has_member(data_directory) {
            return Err(BootstrapError::AlreadyBootstrapped);
        }
        let was_closed = self.open.send_if_modified(|open| !std::mem::replace(open, true));
        if was_closed { Ok(()) } else { Err(BootstrapError::InProgress) }
    }

    /// Whether a new cluster may be started.
    pub fn is_open(&self) -> bool {
        *self.open.borrow()
    }

    /// Returns once it is open. Cancel-safe.
    pub async fn opened(&self) {
        // The sender lives as long as this gate, so this ends only by opening.
        drop(self.open.subscribe().wait_for(|open| *open).await);
    }
}

/// Whether a data directory holds an etcd member.
pub fn has_member(data_directory: &Path) -> bool {
    data_directory.join("member").exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_gate_opens_once_and_not_over_data() {
        let dir = tempfile::tempdir().unwrap();
        let gate = BootstrapGate::default();
        assert!(!gate.is_open());
        gate.open(dir.path()).unwrap();
        gate.opened().await;
        assert_eq!(gate.open(dir.path()), Err(BootstrapError::InProgress));
        std::fs::create_dir(dir.path().join("member")).unwrap();
        assert_eq!(gate.open(dir.path()), Err(BootstrapError::AlreadyBootstrapped));
    }
}
