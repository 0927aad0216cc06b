//! Why the store refused.

use crate::metadata::{Key, Kind, Phase};

/// Why the store refused to read or write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// There is no such resource.
    #[error("resource {0} does not exist")]
    NotFound(Key),
    /// A resource of that name exists.
    #[error("resource {0} already exists")]
    AlreadyExists(Key),
    /// It changed since it was read.
    #[error("resource {key} has version {actual}, not {expected}")]
    VersionConflict {
        /// The resource.
        key: Key,
        /// The version read by the writer.
        expected: u64,
        /// The version in the store.
        actual: u64,
    },
    /// It has another owner.
    #[error("resource {key} is owned by {actual:?}, not by {expected:?}")]
    OwnerConflict {
        /// The resource.
        key: Key,
        /// The writer.
        expected: String,
        /// The owner in the store.
        actual: String,
    },
    /// It is in another phase than the write needs.
    #[error("resource {key} is {actual}, not {expected}")]
    PhaseConflict {
        /// The resource.
        key: Key,
        /// The phase that the write needs.
        expected: Phase,
        /// The phase in the store.
        actual: Phase,
    },
    /// It cannot be destroyed yet.
    #[error("resource {key} is held by finalizers {}", .finalizers.join(", "))]
    PendingFinalizers {
        /// The resource.
        key: Key,
        /// The finalizers.
        finalizers: Vec<String>,
    },
    /// The spec's type differs from the name's.
    #[error("resource {key} is of type {actual}")]
    WrongType {
        /// The resource.
        key: Key,
        /// The type of the spec.
        actual: String,
    },
    /// A namespace, type or id that is empty or longer than [`Kind::MAX_PART`] or [`Key::MAX_ID`].
    #[error("resource name {0} has a part that is empty or too long")]
    InvalidName(Key),
    /// The events that the watch needs are no longer kept: list again and start a new watch.
    #[error("history of {0} no longer reaches back to where the watch is")]
    HistoryLost(Kind),
    /// The bookmark was not given by this store.
    #[error("bookmark for {0} is not of this store")]
    InvalidBookmark(Kind),
    /// A regular expression for ids that does not compile.
    #[error("id pattern {pattern:?}: {reason}")]
    InvalidPattern {
        /// The expression.
        pattern: String,
        /// The error in it.
        reason: String,
    },
}

impl StateError {
    /// Whether an immediate retry after reading again can help.
    #[must_use]
    pub const fn is_conflict(&self) -> bool {
        matches!(
            self,
            Self::AlreadyExists(_)
                | Self::VersionConflict { .. }
                | Self::OwnerConflict { .. }
                | Self::PhaseConflict { .. }
                | Self::PendingFinalizers { .. }
        )
    }
}
