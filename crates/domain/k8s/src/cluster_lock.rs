//! A lock that one node of the cluster holds at a time. Implemented on etcd by who assembles the node.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;

/// Why a lock was not got.
#[derive(Debug, thiserror::Error)]
#[error("taking the cluster's lock {name}")]
pub struct LockError {
    pub name: String,
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

#[async_trait]
pub trait ClusterLock: Debug + Send + Sync {
    /// Waits at most so long for the lock.
    async fn acquire(&self, name: &str, wait: Duration) -> Result<Box<dyn HeldLock>, LockError>;
}

/// Held until released; given up some time after being dropped.
#[async_trait]
pub trait HeldLock: Debug + Send {
    async fn release(self: Box<Self>);
}
