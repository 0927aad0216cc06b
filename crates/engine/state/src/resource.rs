//! A resource: metadata and spec.

use std::{ops::Deref, sync::Arc};

use resources::{AnySpec, Spec};

use crate::{
    error::StateError,
    metadata::{Key, Kind, Metadata},
};

/// A resource of any type. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AnyResource {
    /// Its metadata.
    pub metadata: Arc<Metadata>,
    /// Its desired or observed state.
    pub spec: Arc<dyn AnySpec>,
}

impl AnyResource {
    /// The full name.
    #[must_use]
    pub fn key(&self) -> Key {
        self.metadata.key()
    }

    /// The typed view.
    ///
    /// # Errors
    /// [`StateError::WrongType`] when the spec is not an `S`.
    pub fn typed<S: Spec>(&self) -> Result<Resource<S>, StateError> {
        match Arc::clone(&self.spec).into_any().downcast::<S>() {
            Ok(spec) => Ok(Resource { metadata: Arc::clone(&self.metadata), spec }),
            Err(_) => Err(StateError::WrongType {
                key: Kind::of_in::<S>(self.metadata.namespace.clone()).key(self.metadata.id.clone()),
                actual: self.spec.definition().type_name.to_owned(),
            }),
        }
    }
}

impl PartialEq for AnyResource {
    fn eq(&self, other: &Self) -> bool {
        self.metadata == other.metadata && self.spec.same(&*other.spec)
    }
}

/// A resource of type `S`: has [`metadata`](Self::metadata), derefs to the spec. Cheap to clone.
#[derive(Debug, PartialEq)]
pub struct Resource<S> {
    /// Its metadata.
    pub metadata: Arc<Metadata>,
    /// Its desired or observed state.
    pub spec: Arc<S>,
}

impl<S> Resource<S> {
    /// The id within namespace and type.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.metadata.id
    }
}

impl<S> Clone for Resource<S> {
    fn clone(&self) -> Self {
        Self { metadata: Arc::clone(&self.metadata), spec: Arc::clone(&self.spec) }
    }
}

impl<S> Deref for Resource<S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.spec
    }
}
