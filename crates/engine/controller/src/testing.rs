//! Runs controllers in tests: a store, a manual clock, and a way to wait until everything is idle.
//!
//! Use it under `#[tokio::test(start_paused = true)]`: waiting then takes no real time.

use std::{marker::PhantomData, sync::Arc, time::Duration};

use async_trait::async_trait;
use resources::Spec;
use state::{Key, Kind, Resource, StateError, Store, StoreOptions};
use stdx::clock::ManualClock;

use crate::{Controller, Ctx, Input, Output, ReconcileError, Runtime, Status};

/// Paused time that [`Harness::settle`] allows before it reports stuck controllers.
const SETTLE: Duration = Duration::from_secs(60);

/// A controller that holds a resource within its passes only, and gives it to a function.
pub struct Holder<S, F> {
    name: &'static str,
    id: &'static str,
    then: F,
    of: PhantomData<fn() -> S>,
}

impl<S: Spec, F: FnMut(&S) + Send + 'static> Holder<S, F> {
    /// Holds the resource `id` as the controller `name`.
    pub fn new(name: &'static str, id: &'static str, then: F) -> Self {
        Self { name, id, then, of: PhantomData }
    }
}

impl<S, F> std::fmt::Debug for Holder<S, F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Holder").field("id", &self.id).finish_non_exhaustive()
    }
}

#[async_trait]
impl<S: Spec, F: FnMut(&S) + Send + 'static> Controller for Holder<S, F> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn inputs(&self) -> Vec<Input> {
        vec![Input::strong::<S>().id(self.id)]
    }

    fn outputs(&self) -> Vec<Output> {
        Vec::new()
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        if let Some(held) = ctx.hold_while_running::<S>(self.id)? {
            (self.then)(&held);
        }
        Ok(())
    }
}

/// A store with controllers on it.
#[derive(Debug)]
pub struct Harness {
    /// The store; tests may use all of it.
    pub store: Store,
    /// The runtime.
    pub runtime: Runtime,
    /// The wall clock that controllers and metadata see.
    pub clock: Arc<ManualClock>,
}

impl Default for Harness {
    fn default() -> Self {
        Self::new()
    }
}

#[expect(clippy::panic, reason = "a test helper: a failure here fails the test")]
impl Harness {
    /// An empty store and no controller.
    #[must_use]
    pub fn new() -> Self {
        let clock = Arc::new(ManualClock::default());
        let store =
            Store::with_options(StoreOptions { clock: Arc::clone(&clock) as Arc<_>, ..StoreOptions::default() });
        let runtime = Runtime::new(store.clone());
        Self { store, runtime, clock }
    }

    /// A harness that runs `controller`.
    pub fn with(controller: impl Controller) -> Self {
        let harness = Self::new();
        harness.run(controller);
        harness
    }

    /// Adds a controller and starts it.
    pub fn run(&self, controller: impl Controller) {
        if let Err(error) = self.runtime.register(controller) {
            panic!("registering: {error}");
        }
        self.runtime.start();
    }

    /// Writes a resource without an owner in the type's own namespace.
    pub fn put<S: Spec>(&self, id: &str, spec: S) -> Resource<S> {
        self.put_in(S::DEFINITION.namespace, id, spec)
    }

    /// [`put`](Self::put) in another namespace.
    pub fn put_in<S: Spec>(&self, namespace: &str, id: &str, spec: S) -> Resource<S> {
        self.store.put_in(namespace, id, spec, "").unwrap_or_else(|error| panic!("putting {id}: {error}"))
    }

    /// Removes a resource without owner and finalizers.
    pub fn destroy<S: Spec>(&self, id: &str) {
        self.store.destroy(&Key::of::<S>(id), "").unwrap_or_else(|error| panic!("destroying {id}: {error}"));
    }

    /// Tears down a resource without an owner; true if it is not held.
    pub fn teardown<S: Spec>(&self, id: &str) -> bool {
        self.store.teardown(&Key::of::<S>(id), "").unwrap_or_else(|error| panic!("tearing down {id}: {error}"))
    }

    /// One resource in the type's own namespace.
    #[must_use]
    pub fn get<S: Spec>(&self, id: &str) -> Option<Resource<S>> {
        self.get_in(S::DEFINITION.namespace, id)
    }

    /// [`get`](Self::get) in another namespace.
    #[must_use]
    pub fn get_in<S: Spec>(&self, namespace: &str, id: &str) -> Option<Resource<S>> {
        let key = Kind::of_in::<S>(namespace).key(id);
        match self.store.get(&key) {
            Ok(resource) => Some(resource.typed().unwrap_or_else(|error| panic!("getting {id}: {error}"))),
            Err(StateError::NotFound(_)) => None,
            Err(error) => panic!("getting {id}: {error}"),
        }
    }

    /// All resources of the type in its own namespace, by id.
    #[must_use]
    pub fn list<S: Spec>(&self) -> Vec<Resource<S>> {
        self.store.list_as().unwrap_or_else(|error| panic!("listing: {error}"))
    }

    /// Ids of all resources of the type in its own namespace.
    #[must_use]
    pub fn ids<S: Spec>(&self) -> Vec<String> {
        self.list::<S>().iter().map(|resource| resource.id().to_owned()).collect()
    }

    /// Waits until no controller is running or due. Distant timers, such as retries, do not count.
    ///
    /// # Panics
    /// If a controller is still busy after a minute of paused time.
    pub async fn settle(&self) {
        let start = tokio::time::Instant::now();
        loop {
            // Paused time advances only when every task waits.
            tokio::time::sleep(Duration::from_millis(1)).await;
            let busy: Vec<Status> = self.runtime.status().into_iter().filter(|status| !status.idle).collect();
            if busy.is_empty() {
                return;
            }
            assert!(start.elapsed() < SETTLE, "controllers do not settle: {busy:?}");
        }
    }

    /// Advances time, including the wall clock, then settles.
    pub async fn advance(&self, by: Duration) {
        self.clock.advance(by);
        tokio::time::sleep(by).await;
        self.settle().await;
    }

    /// The status of the controller with that name.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn status(&self, name: &str) -> Status {
        let found = self.runtime.status().into_iter().find(|status| status.name == name);
        found.unwrap_or_else(|| panic!("no controller {name}"))
    }
}
