//! etcd on this node, reached with the certificates that the node's store holds.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use resources::secrets::{EtcdRootSecret, EtcdSecrets};
use state::{StateError, Store};
use stdx::Secret;
use tokio::sync::Mutex;

use crate::health::UnhealthyError;
use crate::{AwayError, Connector, Etcd, EtcdError, LOCK_TTL, LockGuard, Member, Tls, can_be_away, health};

/// Where etcd on this node answers.
pub const LOCAL_ENDPOINT: &str = "https://127.0.0.1:2379";
/// The lock of the control plane that goes away for an upgrade (Talos 1.7).
pub const UPGRADE_LOCK: &str = "talos:v1:etcdUpgradeMutex";
/// How long the lock is waited for: that of a node that died is free then.
const UPGRADE_WAIT: Duration = Duration::from_secs(15);
/// How long the other members may take to show that they are healthy (Talos 1.7).
const HEALTHY: Duration = Duration::from_secs(15);

/// Why etcd on this node cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum NodeEtcdError {
    /// The node has no certificate for it.
    #[error("this node has no certificate for etcd: it is not a control plane, or not configured yet")]
    NoCertificate,
    /// etcd refused, or does not answer.
    #[error(transparent)]
    Etcd(#[from] EtcdError),
    /// The certificates cannot be read.
    #[error(transparent)]
    State(#[from] StateError),
}

/// Why this node does not go away.
#[derive(Debug, thiserror::Error)]
pub enum GoAwayError {
    /// The cluster cannot do without its member.
    #[error(transparent)]
    Needed(#[from] AwayError),
    #[error("the member {name} of etcd is not healthy")]
    Unhealthy {
        name: String,
        #[source]
        source: UnhealthyError,
    },
    #[error("the member {0} of etcd does not answer")]
    Silent(String),
    /// Another node holds the lock.
    #[error("another control plane is away, or about to be")]
    OneIsAway,
    #[error(transparent)]
    Node(#[from] NodeEtcdError),
}

/// What a client of etcd on this node shows and trusts; `None` while a part is missing.
#[must_use]
pub fn node_tls(root: &EtcdRootSecret, secrets: &EtcdSecrets) -> Option<Tls> {
    let (ca, admin) = (root.etcd_ca.as_ref()?, secrets.etcd_admin.as_ref()?);
    Some(Tls { ca: ca.crt.0.clone(), crt: admin.crt.0.clone(), key: Secret::new(admin.key.0.clone()) })
}

/// A client, and the versions of the certificates that it was made with.
#[derive(Debug)]
struct Connected {
    versions: (u64, u64),
    etcd: Arc<dyn Etcd>,
}

/// The way to etcd on this node. One connection is kept, and replaced when the certificates change. Clones share it.
#[derive(Clone, Debug)]
pub struct NodeEtcd {
    store: Store,
    connector: Arc<dyn Connector>,
    connected: Arc<Mutex<Option<Connected>>>,
}

impl NodeEtcd {
    /// Reads certificates from `store`, and connects by `connector`.
    #[must_use]
    pub fn new(store: Store, connector: Arc<dyn Connector>) -> Self {
        Self { store, connector, connected: Arc::default() }
    }

    /// A client of the member on this node.
    ///
    /// # Errors
    /// [`NodeEtcdError`]; whether etcd answers is found out by the first request.
    pub async fn client(&self) -> Result<Arc<dyn Etcd>, NodeEtcdError> {
        let (versions, tls) = self.tls()?;
        let mut connected = self.connected.lock().await;
        if let Some(known) = connected.as_ref().filter(|known| known.versions == versions) {
            return Ok(Arc::clone(&known.etcd));
        }
        let etcd = self.connector.connect(&[LOCAL_ENDPOINT.to_owned()], &tls).await?;
        *connected = Some(Connected { versions, etcd: Arc::clone(&etcd) });
        Ok(etcd)
    }

    /// What clients of etcd on this node show and trust, and the versions of the resources that it is from.
    fn tls(&self) -> Result<((u64, u64), Tls), NodeEtcdError> {
        let root = self.store.get_as::<EtcdRootSecret>(EtcdRootSecret::ID)?;
        let secrets = self.store.get_as::<EtcdSecrets>(EtcdSecrets::ID)?;
        let (Some(root), Some(secrets)) = (root, secrets) else { return Err(NodeEtcdError::NoCertificate) };
        let tls = node_tls(&root, &secrets).ok_or(NodeEtcdError::NoCertificate)?;
        Ok(((root.metadata.version, secrets.metadata.version), tls))
    }

    /// Takes the lock of the one control plane that may be away, where the cluster can do without the member on this node: for
    /// a while, or for good where its data is not preserved. The lock ends with the member that it was taken by, at the
    /// latest [`LOCK_TTL`] after it; from then on the others see that it does not answer.
    ///
    /// # Errors
    /// [`GoAwayError`]; the lock is free again.
    pub async fn go_away(&self, preserve: bool) -> Result<LockGuard, GoAwayError> {
        let etcd = self.client().await?;
        let guard = match etcd.lock(UPGRADE_LOCK, LOCK_TTL, UPGRADE_WAIT).await {
            Err(EtcdError::LockTimeout { .. }) => return Err(GoAwayError::OneIsAway),
            locked => locked.map_err(NodeEtcdError::Etcd)?,
        };
        match self.others_are_healthy(&*etcd, preserve).await {
            Ok(()) => Ok(guard),
            Err(error) => {
                if let Err(error) = guard.release().await {
                    tracing::warn!(error = stdx::error_chain(&error), "lock was not released; it ends by itself");
                }
                Err(error)
            }
        }
    }

    async fn others_are_healthy(&self, etcd: &dyn Etcd, preserve: bool) -> Result<(), GoAwayError> {
        can_be_away(etcd, preserve).await?;
        let own = etcd.status().await.map_err(NodeEtcdError::Etcd)?.id;
        let (_, tls) = self.tls()?;
        for member in etcd.members().await.map_err(NodeEtcdError::Etcd)?.iter().filter(|member| member.id != own) {
            self.is_healthy(member, &tls).await?;
        }
        Ok(())
    }

    async fn is_healthy(&self, member: &Member, tls: &Tls) -> Result<(), GoAwayError> {
        let check = async {
            let etcd = self.connector.connect(&member.client_urls, tls).await?;
            health::check(&*etcd).await
        };
        match tokio::time::timeout(HEALTHY, check).await {
            Ok(checked) => checked.map_err(|source| GoAwayError::Unhealthy { name: member.name.clone(), source }),
            Err(_) => Err(GoAwayError::Silent(member.name.clone())),
        }
    }
}

/// Why something was not done under a lock of the cluster.
#[derive(Debug, thiserror::Error)]
#[error("holding the cluster's lock {name}")]
pub struct LockError {
    /// The lock.
    pub name: String,
    /// Why.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// What is done under a lock. It is dropped when the lock is lost.
pub type Locked<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// A lock that one node of the cluster holds at a time.
#[async_trait]
pub trait ClusterLock: Debug + Send + Sync {
    /// Waits at most `wait` for the lock, does `work` while it is held, and releases it.
    ///
    /// # Errors
    /// The lock was not free in time, or it was lost and `work` was dropped before its end.
    async fn run_locked(&self, name: &str, wait: Duration, work: Locked<'_>) -> Result<(), LockError>;
}

#[async_trait]
impl ClusterLock for NodeEtcd {
    async fn run_locked(&self, name: &str, wait: Duration, work: Locked<'_>) -> Result<(), LockError> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| LockError { name: name.to_owned(), source };
        let etcd = self.client().await.map_err(|error| failed(Box::new(error)))?;
        let guard = etcd.lock(name, LOCK_TTL, wait).await.map_err(|error| failed(Box::new(error)))?;
        let result = guard.hold_during(work).await;
        if let Err(error) = guard.release().await {
            tracing::warn!(error = stdx::error_chain(&error), name, "lock was not released; it ends by itself");
        }
        result.map_err(|error| failed(Box::new(error)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use resources::values::CertificateAndKey;

    use super::*;
    use crate::fake::FakeEtcd;

    fn node(etcd: &FakeEtcd) -> (Store, NodeEtcd) {
        let store = Store::new();
        (store.clone(), NodeEtcd::new(store, Arc::new(etcd.clone())))
    }

    fn put_certificates(store: &Store) {
        let pair = Some(CertificateAndKey::new("crt", "key"));
        store.put(EtcdRootSecret::ID, EtcdRootSecret { etcd_ca: pair.clone() }, "test").unwrap();
        store.put(EtcdSecrets::ID, EtcdSecrets { etcd_admin: pair, ..EtcdSecrets::default() }, "test").unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn one_connection_serves_all_requests() {
        let etcd = FakeEtcd::default();
        let (store, node) = node(&etcd);
        assert!(matches!(node.client().await.unwrap_err(), NodeEtcdError::NoCertificate));
        put_certificates(&store);
        node.client().await.unwrap();
        node.clone().client().await.unwrap();
        assert_eq!(etcd.connections(), [[LOCAL_ENDPOINT]]);
    }

    #[tokio::test(start_paused = true)]
    async fn one_control_plane_at_a_time_is_away_and_only_where_all_others_are_healthy() {
        let etcd = FakeEtcd::default();
        let [(store, first), (other, second)] = [node(&etcd), node(&etcd)];
        put_certificates(&store);
        put_certificates(&other);
        for (name, address) in [("a", "10.5.0.2"), ("b", "10.5.0.3"), ("c", "10.5.0.4")] {
            etcd.add_member(name, address);
        }
        let away = first.go_away(true).await.unwrap();
        assert_eq!(away.key(), "talos:v1:etcdUpgradeMutex");
        assert!(matches!(second.go_away(true).await, Err(GoAwayError::OneIsAway)));
        away.release().await.unwrap();
        // That of a node that is refused is free.
        etcd.set_unreachable("https://10.5.0.3:2379");
        for _ in 0..2 {
            let refused = second.go_away(true).await.unwrap_err();
            assert!(matches!(&refused, GoAwayError::Unhealthy { name, .. } if name == "b"), "{refused:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn work_stops_when_its_lock_is_lost() {
        let etcd = FakeEtcd::default();
        let (store, node) = node(&etcd);
        put_certificates(&store);
        let (begun, ended) = (AtomicBool::new(false), AtomicBool::new(false));
        let work = async {
            begun.store(true, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_secs(60)).await;
            ended.store(true, Ordering::Relaxed);
        };
        let lose = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            etcd.lose_lock("manifests");
        };
        let wait = Duration::from_secs(5);
        let (result, ()) = tokio::join!(node.run_locked("manifests", wait, Box::pin(work)), lose);
        assert_eq!(result.unwrap_err().source.to_string(), "lock manifests was lost");
        assert!(begun.load(Ordering::Relaxed) && !ended.load(Ordering::Relaxed));
        node.run_locked("manifests", wait, Box::pin(async {})).await.unwrap();
    }
}
