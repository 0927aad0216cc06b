//! Why etcd could not do it.

use std::time::Duration;

use crate::MemberId;

/// Why a request to etcd failed.
#[derive(Debug, thiserror::Error)]
pub enum EtcdError {
    /// Endpoints or certificates that cannot be used.
    #[error("connecting to etcd at {}", .endpoints.join(", "))]
    Connect {
        /// Where.
        endpoints: Vec<String>,
        /// Why.
        #[source]
        source: Box<etcd_client::Error>,
    },
    /// No response, or an unclassified error.
    #[error("{operation}")]
    Request {
        /// The operation.
        operation: &'static str,
        /// Why.
        #[source]
        source: Box<etcd_client::Error>,
    },
    /// Timeout.
    #[error("{operation}: no answer within {}", stdx::duration::format(*.after))]
    Timeout {
        /// The operation.
        operation: &'static str,
        /// How long was waited.
        after: Duration,
    },
    /// An answer without its content.
    #[error("{operation}: answer is incomplete")]
    Incomplete {
        /// The operation.
        operation: &'static str,
    },
    /// A member has this peer URL.
    #[error("an etcd member with peer URL {} exists", .0.join(", "))]
    PeerExists(Vec<String>),
    /// There is no such member.
    #[error("etcd has no member {0}")]
    MemberNotFound(MemberId),
    /// The learner has not caught up with the leader.
    #[error("etcd learner {0} is not in sync with the leader yet")]
    LearnerNotReady(MemberId),
    /// The lock was held and is not any more.
    #[error("lock {key} was lost")]
    LockLost {
        /// The lock.
        key: String,
    },
    /// Another client holds the lock.
    #[error("lock {key} was not free within {}", stdx::duration::format(*.after))]
    LockTimeout {
        /// The lock.
        key: String,
        /// How long was waited.
        after: Duration,
    },
}

impl EtcdError {
    /// Whether the same request may succeed later.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::Request { .. }
                | Self::Timeout { .. }
                | Self::LearnerNotReady(_)
                | Self::LockLost { .. }
                | Self::LockTimeout { .. }
        )
    }
}
