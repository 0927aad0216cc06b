//! The store itself: reads, checked writes, registration of types.
//!
//! Guarantees: a write is all or nothing; each change raises the version by one, enters the history of its kind and is
//! told to observers before the write returns. A write that changes nothing is no change. Reads add nothing to the store,
//! whatever names they ask for.
//! Assumptions: observers are quick and never call the store.

use std::{
    collections::HashMap,
    fmt,
    hash::{BuildHasher, Hasher, RandomState},
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use parking_lot::RwLock;
use resources::{
    AnySpec, Definition, Spec,
    meta::{self, Namespace, ResourceDefinition},
};
use stdx::{Clock, SystemClock};

use crate::{
    change::{Change, Observer},
    collection::Decision,
    collections::Collections,
    error::StateError,
    metadata::{Key, Kind, Metadata, Phase},
    query::Query,
    resource::{AnyResource, Resource},
    watch::{Watch, WatchOptions},
};

/// How a store is made.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Stamps metadata.
    pub clock: Arc<dyn Clock>,
    /// Changes kept for each kind: watches that fall further behind end with an error. The default, 256, covers a burst
    /// of changes to every resource of the largest kinds of a node and costs nothing while unused.
    pub history: usize,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self { clock: Arc::new(SystemClock), history: 256 }
    }
}

/// All resources of a node. Cheap to clone; clones are the same store.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    options: StoreOptions,
    /// Tells bookmarks of this store from those of another, such as the one before a restart.
    epoch: u64,
    seq: AtomicU64,
    collections: Arc<Collections>,
    observers: RwLock<Vec<Weak<dyn Observer>>>,
    definitions: RwLock<HashMap<&'static str, &'static Definition>>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("kinds", &self.inner.collections.len()).finish_non_exhaustive()
    }
}

impl Default for Store {
    fn default() -> Self {
        Self::new()
    }
}

impl Store {
    /// An empty store with the machine's clock.
    #[must_use]
    pub fn new() -> Self {
        Self::with_options(StoreOptions::default())
    }

    /// A store that holds nothing but the definitions of its own two types.
    #[must_use]
    pub fn with_options(options: StoreOptions) -> Self {
        let collections = Arc::new(Collections::new(options.history));
        let store = Self {
            inner: Arc::new(Inner {
                options,
                epoch: RandomState::new().build_hasher().finish(),
                seq: AtomicU64::new(0),
                collections,
                observers: RwLock::default(),
                definitions: RwLock::default(),
            }),
        };
        store.register(&Namespace::DEFINITION);
        store.register(&ResourceDefinition::DEFINITION);
        store
    }

    /// The clock that stamps metadata.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.inner.options.clock
    }

    /// Makes a type known, so that it and its namespace are listed. Twice is once.
    pub fn register(&self, definition: &'static Definition) {
        if self.inner.definitions.write().insert(definition.type_name, definition).is_some() {
            return;
        }
        let id = ResourceDefinition::id(definition.type_name);
        if let Err(error) = self.put(&id, ResourceDefinition(*definition), meta::NAMESPACE) {
            tracing::error!(%error, definition = definition.type_name, "definition was not registered");
        }
        self.register_namespace(definition.namespace);
    }

    /// Makes a namespace known that is no type's own. Twice is once.
    pub fn register_namespace(&self, namespace: &str) {
        let spec = Namespace { description: String::new() };
        if let Err(error) = self.put(namespace, spec, meta::NAMESPACE) {
            tracing::error!(%error, namespace, "namespace was not registered");
        }
    }

    /// Whether a namespace is registered.
    #[must_use]
    pub fn has_namespace(&self, namespace: &str) -> bool {
        self.get_as::<Namespace>(namespace).is_ok_and(|found| found.is_some())
    }

    /// The definition of a registered type.
    #[must_use]
    pub fn definition(&self, type_name: &str) -> Option<&'static Definition> {
        self.inner.definitions.read().get(type_name).copied()
    }

    /// Kinds that hold, or once held, a resource; sorted.
    #[must_use]
    pub fn kinds(&self) -> Vec<Kind> {
        let mut kinds = self.inner.collections.kinds();
        kinds.sort();
        kinds
    }

    /// Tells `observer` every change from now on, as long as it lives.
    pub fn observe(&self, observer: &Arc<dyn Observer>) {
        let mut observers = self.inner.observers.write();
        observers.retain(|known| known.strong_count() > 0);
        observers.push(Arc::downgrade(observer));
    }

    /// One resource.
    ///
    /// # Errors
    /// [`StateError::NotFound`].
    pub fn get(&self, key: &Key) -> Result<AnyResource, StateError> {
        self.inner
            .collections
            .get(&key.kind)
            .and_then(|collection| collection.get(&key.id))
            .ok_or_else(|| StateError::NotFound(key.clone()))
    }

    /// One resource of type `S` in its own namespace; `None` when there is none.
    ///
    /// # Errors
    /// [`StateError::WrongType`] when something else has that name.
    pub fn get_as<S: Spec>(&self, id: &str) -> Result<Option<Resource<S>>, StateError> {
        self.get_as_in(S::DEFINITION.namespace, id)
    }

    /// [`get_as`](Self::get_as) in another namespace.
    ///
    /// # Errors
    /// [`StateError::WrongType`] when something else has that name.
    pub fn get_as_in<S: Spec>(&self, namespace: &str, id: &str) -> Result<Option<Resource<S>>, StateError> {
        self.inner
            .collections
            .get(&Kind::of_in::<S>(namespace))
            .and_then(|collection| collection.get(id))
            .map(|resource| resource.typed())
            .transpose()
    }

    /// The resources of a kind that match `query`, by id.
    #[must_use]
    pub fn list(&self, kind: &Kind, query: &Query) -> Vec<AnyResource> {
        self.inner.collections.get(kind).map_or_else(Vec::new, |collection| {
            collection.read(|data| data.items().filter(|item| query.matches(&item.metadata)).cloned().collect())
        })
    }

    /// All resources of type `S` in its own namespace, by id.
    ///
    /// # Errors
    /// [`StateError::WrongType`] when something else has such a name.
    pub fn list_as<S: Spec>(&self) -> Result<Vec<Resource<S>>, StateError> {
        self.list_as_in(S::DEFINITION.namespace)
    }

    /// [`list_as`](Self::list_as) in another namespace.
    ///
    /// # Errors
    /// [`StateError::WrongType`] when something else has such a name.
    pub fn list_as_in<S: Spec>(&self, namespace: &str) -> Result<Vec<Resource<S>>, StateError> {
        self.list(&Kind::of_in::<S>(namespace), &Query::default()).iter().map(AnyResource::typed).collect()
    }

    /// Adds a resource. Of `metadata`, names, labels, annotations and finalizers count.
    ///
    /// # Errors
    /// [`StateError::AlreadyExists`], [`StateError::WrongType`], [`StateError::InvalidName`].
    pub fn create(&self, metadata: Metadata, spec: Arc<dyn AnySpec>, owner: &str) -> Result<AnyResource, StateError> {
        let key = metadata.key();
        self.check_name(&key, &*spec)?;
        self.write(&key, |current, now| match current {
            Some(_) => Err(StateError::AlreadyExists(key.clone())),
            None => Ok(Decision::Put(created(metadata, spec, owner, now))),
        })
    }

    /// Replaces spec, labels, annotations, finalizers and phase of a resource whose version is that of `metadata`.
    /// `expected_phase` is the required phase in the store; `None` accepts any.
    ///
    /// # Errors
    /// [`StateError::NotFound`], the conflicts of version, owner and phase, [`StateError::WrongType`].
    pub fn update(
        &self,
        metadata: Metadata,
        spec: Arc<dyn AnySpec>,
        owner: &str,
        expected_phase: Option<Phase>,
    ) -> Result<AnyResource, StateError> {
        let key = metadata.key();
        self.check_name(&key, &*spec)?;
        self.write_existing(&key, |current, now| {
            owned(&key, current, owner)?;
            if let Some(expected) = expected_phase {
                in_phase(&key, current, expected)?;
            }
            if current.metadata.version != metadata.version {
                let (expected, actual) = (metadata.version, current.metadata.version);
                return Err(StateError::VersionConflict { key: key.clone(), expected, actual });
            }
            Ok(changed(current, metadata, spec, now))
        })
    }

    /// Creates or updates the resource `id` of type `S` in its own namespace; labels and finalizers stay as they are.
    ///
    /// # Errors
    /// [`StateError::OwnerConflict`], and [`StateError::PhaseConflict`] while it is being torn down.
    pub fn put<S: Spec>(&self, id: &str, spec: S, owner: &str) -> Result<Resource<S>, StateError> {
        self.put_in(S::DEFINITION.namespace, id, spec, owner)
    }

    /// [`put`](Self::put) in another namespace.
    ///
    /// # Errors
    /// [`StateError::OwnerConflict`], and [`StateError::PhaseConflict`] while it is being torn down.
    pub fn put_in<S: Spec>(&self, namespace: &str, id: &str, spec: S, owner: &str) -> Result<Resource<S>, StateError> {
        self.modify_in(namespace, id, owner, |_| spec)
    }

    /// Creates or updates like [`put_in`](Self::put_in), from what is there now. Nothing comes between reading and
    /// writing; `f` must not call the store.
    ///
    /// # Errors
    /// [`StateError::OwnerConflict`], and [`StateError::PhaseConflict`] while it is being torn down.
    pub fn modify_in<S: Spec>(
        &self,
        namespace: &str,
        id: &str,
        owner: &str,
        f: impl FnOnce(Option<&S>) -> S,
    ) -> Result<Resource<S>, StateError> {
        let key = Kind::of_in::<S>(namespace).key(id);
        valid_name(&key)?;
        self.write(&key, |current, now| {
            let Some(current) = current else {
                return Ok(Decision::Put(created(Metadata::new(&key.kind, id), Arc::new(f(None)), owner, now)));
            };
            owned(&key, current, owner)?;
            in_phase(&key, current, Phase::Running)?;
            let spec = f(current.spec.as_any().downcast_ref::<S>());
            Ok(changed(current, (*current.metadata).clone(), Arc::new(spec), now))
        })?
        .typed()
    }

    /// Starts the teardown of a resource. True if it has no finalizers, so that it can be destroyed.
    ///
    /// # Errors
    /// [`StateError::NotFound`], [`StateError::OwnerConflict`].
    pub fn teardown(&self, key: &Key, owner: &str) -> Result<bool, StateError> {
        let resource = self.write_existing(key, |current, now| {
            owned(key, current, owner)?;
            let metadata = Metadata { phase: Phase::TearingDown, ..(*current.metadata).clone() };
            Ok(changed(current, metadata, Arc::clone(&current.spec), now))
        })?;
        Ok(resource.metadata.is_destroy_ready())
    }

    /// Removes a resource without finalizers, in any phase.
    ///
    /// # Errors
    /// [`StateError::NotFound`], [`StateError::OwnerConflict`], [`StateError::PendingFinalizers`].
    pub fn destroy(&self, key: &Key, owner: &str) -> Result<(), StateError> {
        self.write_existing(key, |current, _| {
            owned(key, current, owner)?;
            if current.metadata.finalizers.is_empty() {
                return Ok(Decision::Remove(current.clone()));
            }
            Err(StateError::PendingFinalizers { key: key.clone(), finalizers: current.metadata.finalizers.clone() })
        })
        .map(drop)
    }

    /// Adds a finalizer to a running resource. Idempotent.
    ///
    /// # Errors
    /// [`StateError::NotFound`], and [`StateError::PhaseConflict`] when it is already going.
    pub fn add_finalizer(&self, key: &Key, finalizer: &str) -> Result<AnyResource, StateError> {
        self.write_existing(key, |current, now| {
            if current.metadata.finalizers.iter().any(|held| held == finalizer) {
                return Ok(Decision::Keep(current.clone()));
            }
            in_phase(key, current, Phase::Running)?;
            let mut metadata = (*current.metadata).clone();
            metadata.finalizers.push(finalizer.to_owned());
            Ok(changed(current, metadata, Arc::clone(&current.spec), now))
        })
    }

    /// Removes a finalizer, in any phase. Removing an absent one changes nothing.
    ///
    /// # Errors
    /// [`StateError::NotFound`].
    pub fn remove_finalizer(&self, key: &Key, finalizer: &str) -> Result<AnyResource, StateError> {
        self.write_existing(key, |current, now| {
            let mut metadata = (*current.metadata).clone();
            metadata.finalizers.retain(|held| held != finalizer);
            Ok(changed(current, metadata, Arc::clone(&current.spec), now))
        })
    }

    /// Follows one resource: first what it is now (`Destroyed` without a resource where it is not), then each change,
    /// unless `options` start elsewhere.
    ///
    /// # Errors
    /// [`StateError::HistoryLost`] and [`StateError::InvalidBookmark`] for a start that cannot be.
    pub fn watch(&self, key: &Key, options: WatchOptions) -> Result<Watch, StateError> {
        Watch::new(&self.inner.collections, &key.kind, Some(key.id.clone()), options, self.inner.epoch)
    }

    /// Follows a kind: each change from now on, unless `options` start elsewhere.
    ///
    /// # Errors
    /// [`StateError::HistoryLost`] and [`StateError::InvalidBookmark`] for a start that cannot be.
    pub fn watch_kind(&self, kind: &Kind, options: WatchOptions) -> Result<Watch, StateError> {
        Watch::new(&self.inner.collections, kind, None, options, self.inner.epoch)
    }

    fn check_name(&self, key: &Key, spec: &dyn AnySpec) -> Result<(), StateError> {
        valid_name(key)?;
        let actual = spec.definition().type_name;
        if actual == key.kind.type_name {
            return Ok(());
        }
        Err(StateError::WrongType { key: key.clone(), actual: actual.to_owned() })
    }

    /// Writes a resource that may be new.
    fn write(
        &self,
        key: &Key,
        decide: impl FnOnce(Option<&AnyResource>, SystemTime) -> Result<Decision, StateError>,
    ) -> Result<AnyResource, StateError> {
        let now = self.inner.options.clock.now();
        self.inner.collections.get_or_create(&key.kind).write(
            &key.id,
            |current| decide(current, now),
            |kind, resource, old| {
                let seq = self.inner.seq.fetch_add(1, Ordering::Relaxed) + 1;
                let change = Arc::new(Change { seq, kind, resource, old, at: now, superseded: false });
                for observer in self.inner.observers.read().iter().filter_map(Weak::upgrade) {
                    observer.changed(&change);
                }
                change
            },
        )
    }

    /// Writes a resource that must be there.
    fn write_existing(
        &self,
        key: &Key,
        decide: impl FnOnce(&AnyResource, SystemTime) -> Result<Decision, StateError>,
    ) -> Result<AnyResource, StateError> {
        let missing = || StateError::NotFound(key.clone());
        if self.inner.collections.get(&key.kind).is_none() {
            return Err(missing());
        }
        self.write(key, |current, now| decide(current.ok_or_else(missing)?, now))
    }
}

fn valid_name(key: &Key) -> Result<(), StateError> {
    let Kind { namespace, type_name } = &key.kind;
    let fits = |part: &str, most: usize| !part.is_empty() && part.len() <= most;
    if fits(namespace, Kind::MAX_PART) && fits(type_name, Kind::MAX_PART) && fits(&key.id, Key::MAX_ID) {
        return Ok(());
    }
    Err(StateError::InvalidName(key.clone()))
}

fn created(metadata: Metadata, spec: Arc<dyn AnySpec>, owner: &str, now: SystemTime) -> AnyResource {
    let metadata =
        Metadata { version: 1, owner: owner.to_owned(), phase: Phase::Running, created: now, updated: now, ..metadata };
    AnyResource { metadata: Arc::new(metadata), spec }
}

/// `current` with the changeable parts of `metadata` and with `spec`.
fn changed(current: &AnyResource, metadata: Metadata, spec: Arc<dyn AnySpec>, now: SystemTime) -> Decision {
    let metadata = Metadata {
        phase: metadata.phase,
        finalizers: metadata.finalizers,
        labels: metadata.labels,
        annotations: metadata.annotations,
        ..(*current.metadata).clone()
    };
    if metadata == *current.metadata && spec.same(&*current.spec) {
        return Decision::Keep(current.clone());
    }
    let metadata = Metadata { version: metadata.version + 1, updated: now, ..metadata };
    Decision::Put(AnyResource { metadata: Arc::new(metadata), spec })
}

fn owned(key: &Key, current: &AnyResource, owner: &str) -> Result<(), StateError> {
    if current.metadata.owner == owner {
        return Ok(());
    }
    let actual = current.metadata.owner.clone();
    Err(StateError::OwnerConflict { key: key.clone(), expected: owner.to_owned(), actual })
}

fn in_phase(key: &Key, current: &AnyResource, expected: Phase) -> Result<(), StateError> {
    let actual = current.metadata.phase;
    if actual == expected {
        return Ok(());
    }
    Err(StateError::PhaseConflict { key: key.clone(), expected, actual })
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod watch_tests;
