//! Against a small service of our own on loopback: two nodes find each other, one leaves.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use controller::testing::Harness;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_stream::{Stream, StreamExt, wrappers::BroadcastStream};
use tonic::{Request, Response, Status};
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

/// The service and its address. It ends with the test's runtime.
async fn service() -> (SmallService, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (changes, _) = broadcast::channel(64);
    let service = SmallService { affiliates: Arc::default(), changes, updates: Arc::default() };
    let server = tonic::transport::Server::builder().add_service(ClusterServer::new(service.clone()));
    let serving = server.serve_with_incoming(TcpListenerStream::new(listener));
    stdx::tasks::spawn("small-service", async move { serving.await.unwrap() }).detach();
    (service, address)
}

/// A node that uses the service at `address`.
fn node(address: &str, id: &str, key: u8) -> Harness {
    let harness = Harness::with(DiscoveryServiceController::new("/nonexistent".into()));
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

/// Real time: sockets do not know the paused one.
async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..500 {
        if let Some(found) = look() {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{what} did not happen");
}

fn hostname_of(harness: &Harness, id: &str) -> Option<String> {
    harness.get_in::<Affiliate>(RAW_NAMESPACE, &format!("service/{id}")).map(|affiliate| affiliate.hostname.clone())
}

#[tokio::test]
async fn two_nodes_find_each_other_follow_changes_and_lose_who_is_reset() {
    let (service, address) = service().await;
    let (a, b) = (node(&address, "a", 7), node(&address, "b", 7));
    assert_eq!(eventually("a hears of b", || hostname_of(&a, "b")).await, "host-b");
    assert_eq!(eventually("b hears of a", || hostname_of(&b, "a")).await, "host-a");
    assert_eq!(hostname_of(&a, "a"), None, "not of itself");
    let update = service.updates.lock()[0].clone();
    assert_eq!((update.cluster_id.as_str(), update.ttl.unwrap().seconds), ("abc", 1800));
    assert!(!update.affiliate_data.unwrap().windows(4).any(|bytes| bytes == b"host"), "it is sealed");

    a.put("a", Affiliate { node_id: "a".into(), hostname: "renamed".into(), ..Default::default() });
    eventually("b hears the new name", || hostname_of(&b, "a").filter(|name| name == "renamed")).await;

    a.put(MachineResetSignal::ID, MachineResetSignal::default());
    eventually("b hears that a is gone", || hostname_of(&b, "a").is_none().then_some(())).await;
    assert!(!service.affiliates.lock().contains_key("a"));
    eventually("a forgets the others", || hostname_of(&a, "b").is_none().then_some(())).await;
}

#[tokio::test]
async fn nodes_of_another_secret_are_not_understood() {
    let (service, address) = service().await;
    let (a, b) = (node(&address, "a", 7), node(&address, "b", 8));
    eventually("both told the service", || (service.affiliates.lock().len() == 2).then_some(())).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!((hostname_of(&a, "b"), hostname_of(&b, "a")), (None, None));
}

#[tokio::test]
async fn discovery_switched_off_forgets_the_others() {
    let (_service, address) = service().await;
    let (a, _b) = (node(&address, "a", 7), node(&address, "b", 7));
    eventually("a hears of b", || hostname_of(&a, "b")).await;
    a.put("cluster", DiscoveryConfig::default());
    eventually("a forgets b", || hostname_of(&a, "b").is_none().then_some(())).await;
}
