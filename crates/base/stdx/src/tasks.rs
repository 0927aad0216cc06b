//! Tasks that have a name, a span, an owner and a bounded end.
//!
//! [`spawn`] gives a handle that ends its task when dropped; [`TaskSet`] owns many tasks and one cancellation token;
//! [`keep`] starts its task again after a panic. A panic in any of them is logged when it happens, not when somebody looks,
//! and counted by [`panics`].

use std::{
    any::Any,
    borrow::Cow,
    collections::HashMap,
    future::Future,
    panic::{AssertUnwindSafe, resume_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::FutureExt as _;
use parking_lot::Mutex;
use tokio::{
    task::{AbortHandle, JoinError, JoinHandle, JoinSet},
    time::Instant,
};
pub use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info_span};

use crate::backoff::{Backoff, random_jitter};

/// The shortest and the longest pause before a task that panicked starts again.
const KEEP_MIN: Duration = Duration::from_millis(100);
const KEEP_MAX: Duration = Duration::from_secs(10);

/// The name of a task, for logs.
pub type TaskName = Cow<'static, str>;

/// Why a task gave no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TaskError {
    /// It panicked.
    #[error("task {name} panicked: {message}")]
    Panicked {
        /// The task's name.
        name: TaskName,
        /// The panic message.
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

/// How often tasks of this process panicked.
static PANICS: AtomicU64 = AtomicU64::new(0);

/// How many panics of tasks there were in this process.
#[must_use]
pub fn panics() -> u64 {
    PANICS.load(Ordering::Relaxed)
}

/// Runs `future`; a panic in it is reported, and propagated to a task that joins it.
async fn reported<F: Future>(name: TaskName, owner: TaskName, future: F) -> F::Output {
    match AssertUnwindSafe(future).catch_unwind().await {
        Ok(output) => output,
        Err(payload) => {
            report(&name, &owner, &*payload);
            resume_unwind(payload)
        }
    }
}

fn report(name: &str, owner: &str, payload: &(dyn Any + Send)) {
    let panics = PANICS.fetch_add(1, Ordering::Relaxed) + 1;
    tracing::error!(task = name, owner, panic = panic_message(payload), panics, "task panicked");
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
    let future = reported(name.clone(), TaskName::Borrowed(""), future);
    Task { name, handle: Some(tokio::spawn(future.instrument(span))) }
}

/// Starts the future that `make` returns as a task named `name`, and restarts it after each panic: after 100 ms at
/// first, 10 s at most. It ends when the future ends.
pub fn keep<F, M>(name: impl Into<TaskName>, make: M) -> Task<()>
where
    F: Future<Output = ()> + Send + 'static,
    M: FnMut() -> F + Send + 'static,
{
    let name = name.into();
    spawn(name.clone(), kept(name, TaskName::Borrowed(""), make, || {}))
}

/// The body of a task that is started again after a panic; `on_panic` is told of each.
async fn kept<F, M>(name: TaskName, owner: TaskName, mut make: M, on_panic: impl Fn() + Send)
where
    F: Future<Output = ()> + Send,
    M: FnMut() -> F + Send,
{
    let mut backoff = Backoff::new(KEEP_MIN, KEEP_MAX);
    loop {
        let started = Instant::now();
        // Making the future may panic as well.
        let run = AssertUnwindSafe(async { make().await }).catch_unwind();
        let Err(payload) = run.await else { return };
        report(&name, &owner, &*payload);
        on_panic();
        if started.elapsed() > KEEP_MAX {
            backoff.reset();
        }
        tokio::time::sleep(backoff.next_delay(random_jitter())).await;
    }
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

    /// Requests a stop at its next await point.
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

/// Tasks of one owner with a common cancellation token. Cheap to clone; dropping the last clone aborts running tasks.
#[derive(Clone, Debug)]
pub struct TaskSet {
    owner: TaskName,
    token: CancellationToken,
    inner: Arc<Mutex<Inner>>,
    on_panic: Option<OnPanic>,
}

/// Tells the owner of a set that one of its tasks panicked.
#[derive(Clone)]
struct OnPanic(Arc<dyn Fn() + Send + Sync>);

impl std::fmt::Debug for OnPanic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OnPanic")
    }
}

#[derive(Debug, Default)]
struct Inner {
    tasks: JoinSet<()>,
    names: HashMap<tokio::task::Id, TaskName>,
}

/// Tasks that missed the deadline and were aborted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("tasks of {owner} did not stop within {}: {}", crate::duration::format(*.waited), .names.join(", "))]
pub struct UnfinishedTasks {
    /// Whose tasks they were.
    pub owner: TaskName,
    /// How long was waited.
    pub waited: Duration,
    /// Names of the tasks, sorted.
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
        Self { owner: owner.into(), token, inner: Arc::default(), on_panic: None }
    }

    /// The same tasks; `tell` is called at once when one that is started through this handle panicked.
    #[must_use]
    pub fn on_panic(mut self, tell: impl Fn() + Send + Sync + 'static) -> Self {
        self.on_panic = Some(OnPanic(Arc::new(tell)));
        self
    }

    /// The token that [`cancel`](Self::cancel) fires. Give tasks a child of it.
    #[must_use]
    pub const fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// Starts a task of this set. A panic in it is logged at once and does not touch the others.
    pub fn spawn<F>(&self, name: impl Into<TaskName>, future: F) -> AbortHandle
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let name = name.into();
        let (task, owner, on_panic) = (name.clone(), self.owner.clone(), self.on_panic.clone());
        self.start(name, async move {
            // The future is dropped before its owner is notified.
            let outcome = AssertUnwindSafe(future).catch_unwind().await;
            if let Err(payload) = outcome {
                report(&task, &owner, &*payload);
                if let Some(OnPanic(tell)) = on_panic {
                    tell();
                }
            }
        })
    }

    /// [`keep`] as a task of this set.
    pub fn keep<F, M>(&self, name: impl Into<TaskName>, make: M) -> AbortHandle
    where
        F: Future<Output = ()> + Send + 'static,
        M: FnMut() -> F + Send + 'static,
    {
        let (name, on_panic) = (name.into(), self.on_panic.clone());
        let tell = move || on_panic.iter().for_each(|OnPanic(tell)| tell());
        self.start(name.clone(), kept(name, self.owner.clone(), make, tell))
    }

    fn start(&self, name: TaskName, future: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        // Below no other span: who starts a task of an owner says nothing about what it does later.
        let span = info_span!(parent: None, "task", name = %name, owner = %self.owner);
        let mut inner = self.inner.lock();
        inner.reap();
        let handle = inner.tasks.spawn(future.instrument(span));
        inner.names.insert(handle.id(), name);
        handle
    }

    /// How many tasks have not ended yet.
    #[must_use]
    pub fn running(&self) -> usize {
        let mut inner = self.inner.lock();
        inner.reap();
        inner.tasks.len()
    }

    /// Fires the token. Tasks end when they observe it; [`join`](Self::join) bounds the wait.
    pub fn cancel(&self) {
        self.token.cancel();
    }

    /// Cancels, waits at most `deadline` for all tasks to end, and aborts the rest.
    ///
    /// # Errors
    /// [`UnfinishedTasks`] names what had to be aborted.
    pub async fn join(&self, deadline: Duration) -> Result<(), UnfinishedTasks> {
        self.cancel();
        let mut taken = std::mem::take(&mut *self.inner.lock());
        let until = Instant::now() + deadline;
        loop {
            match tokio::time::timeout_at(until, taken.tasks.join_next_with_id()).await {
                Ok(Some(ended)) => taken.ended(ended),
                Ok(None) => return Ok(()),
                Err(_) => {
                    taken.reap();
                    if taken.tasks.is_empty() {
                        return Ok(());
                    }
                    let mut names: Vec<TaskName> = taken.names.values().cloned().collect();
                    names.sort();
                    taken.tasks.shutdown().await;
                    return Err(UnfinishedTasks { owner: self.owner.clone(), waited: deadline, names });
                }
            }
        }
    }
}

impl Inner {
    fn reap(&mut self) {
        while let Some(ended) = self.tasks.try_join_next_with_id() {
            self.ended(ended);
        }
    }

    /// Panics were reported when they happened.
    fn ended(&mut self, ended: Result<(tokio::task::Id, ()), JoinError>) {
        let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
        self.names.remove(&id);
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
