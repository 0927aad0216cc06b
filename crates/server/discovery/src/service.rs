//! The gRPC layer of the registry: rate limits, locking, the state machine, and notification of watchers.

use std::collections::HashMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, Stream, StreamExt};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use wire::sidero::discovery::server as api;

use crate::rate::{RateLimit, RateLimiter};
use crate::registry::{AffiliateView, Change, Limits, RefusedError, Registry, Update};

/// Changes a watcher may be behind before it must start again. Each takes about 100 bytes, and only while it waits.
const WATCH_BACKLOG: usize = 128;
/// The longest version of a client that is logged.
const MAX_VERSION: usize = 64;

/// Limits of the service and its cleanup interval.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Limits on data from clients.
    pub limits: Limits,
    /// Requests per source.
    pub rate: RateLimit,
    /// Watches, all together. An idle one takes about 4 KiB.
    pub watches: usize,
    /// Watches of one source: those of a full cluster behind one address.
    pub watches_per_source: usize,
    /// Interval of dropping expired data.
    pub collect_every: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            rate: RateLimit::default(),
            watches: 8192,
            watches_per_source: 1024,
            collect_every: Duration::from_secs(60),
        }
    }
}

#[derive(Debug)]
struct Inner {
    registry: Registry,
    limiter: RateLimiter,
    /// Watchers by cluster. A watcher that falls behind is dropped, which ends its stream.
    watchers: HashMap<String, Vec<mpsc::Sender<Change>>>,
    watches: Watches,
}

/// How many watches are open.
#[derive(Debug, Default)]
struct Watches {
    total: usize,
    by_source: HashMap<IpAddr, usize>,
}

/// An open watch; it is counted until this is dropped.
#[derive(Debug)]
struct OpenWatch {
    source: Option<IpAddr>,
    inner: Arc<Mutex<Inner>>,
}

impl Drop for OpenWatch {
    fn drop(&mut self) {
        let watches = &mut self.inner.lock().watches;
        watches.total = watches.total.saturating_sub(1);
        if let Some(source) = self.source
            && let Some(count) = watches.by_source.get_mut(&source)
        {
            *count -= 1;
            if *count == 0 {
                watches.by_source.remove(&source);
            }
        }
    }
}

/// The discovery service; cheap to clone.
#[derive(Debug, Clone)]
pub struct Service {
    inner: Arc<Mutex<Inner>>,
    options: Options,
    stop: CancellationToken,
}

impl Service {
    /// A service with nothing in it, whose watches end when `stop` fires.
    pub fn new(options: Options, stop: CancellationToken) -> Self {
        let inner = Inner {
            registry: Registry::new(options.limits),
            limiter: RateLimiter::new(options.rate),
            watchers: HashMap::new(),
            watches: Watches::default(),
        };
        Self { inner: Arc::new(Mutex::new(inner)), options, stop }
    }

    /// Tidies up at the interval of the options until `stop` fires.
    pub async fn collect_forever(&self) {
        let mut ticks = tokio::time::interval(self.options.collect_every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            // Both arms are cancel-safe: a tick that was not taken stays due, a fired token stays fired.
            tokio::select! {
                () = self.stop.cancelled() => return,
                _ = ticks.tick() => self.collect(Instant::now()),
            }
        }
    }

    fn collect(&self, now: Instant) {
        let mut inner = self.inner.lock();
        for (cluster, changes) in inner.registry.collect(now) {
            tracing::debug!(cluster, changes = changes.len(), "dropped expired affiliates");
            inner.notify(&cluster, changes);
        }
        inner.limiter.collect(now);
        inner.watchers.retain(|_, watchers| {
            watchers.retain(|watcher| !watcher.is_closed());
            !watchers.is_empty()
        });
    }

    fn apply<T>(
        &self,
        cluster: &str,
        operation: impl FnOnce(&mut Registry, &mut Vec<Change>) -> Result<T, RefusedError>,
    ) -> Result<T, Status> {
        self.inner.lock().apply(cluster, operation)
    }

    /// Takes one request from the allowance of its source. Returns where the request comes from.
    fn admit<T>(&self, request: &Request<T>) -> Result<Option<IpAddr>, Status> {
        let peer = request.extensions().get::<transport::PeerInfo>();
        let from = peer.map(|peer| peer.address.ip().to_canonical());
        if let Some(from) = from
            && !self.inner.lock().limiter.allow(Instant::now(), transport::source(from))
        {
            return Err(Status::resource_exhausted("too many requests from this address; slow down"));
        }
        Ok(from)
    }

    fn open_watch(&self, inner: &mut Inner, from: Option<IpAddr>) -> Result<OpenWatch, Status> {
        let source = from.map(transport::source);
        let watches = &mut inner.watches;
        if watches.total >= self.options.watches {
            return Err(Status::resource_exhausted("too many open watches"));
        }
        if let Some(source) = source {
            let count = watches.by_source.entry(source).or_default();
            if *count >= self.options.watches_per_source {
                return Err(Status::resource_exhausted("too many watches from this address"));
            }
            *count += 1;
        }
        watches.total += 1;
        Ok(OpenWatch { source, inner: Arc::clone(&self.inner) })
    }
}

impl Inner {
    /// Runs an operation and notifies watchers of the changes, even after a refusal.
    fn apply<T>(
        &mut self,
        cluster: &str,
        operation: impl FnOnce(&mut Registry, &mut Vec<Change>) -> Result<T, RefusedError>,
    ) -> Result<T, Status> {
        let mut changes = Vec::new();
        let result = operation(&mut self.registry, &mut changes);
        self.notify(cluster, changes);
        result.map_err(status)
    }

    fn notify(&mut self, cluster: &str, changes: Vec<Change>) {
        let Some(watchers) = self.watchers.get_mut(cluster) else { return };
        for change in changes {
            // Dropped and lagging watchers get nothing more.
            watchers.retain(|watcher| watcher.try_send(change.clone()).is_ok());
        }
        if watchers.is_empty() {
            self.watchers.remove(cluster);
        }
    }
}

type WatchStream = Pin<Box<dyn Stream<Item = Result<api::WatchResponse, Status>> + Send>>;

#[tonic::async_trait]
impl api::cluster_server::Cluster for Service {
    async fn hello(&self, request: Request<api::HelloRequest>) -> Result<Response<api::HelloResponse>, Status> {
        let from = self.admit(&request)?;
        let hello = request.into_inner();
        self.inner.lock().registry.check_cluster(&hello.cluster_id).map_err(status)?;
        let version: String = hello.client_version.chars().take(MAX_VERSION).collect();
        tracing::info!(cluster = hello.cluster_id, version, ?from, "client connected");
        let client_ip = match from {
            Some(IpAddr::V4(ip)) => ip.octets().to_vec(),
            Some(IpAddr::V6(ip)) => ip.octets().to_vec(),
            None => Vec::new(),
        };
        Ok(Response::new(api::HelloResponse { redirect: None, client_ip: client_ip.into() }))
    }

    async fn affiliate_update(
        &self,
        request: Request<api::AffiliateUpdateRequest>,
    ) -> Result<Response<api::AffiliateUpdateResponse>, Status> {
        let from = self.admit(&request)?;
        let request = request.into_inner();
        // An absent or negative duration becomes zero, which the registry refuses.
        let ttl = request.ttl.and_then(|ttl| Duration::try_from(ttl).ok()).unwrap_or_default();
        let update = Update {
            source: from.map(transport::source),
            data: request.affiliate_data,
            endpoints: request.affiliate_endpoints,
            ttl,
        };
        self.apply(&request.cluster_id, |registry, changes| {
            registry.update(Instant::now(), &request.cluster_id, &request.affiliate_id, update, changes)
        })?;
        Ok(Response::new(api::AffiliateUpdateResponse {}))
    }

    async fn affiliate_delete(
        &self,
        request: Request<api::AffiliateDeleteRequest>,
    ) -> Result<Response<api::AffiliateDeleteResponse>, Status> {
        self.admit(&request)?;
        let request = request.into_inner();
        self.apply(&request.cluster_id, |registry, changes| {
            registry.delete(Instant::now(), &request.cluster_id, &request.affiliate_id, changes)
        })?;
        Ok(Response::new(api::AffiliateDeleteResponse {}))
    }

    async fn list(&self, request: Request<api::ListRequest>) -> Result<Response<api::ListResponse>, Status> {
        self.admit(&request)?;
        let cluster = request.into_inner().cluster_id;
        let affiliates = self.apply(&cluster, |registry, changes| registry.list(Instant::now(), &cluster, changes))?;
        Ok(Response::new(api::ListResponse { affiliates: affiliates.into_iter().map(to_wire).collect() }))
    }

    type WatchStream = WatchStream;

    async fn watch(&self, request: Request<api::WatchRequest>) -> Result<Response<WatchStream>, Status> {
        let from = self.admit(&request)?;
        let cluster = request.into_inner().cluster_id;
        // One lock for snapshot and subscription: a change is in the snapshot or comes after it, never neither.
        let (snapshot, changes, open) = {
            let mut inner = self.inner.lock();
            let snapshot =
                inner.apply(&cluster, |registry, changes| registry.list(Instant::now(), &cluster, changes))?;
            let open = self.open_watch(&mut inner, from)?;
            let (sender, changes) = mpsc::channel(WATCH_BACKLOG);
            inner.watchers.entry(cluster).or_default().push(sender);
            (snapshot, changes, open)
        };
        let first = api::WatchResponse { affiliates: snapshot.into_iter().map(to_wire).collect(), deleted: false };
        let later = ReceiverStream::new(changes).map(move |change| {
            // the watch counts as open for as long as this closure lives
            let OpenWatch { .. } = &open;
            Ok(to_delta(change))
        });
        // The sender is dropped only when this watcher fell behind.
        let behind = stream::once(async { Err(Status::aborted("the watch fell behind; watch again")) });
        let stream = stream::once(async { Ok(first) }).chain(later).chain(behind);
        Ok(Response::new(Box::pin(stream.take_until(self.stop.clone().cancelled_owned()))))
    }
}

fn to_wire(affiliate: AffiliateView) -> api::Affiliate {
    api::Affiliate { id: affiliate.id, data: affiliate.data, endpoints: affiliate.endpoints }
}

fn to_delta(change: Change) -> api::WatchResponse {
    match change {
        Change::Updated(affiliate) => api::WatchResponse { affiliates: vec![to_wire(affiliate)], deleted: false },
        Change::Deleted(id) => {
            let gone = api::Affiliate { id, ..api::Affiliate::default() };
            api::WatchResponse { affiliates: vec![gone], deleted: true }
        }
    }
}

fn status(refused: RefusedError) -> Status {
    match refused {
        RefusedError::EmptyId(_) | RefusedError::TooLong { .. } | RefusedError::BadTtl { .. } => {
            Status::invalid_argument(refused.to_string())
        }
        RefusedError::TooManyEndpoints { .. }
        | RefusedError::TooManyAffiliates { .. }
        | RefusedError::TooManyClusters { .. }
        | RefusedError::Full { .. }
        | RefusedError::SourceFull { .. } => Status::resource_exhausted(refused.to_string()),
    }
}

#[cfg(test)]
mod tests;
