//! The gRPC edge of the registry: checks the rate, locks, asks the state machine, and carries changes to watchers.

use std::collections::HashMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, Stream, StreamExt};
use parking_lot::Mutex;
use tokio::sync::broadcast;
use tokio::time::Instant;
use tokio_stream::wrappers::BroadcastStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use wire::sidero::discovery::server as api;

use crate::rate::{RateLimit, RateLimiter};
use crate::registry::{AffiliateView, Change, Limits, RefusedError, Registry, Update};

/// Changes a watcher may be behind before it must start again: two full clusters of affiliates.
const WATCH_BACKLOG: usize = 2048;

/// What the service allows and how often it tidies up.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Bounds on what clients leave.
    pub limits: Limits,
    /// Requests per client address.
    pub rate: RateLimit,
    /// How often what has run out is dropped.
    pub collect_every: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { limits: Limits::default(), rate: RateLimit::default(), collect_every: Duration::from_secs(60) }
    }
}

#[derive(Debug)]
struct Inner {
    registry: Registry,
    limiter: RateLimiter,
    watchers: HashMap<String, broadcast::Sender<Change>>,
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
            tracing::debug!(cluster, changes = changes.len(), "dropped what has run out");
            inner.tell(&cluster, changes);
        }
        inner.limiter.collect(now);
        inner.watchers.retain(|_, watchers| watchers.receiver_count() > 0);
    }

    fn apply<T>(
        &self,
        cluster: &str,
        operation: impl FnOnce(&mut Registry, &mut Vec<Change>) -> Result<T, RefusedError>,
    ) -> Result<T, Status> {
        self.inner.lock().apply(cluster, operation)
    }

    fn admit<T>(&self, request: &Request<T>) -> Result<Option<IpAddr>, Status> {
        // TLS connections and plain ones say in different ways where they come from.
        let over_tls = request.extensions().get::<transport::PeerInfo>().map(|peer| peer.address);
        let from = over_tls.or_else(|| request.remote_addr()).map(|address| address.ip().to_canonical());
        if let Some(from) = from
            && !self.inner.lock().limiter.allow(Instant::now(), from)
        {
            return Err(Status::resource_exhausted("too many requests from this address; slow down"));
        }
        Ok(from)
    }
}

impl Inner {
    /// Runs an operation and tells watchers what changed, also when it was refused.
    fn apply<T>(
        &mut self,
        cluster: &str,
        operation: impl FnOnce(&mut Registry, &mut Vec<Change>) -> Result<T, RefusedError>,
    ) -> Result<T, Status> {
        let mut changes = Vec::new();
        let result = operation(&mut self.registry, &mut changes);
        self.tell(cluster, changes);
        result.map_err(status)
    }

    fn tell(&self, cluster: &str, changes: Vec<Change>) {
        if let Some(watchers) = self.watchers.get(cluster) {
            for change in changes {
                // An error says that nobody listens any more, which is fine.
                watchers.send(change).ok();
            }
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
        tracing::info!(cluster = hello.cluster_id, version = hello.client_version, ?from, "client said hello");
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
        self.admit(&request)?;
        let request = request.into_inner();
        // An absent or negative duration becomes zero, which the registry refuses.
        let ttl = request.ttl.and_then(|ttl| Duration::try_from(ttl).ok()).unwrap_or_default();
        let update = Update { data: request.affiliate_data, endpoints: request.affiliate_endpoints, ttl };
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
        self.admit(&request)?;
        let cluster = request.into_inner().cluster_id;
        // One lock for snapshot and subscription: a change is in the snapshot or comes after it, never neither.
        let (snapshot, changes) = {
            let mut inner = self.inner.lock();
            let snapshot =
                inner.apply(&cluster, |registry, changes| registry.list(Instant::now(), &cluster, changes))?;
            let watchers = inner.watchers.entry(cluster).or_insert_with(|| broadcast::channel(WATCH_BACKLOG).0);
            (snapshot, watchers.subscribe())
        };
        let first = api::WatchResponse { affiliates: snapshot.into_iter().map(to_wire).collect(), deleted: false };
        let later = BroadcastStream::new(changes).map(|change| match change {
            Ok(change) => Ok(to_delta(change)),
            Err(_) => Err(Status::aborted("the watch fell behind; watch again")),
        });
        let stream = stream::once(async { Ok(first) }).chain(later);
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
        RefusedError::TooManyEndpoints { .. } | RefusedError::TooManyAffiliates { .. } => {
            Status::resource_exhausted(refused.to_string())
        }
    }
}

#[cfg(test)]
mod tests;
