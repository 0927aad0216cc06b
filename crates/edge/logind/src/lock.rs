//! Locks that delay the end of the machine, and the wait for them.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use parking_lot::Mutex;
use rustix::pipe::{PipeFlags, pipe_with};
use stdx::tasks::TaskSet;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::watch;

/// The longest time that a lock may delay the end of the machine (Talos 1.7).
pub const LONGEST_DELAY: Duration = Duration::from_secs(20 * 60);
/// The kubelet takes one.
const LOCKS: usize = 64;

/// Who holds a lock, and why; texts of its client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lock {
    pub(crate) who: String,
    pub(crate) why: String,
    /// It is about the end of the machine, not about sleep and the like.
    pub(crate) is_of_shutdown: bool,
}

/// Why there is no lock.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LockError {
    #[error("the machine ends already")]
    TooLate,
    #[error("there are {LOCKS} locks")]
    TooMany,
    #[error("making a pipe")]
    Pipe(#[source] io::Error),
}

/// Locks that were not released in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the end of the machine is still delayed by {0}")]
pub struct HeldError(String);

struct Shared {
    locks: Mutex<BTreeMap<u64, Lock>>,
    /// Changes when a lock comes or goes.
    changes: watch::Sender<u64>,
    is_preparing: watch::Sender<bool>,
    holders: TaskSet,
}

/// The locks of this machine. Cheap to clone; clones are one.
#[derive(Clone)]
pub struct Logind(Arc<Shared>);

impl Default for Logind {
    fn default() -> Self {
        Self(Arc::new(Shared {
            locks: Mutex::default(),
            changes: watch::Sender::new(0),
            is_preparing: watch::Sender::new(false),
            holders: TaskSet::new("locks of logind"),
        }))
    }
}

impl fmt::Debug for Logind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Logind").field("locks", &self.0.locks.lock().len()).finish_non_exhaustive()
    }
}

impl Logind {
    /// Whether the machine is about to end, and each change of that.
    pub(crate) fn preparing(&self) -> watch::Receiver<bool> {
        self.0.is_preparing.subscribe()
    }

    /// Gives a lock out: it is held until all copies of the descriptor are closed.
    pub(crate) fn inhibit(&self, lock: Lock) -> Result<OwnedFd, LockError> {
        // Under the lock of the list: the wait for it begins after this, or this is too late.
        let mut locks = self.0.locks.lock();
        if *self.0.is_preparing.borrow() {
            return Err(LockError::TooLate);
        }
        if locks.len() == LOCKS {
            return Err(LockError::TooMany);
        }
        let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| LockError::Pipe(error.into()))?;
        let mut ours = Receiver::from_owned_fd(ours).map_err(LockError::Pipe)?;
        let id = self.0.changes.borrow().wrapping_add(1);
        tracing::info!(who = lock.who, why = lock.why, "the end of the machine can be delayed");
        locks.insert(id, lock);
        self.0.changes.send_replace(id);
        drop(locks);
        // Weak: the set of tasks is part of what they would keep.
        let shared = Arc::downgrade(&self.0);
        self.0.holders.spawn("lock of logind", async move {
            let mut ignored = [0; 64];
            // What is written into it means nothing; an end or an error is that of the lock.
            while matches!(ours.read(&mut ignored).await, Ok(1..)) {}
            if let Some(shared) = shared.upgrade() {
                shared.locks.lock().remove(&id);
                shared.changes.send_modify(|changes| *changes = changes.wrapping_add(1));
            }
        });
        Ok(theirs)
    }

    /// Holders of locks that delay the end of the machine, by name.
    fn holders(&self) -> Vec<String> {
        let locks = self.0.locks.lock();
        locks.values().filter(|lock| lock.is_of_shutdown).map(|lock| lock.who.clone()).collect()
    }

    /// Tells clients that the machine is about to end, and waits until they have released their locks. Nobody gets another
    /// one. Cancel-safe: the next call goes on with the wait.
    ///
    /// # Errors
    /// [`HeldError`] names those that did not within `limit`.
    pub async fn prepare_for_shutdown(&self, limit: Duration) -> Result<(), HeldError> {
        let mut changes = self.0.changes.subscribe();
        {
            let _locks = self.0.locks.lock();
            self.0.is_preparing.send_if_modified(|preparing| !std::mem::replace(preparing, true));
        }
        let released = async {
            loop {
                changes.borrow_and_update();
                // The sender lives as long as this.
                if self.holders().is_empty() || changes.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::time::timeout(limit, released).await.map_err(|_| HeldError(self.holders().join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(who: &str, is_of_shutdown: bool) -> Lock {
        Lock { who: who.to_owned(), why: String::new(), is_of_shutdown }
    }

    #[tokio::test]
    async fn the_end_waits_for_locks_of_shutdowns_and_for_no_others() {
        let logind = Logind::default();
        let (held, of_sleep) =
            (logind.inhibit(lock("kubelet", true)).unwrap(), logind.inhibit(lock("x", false)).unwrap());
        let copy = held.try_clone().unwrap();
        let error = logind.prepare_for_shutdown(Duration::from_millis(50)).await.unwrap_err();
        assert_eq!(error.to_string(), "the end of the machine is still delayed by kubelet");
        assert!(matches!(logind.inhibit(lock("late", true)), Err(LockError::TooLate)));
        drop(held);
        assert!(logind.prepare_for_shutdown(Duration::from_millis(50)).await.is_err(), "a copy is open");
        let (ended, ()) = tokio::join!(logind.prepare_for_shutdown(Duration::from_secs(20)), async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            drop(copy);
        });
        assert_eq!(ended, Ok(()));
        drop(of_sleep);
    }

    #[tokio::test]
    async fn locks_have_a_limit_and_make_room_when_they_are_released() {
        let logind = Logind::default();
        let mut held: Vec<_> = (0..LOCKS).map(|_| logind.inhibit(lock("x", true)).unwrap()).collect();
        assert!(matches!(logind.inhibit(lock("x", true)), Err(LockError::TooMany)));
        held.pop();
        let room = async {
            while logind.inhibit(lock("x", true)).is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), room).await.expect("no room");
    }
}
