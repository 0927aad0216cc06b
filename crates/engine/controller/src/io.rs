//! Declarations of inputs and outputs.

use resources::{Definition, Spec};
use state::{Key, Kind};

/// Strength of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Strength {
    /// Reads it; wakes on each change.
    Weak,
    /// Additionally may hold it with a finalizer.
    Strong,
    /// Reads it; wakes only when it is tearing down and not held.
    DestroyReady,
}

/// An input: a kind, or one resource of it.
#[derive(Clone, Debug)]
pub struct Input {
    pub(crate) definition: &'static Definition,
    pub(crate) kind: Kind,
    pub(crate) id: Option<String>,
    pub(crate) strength: Strength,
}

impl Input {
    fn new<S: Spec>(strength: Strength) -> Self {
        Self { definition: &S::DEFINITION, kind: Kind::of::<S>(), id: None, strength }
    }

    /// Reads all `S` of its own namespace.
    #[must_use]
    pub fn weak<S: Spec>() -> Self {
        Self::new::<S>(Strength::Weak)
    }

    /// Reads all `S` of its own namespace and may hold them with finalizers.
    #[must_use]
    pub fn strong<S: Spec>() -> Self {
        Self::new::<S>(Strength::Strong)
    }

    /// Wakes when an `S` of its own namespace may be destroyed.
    #[must_use]
    pub fn destroy_ready<S: Spec>() -> Self {
        Self::new::<S>(Strength::DestroyReady)
    }

    /// Only the resource of that id.
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// In a namespace other than the type's.
    #[must_use]
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.kind.namespace = namespace.into();
        self
    }

    pub(crate) fn same(&self, other: &Self) -> bool {
        self.covers_same(other) && self.strength == other.strength
    }

    pub(crate) fn covers_same(&self, other: &Self) -> bool {
        self.kind == other.kind && self.id == other.id
    }

    pub(crate) fn covers(&self, key: &Key) -> bool {
        self.kind == key.kind && self.id.as_ref().is_none_or(|id| *id == key.id)
    }
}

/// Whether others may write the type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OutputMode {
    /// Only this controller writes the type.
    Exclusive,
    /// Several controllers write it, each its own resources.
    Shared,
}

/// A type that a controller writes, in any namespace.
#[derive(Clone, Debug)]
pub struct Output {
    pub(crate) definition: &'static Definition,
    pub(crate) mode: OutputMode,
}

impl Output {
    /// Only this controller writes `S`.
    #[must_use]
    pub fn exclusive<S: Spec>() -> Self {
        Self { definition: &S::DEFINITION, mode: OutputMode::Exclusive }
    }

    /// This controller is one of those that write `S`.
    #[must_use]
    pub fn shared<S: Spec>() -> Self {
        Self { definition: &S::DEFINITION, mode: OutputMode::Shared }
    }
}
