//! The cluster's lock, on the etcd of this node.

use std::time::Duration;

use async_trait::async_trait;
use domain_k8s::{ClusterLock, HeldLock, LockError};
use state::Store;

/// How long a lock outlives a holder that died.
const TTL: Duration = Duration::from_secs(10);

/// Takes locks in etcd; knows how to reach it from the node's own resources.
#[derive(Debug)]
pub(crate) struct EtcdLock {
    pub(crate) store: Store,
}

#[async_trait]
impl ClusterLock for EtcdLock {
    async fn acquire(&self, name: &str, wait: Duration) -> Result<Box<dyn HeldLock>, LockError> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| LockError { name: name.to_owned(), source };
        let etcd = crate::api::etcd_client(&self.store).await.map_err(|e| failed(Box::new(e)))?;
        let guard = etcd.lock(name, TTL, wait).await.map_err(|e| failed(Box::new(e)))?;
        Ok(Box::new(Held(guard)))
    }
}

struct Held(etcd_edge::LockGuard);

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Held").field(&self.0.key()).finish()
    }
}

#[async_trait]
impl HeldLock for Held {
    async fn release(self: Box<Self>) {
        if let Err(error) = self.0.release().await {
            tracing::warn!(error = stdx::error_chain(&error), "lock was not released; it ends by itself");
        }
    }
}
