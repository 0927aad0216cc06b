//! A controller's view of the world during a pass.

use std::{
    collections::{HashMap, HashSet},
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::RwLock;
use resources::Spec;
use state::{Key, Kind, Phase, Query, Resource, StateError, Store};
use stdx::{
    Clock,
    tasks::{CancellationToken, TaskSet},
};
use tokio::{sync::watch, task::AbortHandle, time::Instant};

use crate::{
    access::Access,
    error::ReconcileError,
    graph,
    index::Index,
    io::Input,
    signal::{Signal, Waker},
};

/// Result of a destroy request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destroyed {
    /// It does not exist any more, or never did.
    Gone,
    /// It is tearing down and still held; the controller is woken when the last finalizer is removed.
    Waiting,
}

/// A task started by [`Ctx::spawn`]. Dropping the handle leaves the task alone: it ends with the controller.
#[derive(Debug)]
pub struct TaskHandle {
    handle: AbortHandle,
    /// Set before the controller is woken for a panic, when the handle may not show it yet.
    ended: Arc<AtomicBool>,
}

struct SetOnDrop(Arc<AtomicBool>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl TaskHandle {
    /// Ends the task at its next await point.
    pub fn abort(&self) {
        self.handle.abort();
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.ended.load(Ordering::SeqCst) || self.handle.is_finished()
    }
}

/// A controller's access to the store, to timers and to tasks. Everything is checked against its declarations.
#[derive(Debug)]
pub struct Ctx {
    store: Store,
    access: Arc<RwLock<Access>>,
    index: Arc<Index>,
    signal: Arc<Signal>,
    tasks: TaskSet,
    name: &'static str,
    touched: HashSet<Key>,
    requeue: Option<Instant>,
    /// Those of [`Ctx::wake_on_change`].
    watched: HashMap<&'static str, TaskHandle>,
}

impl Ctx {
    pub(crate) fn new(
        store: Store,
        access: Arc<RwLock<Access>>,
        index: Arc<Index>,
        signal: Arc<Signal>,
        tasks: TaskSet,
    ) -> Self {
        let name = access.read().controller;
        Self {
            store,
            access,
            index,
            signal,
            tasks,
            name,
            touched: HashSet::new(),
            requeue: None,
            watched: HashMap::new(),
        }
    }

    pub(crate) fn begin_pass(&mut self) {
        self.touched.clear();
        self.requeue = None;
    }

    pub(crate) const fn requeue(&self) -> Option<Instant> {
        self.requeue
    }

    /// The controller's name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The wall clock, for timestamps and expiry.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        self.store.clock()
    }

    /// Fires when the controller must stop, for long waits in passes and tasks.
    #[must_use]
    pub const fn cancelled(&self) -> &CancellationToken {
        self.tasks.token()
    }

    /// One resource of type `S` in its own namespace.
    ///
    /// # Errors
    /// [`crate::AccessError::UndeclaredRead`].
    pub fn get<S: Spec>(&self, id: &str) -> Result<Option<Resource<S>>, ReconcileError> {
        self.get_in(S::DEFINITION.namespace, id)
    }

    /// [`get`](Self::get) in another namespace.
    ///
    /// # Errors
    /// [`crate::AccessError::UndeclaredRead`].
    pub fn get_in<S: Spec>(&self, namespace: &str, id: &str) -> Result<Option<Resource<S>>, ReconcileError> {
        self.access.read().read(&Kind::of_in::<S>(namespace).key(id))?;
        Ok(self.store.get_as_in(namespace, id)?)
    }

    /// All resources of type `S` in its own namespace, by id.
    ///
    /// # Errors
    /// [`crate::AccessError::UndeclaredRead`].
    pub fn list<S: Spec>(&self) -> Result<Vec<Resource<S>>, ReconcileError> {
        self.list_in(S::DEFINITION.namespace)
    }

    /// [`list`](Self::list) in another namespace.
    ///
    /// # Errors
    /// [`crate::AccessError::UndeclaredRead`].
    pub fn list_in<S: Spec>(&self, namespace: &str) -> Result<Vec<Resource<S>>, ReconcileError> {
        self.access.read().list(&Kind::of_in::<S>(namespace))?;
        Ok(self.store.list_as_in(namespace)?)
    }

    /// Sets the output `id` of type `S` to `spec`; no change if equal.
    ///
    /// # Errors
    /// [`crate::AccessError::UndeclaredWrite`]; [`StateError::OwnerConflict`]; [`StateError::PhaseConflict`] while an
    /// earlier resource of that name is still held.
    pub fn put<S: Spec>(&mut self, id: &str, spec: S) -> Result<Resource<S>, ReconcileError> {
        self.put_in(S::DEFINITION.namespace, id, spec)
    }

    /// [`put`](Self::put) in another namespace.
    ///
    /// # Errors
    /// Those of [`put`](Self::put).
    pub fn put_in<S: Spec>(&mut self, namespace: &str, id: &str, spec: S) -> Result<Resource<S>, ReconcileError> {
        self.write_in(namespace, id, |_| spec)
    }

    /// Changes the output `id` of type `S`, starting from the default where there is none.
    ///
    /// # Errors
    /// Those of [`put`](Self::put).
    pub fn modify<S: Spec + Default>(
        &mut self,
        id: &str,
        f: impl FnOnce(&mut S),
    ) -> Result<Resource<S>, ReconcileError> {
        self.modify_in(S::DEFINITION.namespace, id, f)
    }

    /// [`modify`](Self::modify) in another namespace.
    ///
    /// # Errors
    /// Those of [`put`](Self::put).
    pub fn modify_in<S: Spec + Default>(
        &mut self,
        namespace: &str,
        id: &str,
        f: impl FnOnce(&mut S),
    ) -> Result<Resource<S>, ReconcileError> {
        self.write_in(namespace, id, |current: Option<&S>| {
            let mut spec = current.cloned().unwrap_or_default();
            f(&mut spec);
            spec
        })
    }

    fn write_in<S: Spec>(
        &mut self,
        namespace: &str,
        id: &str,
        f: impl FnOnce(Option<&S>) -> S,
    ) -> Result<Resource<S>, ReconcileError> {
        self.access.read().write::<S>()?;
        let key = Kind::of_in::<S>(namespace).key(id);
        // An earlier resource of that name that only awaits destruction makes room.
        let old = self
            .store
            .get(&key)
            .ok()
            .filter(|old| old.metadata.phase == Phase::TearingDown && old.metadata.owner == self.name);
        if old.is_some() {
            self.destroy_key(&key)?;
        }
        let written = self.store.modify_in(namespace, id, self.name, f)?;
        self.touched.insert(key);
        Ok(written)
    }

    /// Destroys the output `id` of type `S`: tears it down first if it is held.
    ///
    /// # Errors
    /// [`crate::AccessError::UndeclaredWrite`]; [`StateError::OwnerConflict`].
    pub fn destroy<S: Spec>(&mut self, id: &str) -> Result<Destroyed, ReconcileError> {
        self.destroy_in::<S>(S::DEFINITION.namespace, id)
    }

    /// [`destroy`](Self::destroy) in another namespace.
    ///
    /// # Errors
    /// Those of [`destroy`](Self::destroy).
    pub fn destroy_in<S: Spec>(&mut self, namespace: &str, id: &str) -> Result<Destroyed, ReconcileError> {
        self.access.read().write::<S>()?;
        let key = Kind::of_in::<S>(namespace).key(id);
        self.touched.remove(&key);
        self.destroy_key(&key)
    }

    fn destroy_key(&self, key: &Key) -> Result<Destroyed, ReconcileError> {
        loop {
            match self.store.destroy(key, self.name) {
                Ok(()) | Err(StateError::NotFound(_)) => return Ok(Destroyed::Gone),
                Err(StateError::PendingFinalizers { .. }) => {}
                Err(error) => return Err(error.into()),
            }
            match self.store.teardown(key, self.name) {
                Ok(false) => return Ok(Destroyed::Waiting),
                // The last holder released it in between.
                Ok(true) | Err(StateError::NotFound(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Destroys this controller's outputs of type `S`, in all namespaces, that this pass did not write.
    ///
    /// # Errors
    /// [`crate::AccessError::UndeclaredWrite`].
    pub fn keep_touched<S: Spec>(&mut self) -> Result<(), ReconcileError> {
        self.access.read().write::<S>()?;
        let kinds = self.store.kinds().into_iter().filter(|kind| kind.type_name == S::DEFINITION.type_name);
        for kind in kinds {
            for resource in self.store.list(&kind, &Query::default()) {
                let key = resource.key();
                if resource.metadata.owner == self.name && !self.touched.contains(&key) {
                    self.destroy_key(&key)?;
                }
            }
        }
        Ok(())
    }

    /// Adds a finalizer to a strong input: its owner cannot destroy it before
    /// [`remove_finalizer`](Self::remove_finalizer).
    ///
    /// # Errors
    /// [`crate::AccessError::NotStrong`]; [`StateError::NotFound`]; [`StateError::PhaseConflict`] when it is tearing
    /// down.
    pub fn add_finalizer<S: Spec>(&self, id: &str) -> Result<(), ReconcileError> {
        self.add_finalizer_in::<S>(S::DEFINITION.namespace, id)
    }

    /// [`add_finalizer`](Self::add_finalizer) in another namespace.
    ///
    /// # Errors
    /// Those of [`add_finalizer`](Self::add_finalizer).
    pub fn add_finalizer_in<S: Spec>(&self, namespace: &str, id: &str) -> Result<(), ReconcileError> {
        let key = Kind::of_in::<S>(namespace).key(id);
        self.access.read().hold(&key)?;
        self.store.add_finalizer(&key, self.name)?;
        Ok(())
    }

    /// Removes the finalizer from a strong input; succeeds if the input does not exist.
    ///
    /// # Errors
    /// [`crate::AccessError::NotStrong`].
    pub fn remove_finalizer<S: Spec>(&self, id: &str) -> Result<(), ReconcileError> {
        self.remove_finalizer_in::<S>(S::DEFINITION.namespace, id)
    }

    /// [`remove_finalizer`](Self::remove_finalizer) in another namespace.
    ///
    /// # Errors
    /// [`crate::AccessError::NotStrong`].
    pub fn remove_finalizer_in<S: Spec>(&self, namespace: &str, id: &str) -> Result<(), ReconcileError> {
        let key = Kind::of_in::<S>(namespace).key(id);
        self.access.read().hold(&key)?;
        match self.store.remove_finalizer(&key, self.name) {
            Ok(_) | Err(StateError::NotFound(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Schedules another pass after this time at the latest. The earliest of several calls in a pass counts; the next
    /// pass clears it.
    pub fn requeue_after(&mut self, after: Duration) {
        let at = Instant::now() + after;
        self.requeue = Some(self.requeue.map_or(at, |earlier| earlier.min(at)));
    }

    /// Wakes this controller, for tasks that watch the outside world.
    #[must_use]
    pub fn waker(&self) -> Waker {
        Waker(Arc::clone(&self.signal))
    }

    /// Runs another pass after each change of `receiver`. `name` names the task that watches; the first call of a name counts,
    /// so a pass may call this each time. The task ends with the controller or with the sender.
    pub fn wake_on_change<T: Send + Sync + 'static>(&mut self, name: &'static str, receiver: &watch::Receiver<T>) {
        if self.watched.contains_key(name) {
            return;
        }
        let (waker, receiver) = (self.waker(), receiver.clone());
        let watch = self.keep(name, move || {
            let (waker, mut receiver) = (waker.clone(), receiver.clone());
            async move {
                while receiver.changed().await.is_ok() {
                    waker.wake();
                }
            }
        });
        self.watched.insert(name, watch);
    }

    /// Starts a task that is made anew after a panic, for those that live as long as the controller. A panic is counted in
    /// [`crate::Status::task_panics`].
    pub fn keep<F>(&mut self, name: &'static str, mut make: impl FnMut() -> F + Send + 'static) -> TaskHandle
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let handle = self.tasks.keep(name, move || crate::in_span(make()));
        TaskHandle { handle, ended: Arc::default() }
    }

    /// Starts a task that lives until its own end, or the controller's. A panic ends it, is counted and wakes the controller,
    /// which checks [`TaskHandle::is_finished`] and restarts it if needed.
    pub fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) -> TaskHandle {
        let ended = Arc::new(AtomicBool::new(false));
        let guard = SetOnDrop(Arc::clone(&ended));
        let guarded = async move {
            let _guard = guard;
            task.await;
        };
        let handle = self.tasks.spawn(name, crate::in_span(guarded));
        TaskHandle { handle, ended }
    }

    /// Replaces the inputs, for controllers whose inputs depend on resources.
    ///
    /// # Errors
    /// [`crate::GraphError::DuplicateInput`].
    pub fn set_inputs(&mut self, inputs: Vec<Input>) -> Result<(), ReconcileError> {
        let mut access = self.access.write();
        let unchanged =
            access.inputs.len() == inputs.len() && access.inputs.iter().zip(&inputs).all(|(old, new)| old.same(new));
        if unchanged {
            return Ok(());
        }
        graph::check_inputs(self.name, &inputs)?;
        self.index.set(self.name, &inputs, &self.signal);
        access.inputs = inputs;
        Ok(())
    }
}
