//! Names and metadata of resources.

use std::{collections::BTreeMap, fmt, time::SystemTime};

use resources::{AnySpec, Spec};

/// A type in a namespace: the range of lists and watches.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind {
    /// The namespace.
    pub namespace: String,
    /// The full type: `Members.cluster.talos.dev`.
    pub type_name: String,
}

impl Kind {
    /// The longest namespace, and the longest type, in bytes.
    pub const MAX_PART: usize = 256;

    /// The kind of that namespace and type.
    pub fn new(namespace: impl Into<String>, type_name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), type_name: type_name.into() }
    }

    /// `S` in its own namespace.
    #[must_use]
    pub fn of<S: Spec>() -> Self {
        Self::new(S::DEFINITION.namespace, S::DEFINITION.type_name)
    }

    /// `S` in another namespace.
    pub fn of_in<S: Spec>(namespace: impl Into<String>) -> Self {
        Self::new(namespace, S::DEFINITION.type_name)
    }

    /// The resource of this kind with that id.
    pub fn key(&self, id: impl Into<String>) -> Key {
        Key { kind: self.clone(), id: id.into() }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.type_name)
    }
}

/// The full name of one resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Namespace and type.
    pub kind: Kind,
    /// The id within the kind.
    pub id: String,
}

impl Key {
    /// The longest id, in bytes: that of a path, which some ids are.
    pub const MAX_ID: usize = 4096;

    /// The resource `id` of type `S` in its own namespace.
    pub fn of<S: Spec>(id: impl Into<String>) -> Self {
        Kind::of::<S>().key(id)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.id)
    }
}

/// Whether a resource is here to stay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Phase {
    /// In use.
    #[default]
    Running,
    /// Being torn down; destroyed after the last finalizer is removed.
    TearingDown,
}

impl Phase {
    /// The name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::TearingDown => "tearingDown",
        }
    }

    /// The phase of that name on the wire.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "running" => Some(Self::Running),
            "tearingDown" => Some(Self::TearingDown),
            _ => None,
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Metadata of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// The namespace.
    pub namespace: String,
    /// The full type.
    pub type_name: String,
    /// The id within namespace and type.
    pub id: String,
    /// 1 when created, one more after each change; a decimal string on the wire. 0: not in a store.
    pub version: u64,
    /// The controller that owns it; empty without an owner.
    pub owner: String,
    /// Running or tearing down.
    pub phase: Phase,
    /// When it was created.
    pub created: SystemTime,
    /// When it last changed.
    pub updated: SystemTime,
    /// Finalizers, in order of arrival.
    pub finalizers: Vec<String>,
    /// For queries.
    pub labels: BTreeMap<String, String>,
    /// For people.
    pub annotations: BTreeMap<String, String>,
}

impl Metadata {
    /// Metadata of a resource that is in no store yet.
    pub fn new(kind: &Kind, id: impl Into<String>) -> Self {
        Self {
            namespace: kind.namespace.clone(),
            type_name: kind.type_name.clone(),
            id: id.into(),
            version: 0,
            owner: String::new(),
            phase: Phase::Running,
            created: SystemTime::UNIX_EPOCH,
            updated: SystemTime::UNIX_EPOCH,
            finalizers: Vec::new(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
        }
    }

    /// Metadata for `spec` in its own namespace, in no store yet.
    pub fn for_spec(spec: &dyn AnySpec, id: impl Into<String>) -> Self {
        let definition = spec.definition();
        Self::new(&Kind::new(definition.namespace, definition.type_name), id)
    }

    /// Namespace and type.
    #[must_use]
    pub fn kind(&self) -> Kind {
        Kind::new(self.namespace.clone(), self.type_name.clone())
    }

    /// The full name.
    #[must_use]
    pub fn key(&self) -> Key {
        Key { kind: self.kind(), id: self.id.clone() }
    }

    /// Tearing down without finalizers: its owner may destroy it now.
    #[must_use]
    pub fn is_destroy_ready(&self) -> bool {
        self.phase == Phase::TearingDown && self.finalizers.is_empty()
    }
}
