//! Against a small service of our own, in this process on paused time; once over TCP.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use controller::testing::Harness;
use discovery_client::ConnectError;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use stdx::tasks::TaskSet;
use tokio::io::{DuplexStream, copy_bidirectional, duplex};
use tokio::net::TcpListener;
use tokio::sync::{broadcast, mpsc};
use tokio::time::sleep;
use tokio_stream::wrappers::{BroadcastStream, ReceiverStream, TcpListenerStream};
use tokio_stream::{Stream, StreamExt};
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status};
use tower::service_fn;
use wire::sidero::discovery::server as proto;
use wire::sidero::discovery::server::cluster_server::{Cluster, ClusterServer};

use super::*;

/// Keeps affiliates of one cluster and tells watchers; no limits, no time to live.
#[derive(Debug, Clone)]
struct SmallService {
    affiliates: Arc<Mutex<BTreeMap<String, proto::Affiliate>>>,
    changes: broadcast::Sender<proto::WatchResponse>,
    updates: Arc<Mutex<Vec<proto::AffiliateUpdateRequest>>>,
}

impl SmallService {
    fn new() -> Self {
        Self { affiliates: Arc::default(), changes: broadcast::channel(64).0, updates: Arc::default() }
    }
}

#[tonic::async_trait]
impl Cluster for SmallService {
    async fn hello(&self, _: Request<proto::HelloRequest>) -> Result<Response<proto::HelloResponse>, Status> {
        Ok(Response::new(proto::HelloResponse::default()))
    }

    async fn affiliate_update(
        &self,
        request: Request<proto::AffiliateUpdateRequest>,
    ) -> Result<Response<proto::AffiliateUpdateResponse>, Status> {
        let update = request.into_inner();
        let affiliate = proto::Affiliate {
            id: update.affiliate_id.clone(),
            data: update.affiliate_data.clone().unwrap_or_default(),
            ..Default::default()
        };
        self.affiliates.lock().insert(affiliate.id.clone(), affiliate.clone());
        self.updates.lock().push(update);
        let _ = self.changes.send(proto::WatchResponse { affiliates: vec![affiliate], deleted: false });
        Ok(Response::new(proto::AffiliateUpdateResponse::default()))
    }

    async fn affiliate_delete(
        &self,
        request: Request<proto::AffiliateDeleteRequest>,
    ) -> Result<Response<proto::AffiliateDeleteResponse>, Status> {
        let gone = self.affiliates.lock().remove(&request.into_inner().affiliate_id);
        let affiliates = gone.into_iter().collect();
        let _ = self.changes.send(proto::WatchResponse { affiliates, deleted: true });
        Ok(Response::new(proto::AffiliateDeleteResponse::default()))
    }

    async fn list(&self, _: Request<proto::ListRequest>) -> Result<Response<proto::ListResponse>, Status> {
        Err(Status::unimplemented("not asked by the client"))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<proto::WatchResponse, Status>> + Send>>;

    async fn watch(&self, _: Request<proto::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let later = BroadcastStream::new(self.changes.subscribe());
        let affiliates = self.affiliates.lock().values().cloned().collect();
        let first = tokio_stream::once(Ok(proto::WatchResponse { affiliates, deleted: false }));
        let later = later.map(|change| change.map_err(|_| Status::data_loss("too slow")));
        Ok(Response::new(Box::pin(first.chain(later))))
    }
}

/// Where the service is, if it runs. Clones share it.
#[derive(Debug, Clone, Default)]
struct Place(Arc<Mutex<Option<Running>>>);

/// One instance of the service: its scope and its address.
#[derive(Debug)]
struct Running {
    tasks: TaskSet,
    connections: mpsc::Sender<DuplexStream>,
}

impl Place {
    /// Restarts the service with empty memory.
    fn start(&self) -> SmallService {
        let service = SmallService::new();
        let (connections, incoming) = mpsc::channel(8);
        let tasks = TaskSet::new("small-service");
        let incoming = ReceiverStream::new(incoming).map(Ok::<_, io::Error>);
        let serving = Server::builder().add_service(ClusterServer::new(service.clone())).serve_with_incoming(incoming);
        tasks.spawn("serving", async move { serving.await.unwrap() });
        *self.0.lock() = Some(Running { tasks, connections });
        service
    }

    /// Ends it and every connection to it.
    fn kill(&self) {
        self.0.lock().take();
    }

    fn connect(&self) -> io::Result<DuplexStream> {
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let running = self.0.lock();
        let running = running.as_ref().ok_or_else(refused)?;
        let (client, mut near) = duplex(64 << 10);
        let (mut far, server) = duplex(64 << 10);
        running.connections.try_send(server).map_err(|_| refused())?;
        running.tasks.spawn("connection", async move {
            // Either side may end it.
            copy_bidirectional(&mut near, &mut far).await.ok();
        });
        Ok(client)
    }
}

#[async_trait]
impl Dial for Place {
    async fn dial(&self, address: &str, _insecure: bool, _ca_bundle: &Path) -> Result<Channel, ConnectError> {
        let place = self.clone();
        let connector = service_fn(move |_| {
            let connection = place.connect();
            async move { connection.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://service");
        let refused = |source| ConnectError::Connect { address: address.to_owned(), source };
        endpoint.connect_with_connector(connector).await.map_err(refused)
    }
}

/// A node that reaches the service at `address` by `dial`.
fn node_by(dial: impl Dial, address: &str, id: &str, key: u8) -> Harness {
    let harness = Harness::with(DiscoveryServiceController::with_dial("/nonexistent".into(), Arc::new(dial)));
    let config = DiscoveryConfig {
        discovery_enabled: true,
        registry_service_enabled: true,
        service_endpoint: address.into(),
        service_endpoint_insecure: true,
        service_encryption_key: vec![key; 32],
        service_cluster_id: "abc".into(),
        ..Default::default()
    };
    harness.put("cluster", config);
    harness.put("local", Identity { node_id: id.into() });
    harness.put(id, Affiliate { node_id: id.into(), hostname: format!("host-{id}"), ..Default::default() });
    harness
}

fn node(place: &Place, id: &str) -> Harness {
    node_by(place.clone(), "service:3000", id, 7)
}

fn hostname_of(harness: &Harness, id: &str) -> Option<String> {
    harness.get_in::<Affiliate>(RAW_NAMESPACE, &format!("service/{id}")).map(|affiliate| affiliate.hostname.clone())
}

/// Whether both know each other.
fn acquainted(a: &Harness, b: &Harness) -> bool {
    hostname_of(a, "b").is_some() && hostname_of(b, "a").is_some()
}

#[tokio::test(start_paused = true)]
async fn two_nodes_find_each_other_follow_changes_and_lose_who_is_reset() {
    let place = Place::default();
    let service = place.start();
    let (a, b) = (node(&place, "a"), node(&place, "b"));
    sleep(Duration::from_secs(1)).await;
    assert_eq!((hostname_of(&a, "b").unwrap(), hostname_of(&b, "a").unwrap()), ("host-b".into(), "host-a".into()));
    assert_eq!(hostname_of(&a, "a"), None, "not of itself");
    let update = service.updates.lock()[0].clone();
    assert_eq!((update.cluster_id.as_str(), update.ttl.unwrap().seconds), ("abc", 1800));
    assert!(!update.affiliate_data.unwrap().windows(4).any(|bytes| bytes == b"host"), "it is sealed");

    a.put("a", Affiliate { node_id: "a".into(), hostname: "renamed".into(), ..Default::default() });
    sleep(Duration::from_secs(1)).await;
    assert_eq!(hostname_of(&b, "a").unwrap(), "renamed");

    a.put(MachineResetSignal::ID, MachineResetSignal::default());
    sleep(Duration::from_secs(1)).await;
    assert_eq!((hostname_of(&b, "a"), hostname_of(&a, "b")), (None, None));
    assert!(!service.affiliates.lock().contains_key("a"));
}

#[tokio::test(start_paused = true)]
async fn what_is_told_is_told_again_before_its_time_to_live_ends() {
    let place = Place::default();
    let service = place.start();
    let _a = node(&place, "a");
    sleep(Duration::from_secs(14 * 60)).await;
    assert_eq!(service.updates.lock().len(), 1);
    sleep(Duration::from_secs(2 * 60)).await;
    assert_eq!(service.updates.lock().len(), 2, "after half of 30 minutes");
    sleep(Duration::from_secs(15 * 60)).await;
    assert_eq!(service.updates.lock().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_returns_without_memory_is_told_again_within_seconds_and_nobody_is_lost() {
    let place = Place::default();
    place.start();
    let (a, b) = (node(&place, "a"), node(&place, "b"));
    sleep(Duration::from_secs(300)).await;
    assert!(acquainted(&a, &b));

    place.kill();
    // The keeper of the service needs a moment; the first attempts of the clients fail.
    for _ in 0..25 {
        sleep(Duration::from_millis(100)).await;
        assert!(acquainted(&a, &b), "the last known affiliates stay");
    }
    let service = place.start();
    for _ in 0..70 {
        sleep(Duration::from_millis(100)).await;
        assert!(acquainted(&a, &b), "an empty service does not make nodes disappear");
    }
    assert_eq!(service.affiliates.lock().len(), 2, "both came back within seven seconds");
    sleep(Duration::from_secs(120)).await;
    assert!(acquainted(&a, &b));
}

#[tokio::test(start_paused = true)]
async fn who_does_not_come_back_to_a_service_without_memory_is_forgotten() {
    let place = Place::default();
    place.start();
    let (a, b) = (node(&place, "a"), node(&place, "b"));
    sleep(Duration::from_secs(300)).await;
    place.kill();
    b.put(MachineResetSignal::ID, MachineResetSignal::default());
    sleep(Duration::from_secs(2)).await;
    place.start();
    sleep(Duration::from_secs(30)).await;
    assert_eq!(hostname_of(&a, "b").as_deref(), Some("host-b"), "it may be on its way back");
    // A second restart does not give it more time.
    place.kill();
    sleep(Duration::from_secs(1)).await;
    place.start();
    sleep(Duration::from_secs(40)).await;
    assert_eq!(hostname_of(&a, "b"), None);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_away_for_long_is_found_soon_after_its_return() {
    let place = Place::default();
    let _a = node(&place, "a");
    sleep(Duration::from_secs(3600)).await;
    let service = place.start();
    sleep(Duration::from_secs(16)).await;
    assert_eq!(service.affiliates.lock().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn nodes_of_another_secret_are_not_understood() {
    let place = Place::default();
    let service = place.start();
    let (a, b) = (node(&place, "a"), node_by(place.clone(), "service:3000", "b", 8));
    sleep(Duration::from_secs(2)).await;
    assert_eq!(service.affiliates.lock().len(), 2);
    assert_eq!((hostname_of(&a, "b"), hostname_of(&b, "a")), (None, None));
}

#[tokio::test(start_paused = true)]
async fn discovery_switched_off_forgets_the_others() {
    let place = Place::default();
    place.start();
    let (a, b) = (node(&place, "a"), node(&place, "b"));
    sleep(Duration::from_secs(1)).await;
    assert!(acquainted(&a, &b));
    a.put("cluster", DiscoveryConfig::default());
    sleep(Duration::from_secs(1)).await;
    assert_eq!(hostname_of(&a, "b"), None);
}

/// Real time: sockets do not know the paused one.
#[tokio::test]
async fn it_is_reached_over_tcp() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let service = SmallService::new();
    let mut told = service.changes.subscribe();
    let serving = Server::builder()
        .add_service(ClusterServer::new(service))
        .serve_with_incoming(TcpListenerStream::new(listener));
    let _server = stdx::tasks::spawn("small-service", async move { serving.await.unwrap() });
    let _a = node_by(TcpDial, &address, "a", 7);
    let told = tokio::time::timeout(Duration::from_secs(10), told.recv()).await.expect("told within ten seconds");
    assert_eq!(told.unwrap().affiliates[0].id, "a");
}
