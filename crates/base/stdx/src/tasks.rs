//! Tasks that have a name, a span, an owner and a bounded end.
//!
//! [`spawn`] gives a handle that ends its task when dropped; [`TaskSet`] owns many tasks and one cancellation token.
//! Neither restarts anything: that is the controller runtime's and the supervisor's work.

use std::{any::Any, borrow::Cow, collections::HashMap, future::Future, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    task::{AbortHandle, JoinError, JoinHandle, JoinSet},
    time::Instant,
};
pub use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info_span};

/// The name of a task, as it stands in logs.
pub type TaskName = Cow<'static, str>;

/// Why a task gave no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TaskError {
    /// It panicked.
    #[error("task {name} panicked: {message}")]
    Panicked {
        /// The task's name.
        name: TaskName,
        /// What the panic said.
        message: String,
    },
    /// It was aborted before its end.
    #[error("task {name} was aborted")]
    Aborted {
        /// The task's name.
        name: TaskName,
    },
}

impl TaskError {
    fn new(name: TaskName, error: JoinError) -> Self {
        match error.try_into_panic() {
            Ok(payload) => Self::Panicked { name, message: panic_message(&*payload) },
            Err(_) => Self::Aborted { name },
        }
    }
}

/// A running task; dropping it aborts the task.
#[derive(Debug)]
pub struct Task<T> {
    name: TaskName,
    handle: Option<JoinHandle<T>>,
}

/// Starts `future` as a task named `name`, in a span of the same name below the current span.
#[expect(clippy::disallowed_methods, reason = "the one place that starts tasks")]
pub fn spawn<F>(name: impl Into<TaskName>, future: F) -> Task<F::Output>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    let name = name.into();
    let span = info_span!("task", name = %name);
    Task { name, handle: Some(tokio::spawn(future.instrument(span))) }
}

impl<T> Task<T> {
    /// Waits for its result.
    ///
    /// Cancel-safe in the sense that dropping this future aborts the task.
    ///
    /// # Errors
    /// [`TaskError`] when it panicked or was aborted.
    pub async fn join(mut self) -> Result<T, TaskError> {
        let Some(handle) = self.handle.as_mut() else {
            return Err(TaskError::Aborted { name: self.name.clone() });
        };
        let result = handle.await;
        self.handle = None;
        result.map_err(|error| TaskError::new(self.name.clone(), error))
    }

    /// Asks it to stop at its next await point.
    pub fn abort(&self) {
        if let Some(handle) = &self.handle {
            handle.abort();
        }
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.handle.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Lets it run until its own end. For tasks whose end is bounded by something else.
    pub fn detach(mut self) {
        self.handle = None;
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.abort();
    }
}

/// Tasks of one owner, with one token that cancels them all. Cheap to clone; the last clone to go aborts what still runs.
#[derive(Clone, Debug)]
pub struct TaskSet {
    owner: TaskName,
    token: CancellationToken,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    tasks: JoinSet<()>,
    names: HashMap<tokio::task::Id, TaskName>,
}

/// Tasks that did not end in time and were aborted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("tasks of {owner} did not stop within {}: {}", crate::duration::format(*.waited), .names.join(", "))]
pub struct Stragglers {
    /// Whose tasks they were.
    pub owner: TaskName,
    /// How long was waited.
    pub waited: Duration,
    /// Their names, sorted.
    pub names: Vec<TaskName>,
}

impl TaskSet {
    /// An empty set with a token of its own.
    pub fn new(owner: impl Into<TaskName>) -> Self {
        Self::with_token(owner, CancellationToken::new())
    }

    /// An empty set whose token is a child of `parent`.
    pub fn child_of(parent: &CancellationToken, owner: impl Into<TaskName>) -> Self {
        Self::with_token(owner, parent.child_token())
    }

    fn with_token(owner: impl Into<TaskName>, token: CancellationToken) -> Self {
        Self { owner: owner.into(), token, inner: Arc::default() }
    }

    /// The token that [`cancel`](Self::cancel) fires. Give tasks a child of it.
    #[must_use]
    pub const fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// Starts a task of this set. A panic in it is logged and does not touch the others.
    pub fn spawn<F>(&self, name: impl Into<TaskName>, future: F) -> AbortHandle
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let name = name.into();
        let span = info_span!("task", name = %name, owner = %self.owner);
        let mut inner = self.inner.lock();
        inner.reap(&self.owner);
        let handle = inner.tasks.spawn(future.instrument(span));
        inner.names.insert(handle.id(), name);
        handle
    }

    /// How many tasks have not ended yet.
    #[must_use]
    pub fn running(&self) -> usize {
        let mut inner = self.inner.lock();
        inner.reap(&self.owner);
        inner.tasks.len()
    }

    /// Fires the token. Tasks end when they notice; [`join`](Self::join) bounds how long that may take.
    pub fn cancel(&self) {
        self.token.cancel();
    }

    /// Cancels, then waits at most `deadline` for all tasks to end; what still runs then is aborted.
    ///
    /// # Errors
    /// [`Stragglers`] names what had to be aborted.
    pub async fn join(&self, deadline: Duration) -> Result<(), Stragglers> {
        self.cancel();
        let mut taken = std::mem::take(&mut *self.inner.lock());
        let until = Instant::now() + deadline;
        loop {
            match tokio::time::timeout_at(until, taken.tasks.join_next_with_id()).await {
                Ok(Some(ended)) => taken.ended(&self.owner, ended),
                Ok(None) => return Ok(()),
                Err(_) => {
                    taken.reap(&self.owner);
                    if taken.tasks.is_empty() {
                        return Ok(());
                    }
                    let mut names: Vec<TaskName> = taken.names.values().cloned().collect();
                    names.sort();
                    taken.tasks.shutdown().await;
                    return Err(Stragglers { owner: self.owner.clone(), waited: deadline, names });
                }
            }
        }
    }
}

impl Inner {
    fn reap(&mut self, owner: &str) {
        while let Some(ended) = self.tasks.try_join_next_with_id() {
            self.ended(owner, ended);
        }
    }

    fn ended(&mut self, owner: &str, ended: Result<(tokio::task::Id, ()), JoinError>) {
        match ended {
            Ok((id, ())) => {
                self.names.remove(&id);
            }
            Err(error) => {
                let name = self.names.remove(&error.id()).unwrap_or_default();
                if let Ok(payload) = error.try_into_panic() {
                    tracing::error!(owner, task = %name, panic = panic_message(&*payload), "task panicked");
                }
            }
        }
    }
}

/// The text of a panic's payload.
#[must_use]
pub fn panic_message(payload: &(dyn Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests;
