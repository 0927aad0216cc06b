//! etcd in memory, for tests: members and locks behave as documented, and it can be made to fail.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use parking_lot::Mutex;
use stdx::tasks::CancellationToken;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use crate::{Connector, Etcd, EtcdError, LOCAL_ENDPOINT, Lock, LockGuard, Member, MemberId, MemberStatus, Tls};

/// An etcd cluster in memory, and the connector to it. Clones are the same cluster.
#[derive(Clone, Debug, Default)]
pub struct FakeEtcd(Arc<Mutex<State>>, Endpoint);

/// Whom a connection asks; the first member where it is none's.
#[derive(Clone, Debug, Default)]
struct Endpoint(Vec<String>);

#[derive(Debug, Default)]
struct State {
    members: Vec<Member>,
    next_id: u64,
    behind: Vec<MemberId>,
    down: bool,
    /// No quorum: no leader, and no answer to what needs one.
    no_quorum: bool,
    alarms: Vec<String>,
    locks: BTreeMap<String, Arc<AsyncMutex<()>>>,
    /// Signals to the holders of locks.
    lost: BTreeMap<String, CancellationToken>,
    connections: Vec<Vec<String>>,
    /// Endpoints that do not answer.
    unreachable: Vec<String>,
    /// The member that answers at [`LOCAL_ENDPOINT`].
    local: Option<MemberId>,
}

impl FakeEtcd {
    /// Adds a voting member that runs.
    pub fn add_member(&self, name: &str, address: &str) -> MemberId {
        let mut state = self.0.lock();
        let id = state.new_id();
        state.members.push(Member {
            id,
            name: name.to_owned(),
            peer_urls: vec![format!("https://{address}:2380")],
            client_urls: vec![format!("https://{address}:2379")],
            is_learner: false,
        });
        id
    }

    /// While true, every request fails as if etcd were unreachable.
    pub fn set_down(&self, down: bool) {
        self.0.lock().down = down;
    }

    /// From now on nobody connects to an endpoint.
    pub fn set_unreachable(&self, endpoint: &str) {
        self.0.lock().unreachable.push(endpoint.to_owned());
    }

    /// The member that is asked by [`LOCAL_ENDPOINT`]; nobody answers there without one, once this was called.
    pub fn set_local(&self, id: Option<MemberId>) {
        let mut state = self.0.lock();
        state.local = id;
        state.unreachable.retain(|endpoint| endpoint != LOCAL_ENDPOINT);
        if id.is_none() {
            state.unreachable.push(LOCAL_ENDPOINT.to_owned());
        }
    }

    /// A member that was added starts, with this name.
    ///
    /// # Panics
    /// There is no such member.
    pub fn start(&self, id: MemberId, name: &str, address: &str) {
        let mut state = self.0.lock();
        let member = state.members.iter_mut().find(|member| member.id == id);
        #[expect(clippy::unwrap_used, reason = "a fake of tests")]
        let member = member.unwrap();
        name.clone_into(&mut member.name);
        member.client_urls = vec![format!("https://{address}:2379")];
    }

    /// Whether the members that run are a quorum.
    pub fn set_quorum(&self, quorum: bool) {
        self.0.lock().no_quorum = !quorum;
    }

    /// Raises an alarm.
    pub fn raise(&self, alarm: &str) {
        self.0.lock().alarms.push(alarm.to_owned());
    }

    /// Ends the lease behind a lock: its holder is told.
    pub fn lose_lock(&self, key: &str) {
        if let Some(lost) = self.0.lock().lost.get(key) {
            lost.cancel();
        }
    }

    /// While a learner is behind it cannot be promoted.
    pub fn set_behind(&self, id: MemberId, behind: bool) {
        let mut state = self.0.lock();
        state.behind.retain(|known| *known != id);
        if behind {
            state.behind.push(id);
        }
    }

    /// Endpoints of each connection that was made.
    #[must_use]
    pub fn connections(&self) -> Vec<Vec<String>> {
        self.0.lock().connections.clone()
    }

    fn up<T>(
        &self,
        operation: &'static str,
        f: impl FnOnce(&mut State) -> Result<T, EtcdError>,
    ) -> Result<T, EtcdError> {
        let mut state = self.0.lock();
        if state.down {
            return Err(EtcdError::Timeout { operation, after: Duration::from_secs(10) });
        }
        f(&mut state)
    }
}

impl State {
    fn new_id(&mut self) -> MemberId {
        self.next_id += 1;
        MemberId(0xc0de_0000 + self.next_id)
    }

    fn position(&self, id: MemberId) -> Result<usize, EtcdError> {
        self.members.iter().position(|member| member.id == id).ok_or(EtcdError::MemberNotFound(id))
    }
}

#[async_trait]
impl Connector for FakeEtcd {
    async fn connect(&self, endpoints: &[String], _tls: &Tls) -> Result<Arc<dyn Etcd>, EtcdError> {
        let mut state = self.0.lock();
        state.connections.push(endpoints.to_vec());
        if endpoints.iter().any(|endpoint| state.unreachable.contains(endpoint)) {
            return Err(EtcdError::Timeout { operation: "asking etcd for its status", after: Duration::from_secs(10) });
        }
        drop(state);
        Ok(Arc::new(Self(Arc::clone(&self.0), Endpoint(endpoints.to_vec()))))
    }
}

#[async_trait]
impl Etcd for FakeEtcd {
    async fn members(&self) -> Result<Vec<Member>, EtcdError> {
        self.up("listing etcd members", |state| Ok(state.members.clone()))
    }

    async fn add_learner(&self, peer_urls: &[String]) -> Result<Member, EtcdError> {
        self.up("adding an etcd learner", |state| {
            if state.members.iter().any(|member| member.peer_urls.iter().any(|url| peer_urls.contains(url))) {
                return Err(EtcdError::PeerExists(peer_urls.to_vec()));
            }
            if state.members.iter().any(|member| member.is_learner) {
                return Err(EtcdError::Timeout { operation: "adding a second etcd learner", after: Duration::ZERO });
            }
            let id = state.new_id();
            let (name, client_urls) = (String::new(), Vec::new());
            let member = Member { id, name, peer_urls: peer_urls.to_vec(), client_urls, is_learner: true };
            state.members.push(member.clone());
            Ok(member)
        })
    }

    async fn promote(&self, id: MemberId) -> Result<(), EtcdError> {
        self.up("promoting an etcd learner", |state| {
            let position = state.position(id)?;
            if state.behind.contains(&id) {
                return Err(EtcdError::LearnerNotReady(id));
            }
            state.members[position].is_learner = false;
            Ok(())
        })
    }

    async fn remove(&self, id: MemberId) -> Result<(), EtcdError> {
        const OPERATION: &str = "removing an etcd member";
        self.up(OPERATION, |state| {
            if state.no_quorum {
                return Err(EtcdError::Timeout { operation: OPERATION, after: Duration::from_secs(10) });
            }
            let position = state.position(id)?;
            state.members.remove(position);
            Ok(())
        })
    }

    async fn update_peers(&self, id: MemberId, peer_urls: &[String]) -> Result<(), EtcdError> {
        self.up("changing an etcd member's peer URLs", |state| {
            let position = state.position(id)?;
            state.members[position].peer_urls = peer_urls.to_vec();
            Ok(())
        })
    }

    async fn status(&self) -> Result<MemberStatus, EtcdError> {
        const OPERATION: &str = "asking etcd for its status";
        self.up(OPERATION, |state| {
            let is_asked = |member: &&Member| {
                let here = self.1.0.iter().any(|endpoint| endpoint == LOCAL_ENDPOINT);
                (here && state.local == Some(member.id)) || member.client_urls.iter().any(|url| self.1.0.contains(url))
            };
            let first = state.members.iter().find(is_asked).or(state.members.first());
            let first = first.ok_or(EtcdError::Incomplete { operation: OPERATION })?;
            Ok(MemberStatus {
                id: first.id,
                version: "3.5.13".to_owned(),
                leader: Some(first.id).filter(|_| !state.no_quorum),
                db_size: 20480,
                db_size_in_use: 16384,
                raft_index: 10,
                raft_term: 2,
                raft_applied_index: 10,
                is_learner: first.is_learner,
                errors: state.alarms.clone(),
            })
        })
    }

    async fn confirm_quorum(&self) -> Result<(), EtcdError> {
        const OPERATION: &str = "asking the quorum of etcd";
        self.up(OPERATION, |state| {
            let after = Duration::from_secs(10);
            if state.no_quorum { Err(EtcdError::Timeout { operation: OPERATION, after }) } else { Ok(()) }
        })
    }

    async fn lock(&self, key: &str, _ttl: Duration, wait: Duration) -> Result<LockGuard, EtcdError> {
        let lock =
            self.up("taking an etcd lock", |state| Ok(Arc::clone(state.locks.entry(key.to_owned()).or_default())))?;
        match tokio::time::timeout(wait, lock.lock_owned()).await {
            Ok(guard) => {
                let lost = CancellationToken::new();
                self.0.lock().lost.insert(key.to_owned(), lost.clone());
                Ok(LockGuard::new(key, Box::new(FakeLock(guard)), lost))
            }
            Err(_) => Err(EtcdError::LockTimeout { key: key.to_owned(), after: wait }),
        }
    }
}

struct FakeLock(OwnedMutexGuard<()>);

#[async_trait]
impl Lock for FakeLock {
    async fn release(self: Box<Self>) -> Result<(), EtcdError> {
        drop(self.0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::with_lock;

    #[tokio::test(start_paused = true)]
    async fn a_learner_is_added_caught_up_and_promoted() {
        let etcd = FakeEtcd::default();
        etcd.add_member("a", "10.5.0.2");
        let urls = ["https://10.5.0.3:2380".to_owned()];
        let learner = etcd.add_learner(&urls).await.unwrap();
        assert!(matches!(etcd.add_learner(&urls).await.unwrap_err(), EtcdError::PeerExists(_)));
        etcd.set_behind(learner.id, true);
        let error = etcd.promote(learner.id).await.unwrap_err();
        assert!(matches!(error, EtcdError::LearnerNotReady(id) if id == learner.id), "{error:?}");
        etcd.set_behind(learner.id, false);
        etcd.promote(learner.id).await.unwrap();
        etcd.remove(learner.id).await.unwrap();
        assert!(matches!(etcd.remove(learner.id).await.unwrap_err(), EtcdError::MemberNotFound(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lock_has_one_holder_and_waiting_ends() {
        let etcd = FakeEtcd::default();
        let wait = Duration::from_secs(3);
        let held = etcd.lock("k", wait, wait).await.unwrap();
        let error = with_lock(&etcd, "k", wait, async {}).await.unwrap_err();
        assert!(matches!(error, EtcdError::LockTimeout { ref key, .. } if key == "k"), "{error:?}");
        with_lock(&etcd, "other", wait, async {}).await.unwrap();
        held.release().await.unwrap();
        assert_eq!(with_lock(&etcd, "k", wait, async { 7 }).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn a_cluster_that_is_down_answers_nothing() {
        let etcd = FakeEtcd::default();
        etcd.set_down(true);
        let error = etcd.members().await.unwrap_err();
        assert!(matches!(error, EtcdError::Timeout { .. }) && error.is_retryable(), "{error:?}");
    }
}
