//! The session with the service: greet it, publish this node, receive the others, again and again.
//!
//! It ends only when its task is ended. Whatever fails, it starts over after a growing delay; what it received last stays.
//! A service that comes back may have lost its memory: who is missing then has a while to publish itself again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use resources::cluster::Affiliate;
use stdx::Backoff;
use stdx::backoff::random_jitter;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tonic::transport::Channel;
use tonic::{Code, Status};
use wire::sidero::discovery::server as proto;
use wire::sidero::discovery::server::cluster_client::ClusterClient;

use crate::connect::{ConnectError, Dial};
use crate::message::{open_affiliate, seal_affiliate};
use crate::seal::{SealError, Sealer};

/// How long the service keeps what it was told.
const TTL: Duration = Duration::from_secs(30 * 60);
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
const UPDATE_TIMEOUT: Duration = Duration::from_secs(30);
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));
/// The most nodes that are kept: as many as the service keeps of a cluster.
const MAX_AFFILIATES: usize = 1024;
/// How long somebody is still known whom the service does not know when it comes back: longer than the others need to
/// come back to it.
const RETURN: Duration = Duration::from_secs(60);

/// Which service, which cluster, which node.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// `HOST:PORT`.
    pub address: String,
    /// Without TLS.
    pub insecure: bool,
    /// The cluster's id.
    pub cluster_id: String,
    /// The cluster's secret, 32 bytes.
    pub key: Vec<u8>,
    /// This node's id.
    pub node_id: String,
    /// Certificate authorities of the service.
    pub ca_bundle: PathBuf,
}

/// The other nodes by id, as they were received last.
pub type KnownAffiliates = Arc<Mutex<BTreeMap<String, Affiliate>>>;

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error("reaching the discovery service")]
    Connect(#[from] ConnectError),
    #[error("{0} of the discovery service")]
    Call(&'static str, #[source] Status),
    #[error("{0} of the discovery service: no answer within {1:?}")]
    Timeout(&'static str, Duration),
    #[error("sealing what is told to the discovery service")]
    Seal(#[from] SealError),
    #[error("the discovery service sends us to {0}")]
    Redirect(String),
    #[error("the discovery service closed the watch")]
    Closed,
}

/// What a client needs while it runs.
#[derive(Debug)]
pub struct Client<Wake> {
    options: Options,
    sealer: Sealer,
    /// What to tell; `None` before there is anything.
    own: watch::Receiver<Option<Affiliate>>,
    known: KnownAffiliates,
    /// Who was known before the service came back and not received since, and until when that is good enough.
    missing: BTreeMap<String, Instant>,
    dial: Arc<dyn Dial>,
    wake: Wake,
}

impl<Wake: Fn() + Send + Sync> Client<Wake> {
    /// A client that reaches the service by `dial`, publishes `own`, keeps the others in `known`, and calls `wake` when
    /// that changed.
    pub fn new(
        options: Options,
        dial: Arc<dyn Dial>,
        own: watch::Receiver<Option<Affiliate>>,
        known: KnownAffiliates,
        wake: Wake,
    ) -> Result<Self, SealError> {
        let sealer = Sealer::new(&options.key)?;
        Ok(Self { options, sealer, own, known, missing: BTreeMap::new(), dial, wake })
    }

    /// Runs sessions until its task is ended.
    pub async fn run(mut self) {
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        loop {
            let started = Instant::now();
            let Err(error) = self.session().await;
            if let SessionError::Redirect(address) = &error {
                tracing::info!(address, "the discovery service moved");
                self.options.address.clone_from(address);
            } else {
                tracing::warn!(error = %stdx::ErrorChain(&error), "discovery will be tried again");
            }
            if started.elapsed() > BACKOFF.1 {
                backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
            }
            tokio::time::sleep(backoff.next_delay(random_jitter())).await;
        }
    }

    async fn session(&mut self) -> Result<std::convert::Infallible, SessionError> {
        let Options { address, insecure, ca_bundle, .. } = &self.options;
        let channel = self.dial.dial(address, *insecure, ca_bundle).await?;
        let mut service = ClusterClient::new(channel);
        self.hello(&mut service).await?;
        self.publish(&mut service).await?;
        let request = proto::WatchRequest { cluster_id: self.options.cluster_id.clone() };
        let watch = service.watch(request).await.map_err(|status| SessionError::Call("Watch", status))?;
        let mut watch = watch.into_inner();
        tracing::info!(address = self.options.address, "discovery service connected");
        let mut first = true;
        let mut renew = tokio::time::interval_at(Instant::now() + TTL / 2, TTL / 2);
        loop {
            tokio::select! {
                // Cancel-safe: a stream keeps a message that was not taken.
                message = watch.message() => {
                    let message = message.map_err(|status| SessionError::Call("Watch", status))?.ok_or(SessionError::Closed)?;
                    self.receive(message, std::mem::take(&mut first));
                }
                // Cancel-safe by contract. An error means that nobody will tell anything new: then only renewals.
                changed = self.own.changed(), if self.own.has_changed().is_ok() => {
                    if changed.is_ok() {
                        self.publish(&mut service).await?;
                    }
                }
                // Cancel-safe by contract.
                _ = renew.tick() => self.publish(&mut service).await?,
                // Cancel-safe: the times stand in `missing`.
                () = reached(self.missing.values().min().copied()) => self.forget_missing(),
            }
        }
    }

    async fn hello(&self, service: &mut ClusterClient<Channel>) -> Result<(), SessionError> {
        let request = proto::HelloRequest {
            cluster_id: self.options.cluster_id.clone(),
            client_version: stdx::version::TAG.to_owned(),
        };
        let answer = call("Hello", HELLO_TIMEOUT, service.hello(request)).await?;
        match answer.into_inner().redirect {
            Some(redirect) if !redirect.endpoint.is_empty() => Err(SessionError::Redirect(redirect.endpoint)),
            _ => Ok(()),
        }
    }

    async fn publish(&mut self, service: &mut ClusterClient<Channel>) -> Result<(), SessionError> {
        let Some(own) = self.own.borrow_and_update().clone() else {
            return Ok(());
        };
        let request = proto::AffiliateUpdateRequest {
            cluster_id: self.options.cluster_id.clone(),
            affiliate_id: self.options.node_id.clone(),
            affiliate_data: Some(seal_affiliate(&self.sealer, &own)?.into()),
            affiliate_endpoints: Vec::new(),
            ttl: Some(prost_types::Duration { seconds: i64::try_from(TTL.as_secs()).unwrap_or(i64::MAX), nanos: 0 }),
        };
        call("AffiliateUpdate", UPDATE_TIMEOUT, service.affiliate_update(request)).await?;
        tracing::debug!("published this node at the discovery service");
        Ok(())
    }

    /// The first message is everything there is; later ones are changes.
    fn receive(&mut self, message: proto::WatchResponse, everything: bool) {
        let mut known = self.known.lock();
        let before = known.clone();
        if everything {
            let told: BTreeSet<&str> = message.affiliates.iter().map(|affiliate| affiliate.id.as_str()).collect();
            let until = Instant::now() + RETURN;
            let missing = known.keys().filter(|id| !told.contains(id.as_str()));
            let since = std::mem::take(&mut self.missing);
            self.missing = missing.map(|id| (id.clone(), since.get(id).copied().unwrap_or(until))).collect();
        }
        for affiliate in message.affiliates {
            if affiliate.id == self.options.node_id {
                continue;
            }
            if message.deleted {
                self.missing.remove(&affiliate.id);
                known.remove(&affiliate.id);
                continue;
            }
            // Endpoints alone say nothing without the mesh.
            if affiliate.data.is_empty() {
                continue;
            }
            if known.len() >= MAX_AFFILIATES && !known.contains_key(&affiliate.id) {
                tracing::warn!(id = affiliate.id, limit = MAX_AFFILIATES, "cluster has too many affiliates");
                continue;
            }
            match open_affiliate(&self.sealer, &affiliate.id, &affiliate.data) {
                Ok(opened) => {
                    self.missing.remove(&affiliate.id);
                    known.insert(affiliate.id, opened);
                }
                Err(error) => {
                    tracing::warn!(id = affiliate.id, error = %stdx::ErrorChain(&error), "an affiliate is unreadable");
                }
            }
        }
        let changed = *known != before;
        drop(known);
        if changed {
            (self.wake)();
        }
    }

    /// Drops who did not come back in time.
    fn forget_missing(&mut self) {
        let now = Instant::now();
        let mut known = self.known.lock();
        self.missing.retain(|id, until| {
            let waits = now < *until;
            if !waits {
                tracing::info!(id, "a node did not come back to the discovery service");
                known.remove(id);
            }
            waits
        });
        drop(known);
        (self.wake)();
    }
}

async fn reached(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Takes this node out of the service, before a reset.
pub async fn retire(dial: &dyn Dial, options: &Options) -> Result<(), RetireError> {
    let channel = dial.dial(&options.address, options.insecure, &options.ca_bundle).await?;
    let request =
        proto::AffiliateDeleteRequest { cluster_id: options.cluster_id.clone(), affiliate_id: options.node_id.clone() };
    match ClusterClient::new(channel).affiliate_delete(request).await {
        Err(status) if status.code() != Code::NotFound => Err(RetireError::Call(status)),
        _ => Ok(()),
    }
}

/// Why this node could not be taken out.
#[derive(Debug, thiserror::Error)]
pub enum RetireError {
    /// The service does not answer.
    #[error("reaching the discovery service")]
    Connect(#[from] ConnectError),
    /// It refused.
    #[error("AffiliateDelete of the discovery service")]
    Call(#[source] Status),
}

async fn call<T>(
    name: &'static str,
    within: Duration,
    request: impl Future<Output = Result<T, Status>>,
) -> Result<T, SessionError> {
    let answer = timeout(within, request).await.map_err(|_| SessionError::Timeout(name, within))?;
    answer.map_err(|status| SessionError::Call(name, status))
}
