//! etcd, seen from a node: members, status, health, and a lock that ends with its holder.
//!
//! It never starts etcd. [`NodeEtcd`] is the way to the member on this node; everything else knows nothing about where
//! certificates come from.

mod client;
mod error;
#[cfg(feature = "testing")]
pub mod fake;
pub mod health;
mod leave;
mod lock;
pub mod membership;
mod node;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use stdx::Secret;

pub use client::EtcdConnector;
pub use error::EtcdError;
pub use leave::{AwayError, LeaveError, can_be_away, can_leave, leave};
pub use lock::{LOCK_TTL, Lock, LockGuard, with_lock};
pub use node::{
    ClusterLock, GoAwayError, LOCAL_ENDPOINT, LockError, Locked, NodeEtcd, NodeEtcdError, UPGRADE_LOCK, node_tls,
};

/// The id of a member, which people write in hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(pub u64);

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A member of the etcd cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: MemberId,
    /// Its name; empty until it has started.
    pub name: String,
    /// Where other members reach it.
    pub peer_urls: Vec<String>,
    /// Where clients reach it; empty until it has started.
    pub client_urls: Vec<String>,
    /// Receives the log but does not vote yet.
    pub is_learner: bool,
}

/// How a member is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberStatus {
    /// The member that answered.
    pub id: MemberId,
    /// Its version of etcd.
    pub version: String,
    /// The leader that it sees; none during an election.
    pub leader: Option<MemberId>,
    /// Size of its database file in bytes.
    pub db_size: i64,
    /// Bytes of that in use.
    pub db_size_in_use: i64,
    /// The log index that it has.
    pub raft_index: u64,
    /// The election term.
    pub raft_term: u64,
    /// The log index that it has applied.
    pub raft_applied_index: u64,
    /// Receives the log but does not vote yet.
    pub is_learner: bool,
    /// Reported problems, such as alarms.
    pub errors: Vec<String>,
}

/// TLS credentials of an etcd client. All PEM.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The authority of the servers.
    pub ca: Vec<u8>,
    /// The client's certificate.
    pub crt: Vec<u8>,
    /// Its key.
    pub key: Secret<Vec<u8>>,
}

/// A connection to an etcd cluster.
#[async_trait]
pub trait Etcd: fmt::Debug + Send + Sync + 'static {
    /// All members, as the leader knows them.
    ///
    /// # Errors
    /// [`EtcdError`]; also where there is no leader.
    async fn members(&self) -> Result<Vec<Member>, EtcdError>;

    /// Adds a member that does not vote yet.
    ///
    /// # Errors
    /// [`EtcdError::PeerExists`] where a member has one of these URLs.
    async fn add_learner(&self, peer_urls: &[String]) -> Result<Member, EtcdError>;

    /// Lets a learner vote.
    ///
    /// # Errors
    /// [`EtcdError::LearnerNotReady`] while it is behind; [`EtcdError::MemberNotFound`].
    async fn promote(&self, id: MemberId) -> Result<(), EtcdError>;

    /// Removes a member.
    ///
    /// # Errors
    /// [`EtcdError::MemberNotFound`].
    async fn remove(&self, id: MemberId) -> Result<(), EtcdError>;

    /// Changes where other members reach a member.
    ///
    /// # Errors
    /// [`EtcdError::MemberNotFound`].
    async fn update_peers(&self, id: MemberId, peer_urls: &[String]) -> Result<(), EtcdError>;

    /// How the member that answers is doing.
    ///
    /// # Errors
    /// [`EtcdError`].
    async fn status(&self) -> Result<MemberStatus, EtcdError>;

    /// Asks for something that only a quorum can answer, such as a read of the latest state.
    ///
    /// # Errors
    /// [`EtcdError`] where no quorum answers in time; also of a learner.
    async fn confirm_quorum(&self) -> Result<(), EtcdError>;

    /// Takes the lock `key`, waiting at most `wait`. It is held until the guard is released or dropped, or, when this
    /// process dies or cannot reach etcd, until `ttl` has passed, which the guard then says.
    ///
    /// # Errors
    /// [`EtcdError::LockTimeout`] if another client held it throughout.
    async fn lock(&self, key: &str, ttl: Duration, wait: Duration) -> Result<LockGuard, EtcdError>;
}

/// Makes connections.
#[async_trait]
pub trait Connector: fmt::Debug + Send + Sync + 'static {
    /// Connects to any of `endpoints` (`https://10.5.0.2:2379`). Each request has its own deadline; an endpoint that
    /// does not answer is found out by the first request.
    ///
    /// # Errors
    /// [`EtcdError::Connect`] for endpoints or certificates that cannot be used.
    async fn connect(&self, endpoints: &[String], tls: &Tls) -> Result<Arc<dyn Etcd>, EtcdError>;
}
