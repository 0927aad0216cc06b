//! The store: every resource of a node with its metadata, its history and watches.
//!
//! It keeps resources in memory and checks each write; it knows no concrete type, runs no task and persists nothing.
//! [`Reader`] is the read interface of the store, local or remote; the suite in `conformance` (feature `testing`)
//! verifies every implementation.

mod change;
mod collection;
mod collections;
#[cfg(feature = "testing")]
pub mod conformance;
mod error;
mod metadata;
mod query;
mod reader;
mod redacted;
mod resource;
mod store;
mod watch;

pub use change::{Change, ChangeKind, Observer};
pub use error::StateError;
pub use metadata::{Key, Kind, Metadata, Phase};
pub use query::{LabelOp, LabelQuery, LabelTerm, Query};
pub use reader::{ReadError, ReadEvent, ReadEvents, Reader, Untyped};
pub use resource::{AnyResource, Resource};
pub use store::{Store, StoreOptions};
pub use watch::{Bookmark, Event, EventKind, Start, Watch, WatchOptions};
