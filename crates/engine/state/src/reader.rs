//! Reading a store, local or remote: the API's interface, and the subject of the conformance suite.

use std::error::Error;

use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt};

use crate::{
    error::StateError,
    metadata::{Key, Kind, Metadata},
    query::Query,
    resource::AnyResource,
    store::Store,
    watch::{Bookmark, Event, EventKind, WatchOptions},
};

/// A resource as it looks on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Untyped {
    /// Its metadata.
    pub metadata: Metadata,
    /// The spec as YAML text.
    pub yaml: String,
    /// The spec as protobuf; empty where the type has none.
    pub proto: Vec<u8>,
}

/// An event as it looks on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadEvent {
    /// Type of event.
    pub kind: EventKind,
    /// The resource; as it last was when destroyed.
    pub resource: Option<Untyped>,
    /// Before an update.
    pub old: Option<Untyped>,
    /// Where to resume after this event.
    pub bookmark: Option<Bookmark>,
}

/// Events until the first error.
pub type ReadEvents = BoxStream<'static, Result<ReadEvent, ReadError>>;

/// Why reading failed.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// There is no such resource.
    #[error("resource {0} does not exist")]
    NotFound(Key),
    /// The events that the watch needs are no longer kept: list again and start a new watch.
    #[error("history of {0} no longer reaches back to where the watch is")]
    HistoryLost(Kind),
    /// The request makes no sense, such as a bookmark of another store.
    #[error("reading {kind}: {reason}")]
    InvalidRequest {
        /// The kind or resource.
        kind: Kind,
        /// The problem.
        reason: String,
    },
    /// The store cannot be reached or refused.
    #[error("reading {kind}")]
    Unavailable {
        /// The kind or resource.
        kind: Kind,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

impl ReadError {
    fn new(kind: &Kind, error: StateError) -> Self {
        match error {
            StateError::NotFound(key) => Self::NotFound(key),
            StateError::HistoryLost(kind) => Self::HistoryLost(kind),
            error => Self::InvalidRequest { kind: kind.clone(), reason: error.to_string() },
        }
    }
}

/// Reads resources without knowing their types.
#[async_trait]
pub trait Reader: Send + Sync {
    /// One resource.
    ///
    /// # Errors
    /// [`ReadError::NotFound`] where it is not.
    async fn get(&self, key: &Key) -> Result<Untyped, ReadError>;

    /// The resources of a kind that match `query`, by id.
    ///
    /// # Errors
    /// [`ReadError`] for a remote store.
    async fn list(&self, kind: &Kind, query: &Query) -> Result<Vec<Untyped>, ReadError>;

    /// Follows a kind, or one resource of it. Returns when the watch is in place: changes after that are seen.
    ///
    /// # Errors
    /// [`ReadError::HistoryLost`] and [`ReadError::InvalidRequest`] for a start that cannot be.
    async fn watch(&self, kind: &Kind, id: Option<&str>, options: WatchOptions) -> Result<ReadEvents, ReadError>;
}

impl From<&AnyResource> for Untyped {
    fn from(resource: &AnyResource) -> Self {
        Self { metadata: (*resource.metadata).clone(), yaml: resource.spec.yaml(), proto: resource.spec.proto() }
    }
}

impl From<&Event> for ReadEvent {
    fn from(event: &Event) -> Self {
        Self {
            kind: event.kind,
            resource: event.resource.as_ref().map(Untyped::from),
            old: event.old.as_ref().map(Untyped::from),
            bookmark: event.bookmark.clone(),
        }
    }
}

#[async_trait]
impl Reader for Store {
    async fn get(&self, key: &Key) -> Result<Untyped, ReadError> {
        Self::get(self, key).map(|resource| Untyped::from(&resource)).map_err(|e| ReadError::new(&key.kind, e))
    }

    async fn list(&self, kind: &Kind, query: &Query) -> Result<Vec<Untyped>, ReadError> {
        Ok(Self::list(self, kind, query).iter().map(Untyped::from).collect())
    }

    async fn watch(&self, kind: &Kind, id: Option<&str>, options: WatchOptions) -> Result<ReadEvents, ReadError> {
        let watch = match id {
            Some(id) => Self::watch(self, &kind.key(id), options),
            None => self.watch_kind(kind, options),
        };
        let watch = watch.map_err(|e| ReadError::new(kind, e))?;
        let kind = kind.clone();
        Ok(stream::unfold(Some((watch, kind)), |state| async move {
            let (mut watch, kind) = state?;
            match watch.next().await {
                Ok(event) => Some((Ok(ReadEvent::from(&event)), Some((watch, kind)))),
                Err(error) => Some((Err(ReadError::new(&kind, error)), None)),
            }
        })
        .boxed())
    }
}
