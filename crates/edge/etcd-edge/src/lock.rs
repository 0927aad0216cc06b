//! A lock that is held across nodes, and says when it is held no longer.
//!
//! A lock of etcd is a lease: when etcd cannot be reached for its time to live, another node gets it while this one still
//! believes in it. Every lock therefore has a signal that fires no later than the lease ends, measured here from the last
//! renewal that etcd confirmed; what is done under the lock stops then.

use std::{fmt, future::Future, time::Duration};

use async_trait::async_trait;
use stdx::tasks::CancellationToken;

use crate::{Etcd, EtcdError};

/// The lock behind a [`LockGuard`].
#[async_trait]
pub trait Lock: Send + Sync {
    /// Releases it.
    ///
    /// # Errors
    /// [`EtcdError`]; the lock then ends with its time to live.
    async fn release(self: Box<Self>) -> Result<(), EtcdError>;
}

/// A held lock. Dropped without [`release`](Self::release) it is no longer kept alive and ends with its time to live.
pub struct LockGuard {
    key: String,
    lock: Box<dyn Lock>,
    lost: CancellationToken,
}

impl fmt::Debug for LockGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockGuard").field("key", &self.key).finish_non_exhaustive()
    }
}

impl LockGuard {
    /// `lost` fires when the lock is held no longer.
    pub(crate) fn new(key: &str, lock: Box<dyn Lock>, lost: CancellationToken) -> Self {
        Self { key: key.to_owned(), lock, lost }
    }

    /// The name of the lock.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Returns when the lock is lost. Cancel-safe.
    pub async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// Releases it.
    ///
    /// # Errors
    /// [`EtcdError`]; the lock then ends with its time to live.
    pub async fn release(self) -> Result<(), EtcdError> {
        self.lock.release().await
    }

    /// Does `work` while the lock is held; drops it when the lock is lost.
    ///
    /// # Errors
    /// [`EtcdError::LockLost`].
    pub async fn hold_during<T>(&self, work: impl Future<Output = T>) -> Result<T, EtcdError> {
        // Work that is dropped stops where it waits, which is what a lost lock asks for. A lock that is lost already starts
        // nothing.
        tokio::select! {
            biased;
            () = self.lost() => Err(EtcdError::LockLost { key: self.key.clone() }),
            result = work => Ok(result),
        }
    }
}

/// How long a lock outlives a process that died holding it.
pub const LOCK_TTL: Duration = Duration::from_secs(10);

/// Does `work` while holding the lock `key`, waiting at most `wait` for it. `work` is dropped when the lock is lost.
///
/// # Errors
/// Those of taking the lock, and [`EtcdError::LockLost`]; failing to release it is logged, as the lock ends by itself.
pub async fn with_lock<T>(
    etcd: &dyn Etcd,
    key: &str,
    wait: Duration,
    work: impl Future<Output = T>,
) -> Result<T, EtcdError> {
    let guard = etcd.lock(key, LOCK_TTL, wait).await?;
    let result = guard.hold_during(work).await;
    if let Err(error) = guard.release().await {
        tracing::warn!(error = %stdx::ErrorChain(&error), key, "lock was not released; its lease will expire");
    }
    result
}
