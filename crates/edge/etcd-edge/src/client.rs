//! The real etcd, by its gRPC API.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use async_trait::async_trait;
use etcd_client::{Certificate, Client, ConnectOptions, Error, Identity, LockOptions, MemberAddOptions, TlsOptions};
use stdx::tasks::{self, CancellationToken, Task};
use tokio::time::{Instant, timeout, timeout_at};

use crate::{Connector, Etcd, EtcdError, Lock, LockGuard, Member, MemberId, MemberStatus, Tls};

/// How long a request may take; etcd gives up on an election or a slow disk well before.
const REQUEST: Duration = Duration::from_secs(10);
/// How long making a connection may take.
const CONNECT: Duration = Duration::from_secs(5);

/// Connects to real etcd clusters.
#[derive(Clone, Copy, Debug, Default)]
pub struct EtcdConnector;

#[async_trait]
impl Connector for EtcdConnector {
    async fn connect(&self, endpoints: &[String], tls: &Tls) -> Result<Arc<dyn Etcd>, EtcdError> {
        let tls = TlsOptions::new()
            .ca_certificate(Certificate::from_pem(&tls.ca))
            .identity(Identity::from_pem(&tls.crt, tls.key.expose()));
        let options = ConnectOptions::new()
            .with_tls(tls)
            .with_connect_timeout(CONNECT)
            .with_keep_alive(Duration::from_secs(10), Duration::from_secs(5))
            .with_keep_alive_while_idle(true);
        let failed = |source| EtcdError::Connect { endpoints: endpoints.to_vec(), source: Box::new(source) };
        let client = Client::connect(endpoints, Some(options)).await.map_err(failed)?;
        Ok(Arc::new(EtcdClient { client, endpoints: endpoints.to_vec() }))
    }
}

struct EtcdClient {
    client: Client,
    endpoints: Vec<String>,
}

impl fmt::Debug for EtcdClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdClient").field("endpoints", &self.endpoints).finish_non_exhaustive()
    }
}

/// `request` with a deadline; `meaning` may interpret an error message of etcd.
async fn ask<T>(
    operation: &'static str,
    request: impl Future<Output = Result<T, Error>>,
    meaning: impl FnOnce(&str) -> Option<EtcdError>,
) -> Result<T, EtcdError> {
    match timeout(REQUEST, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(Error::GRpcStatus(status))) => Err(meaning(status.message())
            .unwrap_or_else(|| EtcdError::Request { operation, source: Box::new(Error::GRpcStatus(status)) })),
        Ok(Err(source)) => Err(EtcdError::Request { operation, source: Box::new(source) }),
        Err(_) => Err(EtcdError::Timeout { operation, after: REQUEST }),
    }
}

const fn nothing_known(_: &str) -> Option<EtcdError> {
    None
}

fn member(member: &etcd_client::Member) -> Member {
    Member {
        id: MemberId(member.id()),
        name: member.name().to_owned(),
        peer_urls: member.peer_urls().to_vec(),
        client_urls: member.client_urls().to_vec(),
        is_learner: member.is_learner(),
    }
}

#[async_trait]
impl Etcd for EtcdClient {
    async fn members(&self) -> Result<Vec<Member>, EtcdError> {
        let mut client = self.client.clone();
        let answer = ask("listing etcd members", client.member_list(), nothing_known).await?;
        Ok(answer.members().iter().map(member).collect())
    }

    async fn add_learner(&self, peer_urls: &[String]) -> Result<Member, EtcdError> {
        const OPERATION: &str = "adding an etcd learner";
        let mut client = self.client.clone();
        let request = client.member_add(peer_urls, Some(MemberAddOptions::new().with_is_learner()));
        // The id is derived from the URLs; the error depends on the version.
        let exists = |text: &str| {
            let known = text.contains("Peer URLs already exists") || text.contains("member ID already exist");
            known.then(|| EtcdError::PeerExists(peer_urls.to_vec()))
        };
        let answer = ask(OPERATION, request, exists).await?;
        answer.member().map(member).ok_or(EtcdError::Incomplete { operation: OPERATION })
    }

    async fn promote(&self, id: MemberId) -> Result<(), EtcdError> {
        let mut client = self.client.clone();
        let meaning = |text: &str| {
            if text.contains("in sync with leader") {
                return Some(EtcdError::LearnerNotReady(id));
            }
            text.contains("member not found").then_some(EtcdError::MemberNotFound(id))
        };
        ask("promoting an etcd learner", client.member_promote(id.0), meaning).await.map(drop)
    }

    async fn remove(&self, id: MemberId) -> Result<(), EtcdError> {
        let mut client = self.client.clone();
        let meaning = |text: &str| text.contains("member not found").then_some(EtcdError::MemberNotFound(id));
        ask("removing an etcd member", client.member_remove(id.0), meaning).await.map(drop)
    }

    async fn update_peers(&self, id: MemberId, peer_urls: &[String]) -> Result<(), EtcdError> {
        let mut client = self.client.clone();
        let meaning = |text: &str| text.contains("member not found").then_some(EtcdError::MemberNotFound(id));
        ask("changing an etcd member's peer URLs", client.member_update(id.0, peer_urls), meaning).await.map(drop)
    }

    async fn status(&self) -> Result<MemberStatus, EtcdError> {
        const OPERATION: &str = "asking etcd for its status";
        let mut client = self.client.clone();
        let answer = ask(OPERATION, client.status(), nothing_known).await?;
        let header = answer.header().ok_or(EtcdError::Incomplete { operation: OPERATION })?;
        Ok(MemberStatus {
            id: MemberId(header.member_id()),
            version: answer.version().to_owned(),
            leader: Some(answer.leader()).filter(|leader| *leader != 0).map(MemberId),
            db_size: answer.db_size(),
            db_size_in_use: answer.raft_used_db_size(),
            raft_index: answer.raft_index(),
            raft_term: answer.raft_term(),
            raft_applied_index: answer.raft_applied_index(),
            is_learner: answer.is_learner(),
            errors: answer.errors().to_vec(),
        })
    }

    async fn confirm_quorum(&self) -> Result<(), EtcdError> {
        let mut client = self.client.clone();
        // A read that is not serializable goes through the leader, which asks a quorum. The key need not be there.
        ask("asking the quorum of etcd", client.get("health", None), nothing_known).await.map(drop)
    }

    async fn lock(&self, key: &str, ttl: Duration, wait: Duration) -> Result<LockGuard, EtcdError> {
        let mut client = self.client.clone();
        let seconds = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX).max(1);
        let granting = Instant::now();
        let lease = ask("granting an etcd lease", client.lease_grant(seconds, None), nothing_known).await?.id();
        let lost = CancellationToken::new();
        let keeper = keep_alive(client.clone(), lease, granting, ttl, lost.clone());
        let held = Box::new(HeldLock { client: client.clone(), lease, _keeper: keeper });
        let request = client.lock(key, Some(LockOptions::new().with_lease(lease)));
        let failed = match timeout(wait, request).await {
            Ok(Ok(_)) => return Ok(LockGuard::new(key, held, lost)),
            Ok(Err(source)) => EtcdError::Request { operation: "taking an etcd lock", source: Box::new(source) },
            Err(_) => EtcdError::LockTimeout { key: key.to_owned(), after: wait },
        };
        // Leaves the queue of waiters; if that fails, the lease expires.
        if let Err(error) = held.release().await {
            tracing::debug!(error = %stdx::ErrorChain(&error), "lease of a lock that was not taken was not revoked");
        }
        Err(failed)
    }
}

struct HeldLock {
    client: Client,
    lease: i64,
    _keeper: Task<()>,
}

#[async_trait]
impl Lock for HeldLock {
    async fn release(mut self: Box<Self>) -> Result<(), EtcdError> {
        let request = self.client.lease_revoke(self.lease);
        ask("revoking an etcd lease", request, nothing_known).await.map(drop)
    }
}

/// Renews the lease three times in its life until dropped. `lost` fires when the lease is gone, or when its life, counted
/// from the moment at which the last renewal that was confirmed had been sent, is over without another one: etcd counts
/// from a later moment, so that nobody else has the lock before.
fn keep_alive(client: Client, lease: i64, granting: Instant, ttl: Duration, lost: CancellationToken) -> Task<()> {
    tasks::spawn("etcd-lease", async move {
        let mut until = granting + ttl;
        let mut renewals = None;
        loop {
            let sent = Instant::now();
            match timeout_at(until, renew(&client, lease, &mut renewals)).await {
                Ok(Ok(Renewed::Alive)) => {
                    until = sent + ttl;
                    tokio::time::sleep(ttl / 3).await;
                }
                Ok(Ok(Renewed::Gone)) => break,
                Ok(Err(error)) => {
                    tracing::debug!(%error, "lease is not kept alive, trying again");
                    renewals = None;
                    tokio::time::sleep_until((sent + (ttl / 3).min(Duration::from_secs(1))).min(until)).await;
                }
                Err(_) => break,
            }
        }
        tracing::warn!(lease, "lease of an etcd lock is lost");
        lost.cancel();
    })
}

enum Renewed {
    Alive,
    /// The lease has ended at etcd.
    Gone,
}

type Renewals = Option<(etcd_client::LeaseKeeper, etcd_client::LeaseKeepAliveStream)>;

/// Renews a lease once, on a stream that is opened where there is none; opening it renews the lease.
async fn renew(client: &Client, lease: i64, renewals: &mut Renewals) -> Result<Renewed, Error> {
    let Some((keeper, answers)) = renewals else {
        return match client.clone().lease_keep_alive(lease).await {
            Ok(open) => {
                *renewals = Some(open);
                Ok(Renewed::Alive)
            }
            // The library's words for an answer without a time to live.
            Err(Error::LeaseKeepAliveError(text)) if text.contains("lease not found") => Ok(Renewed::Gone),
            Err(error) => Err(error),
        };
    };
    keeper.keep_alive().await?;
    match answers.message().await? {
        Some(answer) if answer.ttl() > 0 => Ok(Renewed::Alive),
        Some(_) => Ok(Renewed::Gone),
        None => Err(Error::LeaseKeepAliveError("the stream ended".to_owned())),
    }
}
