//! A lock that is held across nodes.

use std::{fmt, future::Future, time::Duration};

use async_trait::async_trait;

use crate::{Etcd, EtcdError};

/// What holds a lock behind a [`LockGuard`].
#[async_trait]
pub trait Lock: Send + Sync {
    /// Lets go.
    ///
    /// # Errors
    /// [`EtcdError`]; the lock then ends with its time to live.
    async fn release(self: Box<Self>) -> Result<(), EtcdError>;
}

/// A held lock. Dropped without [`release`](Self::release) it is no longer kept alive and ends with its time to live.
pub struct LockGuard {
    key: String,
    lock: Box<dyn Lock>,
}

impl fmt::Debug for LockGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockGuard").field("key", &self.key).finish_non_exhaustive()
    }
}

impl LockGuard {
    pub(crate) fn new(key: &str, lock: Box<dyn Lock>) -> Self {
        Self { key: key.to_owned(), lock }
    }

    /// The name of the lock.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Lets go.
    ///
    /// # Errors
    /// [`EtcdError`]; the lock then ends with its time to live.
    pub async fn release(self) -> Result<(), EtcdError> {
        self.lock.release().await
    }
}

/// How long a lock outlives a process that died holding it.
const TTL: Duration = Duration::from_secs(10);

/// Does `work` while holding the lock `key`, waiting at most `wait` for it.
///
/// # Errors
/// Those of taking the lock; failing to release it is logged, as the lock ends by itself.
pub async fn with_lock<T>(
    etcd: &dyn Etcd,
    key: &str,
    wait: Duration,
    work: impl Future<Output = T>,
) -> Result<T, EtcdError> {
    let guard = etcd.lock(key, TTL, wait).await?;
    let result = work.await;
    if let Err(error) = guard.release().await {
        tracing::warn!(error = %stdx::ErrorChain(&error), key, "lock was not released, it ends by itself");
    }
    Ok(result)
}
