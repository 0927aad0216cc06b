//! The runtime: registers controllers, runs each in its own task, stops them.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use parking_lot::{Mutex, RwLock};
use state::{Observer, Store};
use stdx::tasks::{TaskSet, UnfinishedTasks};

use crate::{
    Controller,
    access::Access,
    ctx::Ctx,
    graph::{self, Edge, GraphError},
    index::Index,
    run::{self, Stats},
    signal::Signal,
};

/// Runs controllers on a store. Cheap to clone; clones are the same runtime.
///
/// Guarantees: no error and no panic of a controller reaches another one or the caller.
#[derive(Clone)]
pub struct Runtime {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    index: Arc<Index>,
    /// Keeps the store's weak reference to `index` alive.
    _observer: Arc<dyn Observer>,
    tasks: TaskSet,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    started: bool,
    controllers: Vec<Entry>,
}

struct Entry {
    access: Arc<RwLock<Access>>,
    signal: Arc<Signal>,
    stats: Arc<Stats>,
    /// Taken when it starts.
    waiting: Option<Box<dyn Controller>>,
}

/// Status of a controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Its name.
    pub name: &'static str,
    /// Completed passes, successful or not.
    pub passes: u64,
    /// Failed passes, by error or panic.
    pub failures: u64,
    /// Panics of tasks that it started.
    pub task_panics: u64,
    /// Error of the last pass; none if it succeeded.
    pub last_error: Option<String>,
    /// Idle: no pass is running or due, except by a timer.
    pub idle: bool,
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.inner.state.lock();
        f.debug_struct("Runtime")
            .field("controllers", &state.controllers.len())
            .field("started", &state.started)
            .finish_non_exhaustive()
    }
}

impl Runtime {
    /// A runtime without controllers.
    #[must_use]
    pub fn new(store: Store) -> Self {
        let index = Arc::new(Index::default());
        let observer: Arc<dyn Observer> = Arc::clone(&index) as Arc<dyn Observer>;
        store.observe(&observer);
        let inner = Inner {
            store,
            index,
            _observer: observer,
            tasks: TaskSet::new("controller-runtime"),
            state: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The store that the controllers work on.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// Registers a controller and its types; starts it at once if the runtime has started.
    ///
    /// # Errors
    /// [`GraphError`] for declarations in conflict with other controllers.
    pub fn register(&self, controller: impl Controller) -> Result<(), GraphError> {
        self.register_boxed(Box::new(controller))
    }

    /// [`register`](Self::register) for lists of controllers.
    ///
    /// # Errors
    /// Those of [`register`](Self::register).
    pub fn register_boxed(&self, controller: Box<dyn Controller>) -> Result<(), GraphError> {
        let name = controller.name();
        let access = Access { controller: name, inputs: controller.inputs(), outputs: controller.outputs() };
        let mut state = self.inner.state.lock();
        let known: Vec<_> = state.controllers.iter().map(|entry| entry.access.read()).collect();
        graph::check(known.iter().map(|access| &**access), &access)?;
        drop(known);
        for input in &access.inputs {
            self.inner.store.register(input.definition);
        }
        for output in &access.outputs {
            self.inner.store.register(output.definition);
        }
        let signal = Arc::new(Signal::default());
        self.inner.index.set(name, &access.inputs, &signal);
        let mut entry =
            Entry { access: Arc::new(RwLock::new(access)), signal, stats: Arc::default(), waiting: Some(controller) };
        if state.started {
            self.start_entry(&mut entry);
        }
        state.controllers.push(entry);
        Ok(())
    }

    /// Starts all controllers. Requires a tokio runtime. Idempotent.
    pub fn start(&self) {
        let mut state = self.inner.state.lock();
        state.started = true;
        for entry in &mut state.controllers {
            self.start_entry(entry);
        }
    }

    fn start_entry(&self, entry: &mut Entry) {
        let Some(controller) = entry.waiting.take() else { return };
        let name = controller.name();
        let (signal, stats) = (Arc::clone(&entry.signal), Arc::clone(&entry.stats));
        let tasks = TaskSet::child_of(self.inner.tasks.token(), name).on_panic(move || {
            stats.task_panics.fetch_add(1, Ordering::Relaxed);
            signal.wake();
        });
        let token = tasks.token().clone();
        let ctx = Ctx::new(
            self.inner.store.clone(),
            Arc::clone(&entry.access),
            Arc::clone(&self.inner.index),
            Arc::clone(&entry.signal),
            tasks,
        );
        let (signal, stats) = (Arc::clone(&entry.signal), Arc::clone(&entry.stats));
        self.inner.tasks.spawn(name, crate::in_span(run::run(controller, ctx, signal, stats, token)));
    }

    /// Cancels all controllers, lets passes end within `deadline`, and aborts the rest. The runtime cannot be used
    /// afterwards.
    ///
    /// # Errors
    /// [`UnfinishedTasks`] names the controllers that had to be aborted.
    pub async fn stop(&self, deadline: Duration) -> Result<(), UnfinishedTasks> {
        self.inner.tasks.join(deadline).await
    }

    /// The dependency graph: outputs and inputs of each controller, in order of registration.
    #[must_use]
    pub fn dependency_graph(&self) -> Vec<Edge> {
        let state = self.inner.state.lock();
        state.controllers.iter().flat_map(|entry| graph::edges(&entry.access.read()).collect::<Vec<_>>()).collect()
    }

    /// The status of each controller, in order of registration.
    #[must_use]
    pub fn status(&self) -> Vec<Status> {
        let state = self.inner.state.lock();
        state
            .controllers
            .iter()
            .map(|entry| Status {
                name: entry.access.read().controller,
                passes: entry.stats.passes.load(Ordering::Relaxed),
                failures: entry.stats.failures.load(Ordering::Relaxed),
                task_panics: entry.stats.task_panics.load(Ordering::Relaxed),
                last_error: entry.stats.last_error.lock().clone(),
                idle: entry.waiting.is_none()
                    && !entry.signal.is_pending()
                    && !entry.stats.running.load(Ordering::SeqCst),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;
