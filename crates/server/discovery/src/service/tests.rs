use tokio::net::TcpListener;
use tonic::Code;
use tonic::transport::Channel;

use super::api::cluster_client::ClusterClient;
use super::*;
use crate::serve;

struct Running {
    client: ClusterClient<Channel>,
    stop: CancellationToken,
    server: tokio::task::JoinSet<Result<(), crate::ServeError>>,
}

async fn running(options: Options) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let mut server = tokio::task::JoinSet::new();
    server.spawn(serve(listener, None, options, stop.clone()));
    let client = ClusterClient::connect(format!("http://{address}")).await.unwrap();
    Running { client, stop, server }
}

fn update(id: &str, data: &'static [u8]) -> api::AffiliateUpdateRequest {
    api::AffiliateUpdateRequest {
        cluster_id: "c".into(),
        affiliate_id: id.into(),
        affiliate_data: Some(data.into()),
        affiliate_endpoints: vec![],
        ttl: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
    }
}

#[tokio::test]
async fn hello_tells_the_client_its_address() {
    let mut it = running(Options::default()).await;
    let hello = api::HelloRequest { cluster_id: "c".into(), client_version: "v0".into() };
    let answer = it.client.hello(hello).await.unwrap().into_inner();
    assert_eq!(answer.client_ip.as_ref(), [127, 0, 0, 1]);
    assert_eq!(answer.redirect, None);
}

#[tokio::test]
async fn a_watch_gives_a_snapshot_and_then_each_change() {
    let mut it = running(Options::default()).await;
    it.client.affiliate_update(update("a", b"1")).await.unwrap();
    let request = api::WatchRequest { cluster_id: "c".into() };
    let mut watch = it.client.watch(request).await.unwrap().into_inner();
    let first = watch.message().await.unwrap().unwrap();
    assert_eq!((first.affiliates.len(), first.deleted), (1, false));

    it.client.affiliate_update(update("b", b"2")).await.unwrap();
    let second = watch.message().await.unwrap().unwrap();
    assert_eq!((second.affiliates[0].id.as_str(), second.deleted), ("b", false));

    let delete = api::AffiliateDeleteRequest { cluster_id: "c".into(), affiliate_id: "a".into() };
    it.client.affiliate_delete(delete).await.unwrap();
    let third = watch.message().await.unwrap().unwrap();
    assert_eq!((third.affiliates[0].id.as_str(), third.deleted), ("a", true));

    let list = it.client.list(api::ListRequest { cluster_id: "c".into() }).await.unwrap().into_inner();
    assert_eq!(list.affiliates.iter().map(|a| a.id.as_str()).collect::<Vec<_>>(), ["b"]);
    let other = it.client.list(api::ListRequest { cluster_id: "d".into() }).await.unwrap().into_inner();
    assert_eq!(other.affiliates, []);
}

#[tokio::test]
async fn a_request_without_ttl_is_refused() {
    let mut it = running(Options::default()).await;
    let refused = it.client.affiliate_update(api::AffiliateUpdateRequest { ttl: None, ..update("a", b"1") }).await;
    assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn too_many_requests_are_refused_until_some_are_earned() {
    let rate = RateLimit { per_second: 0.000_001, burst: 3.0 };
    let mut it = running(Options { rate, ..Options::default() }).await;
    for _ in 0..3 {
        it.client.list(api::ListRequest { cluster_id: "c".into() }).await.unwrap();
    }
    let refused = it.client.list(api::ListRequest { cluster_id: "c".into() }).await;
    assert_eq!(refused.unwrap_err().code(), Code::ResourceExhausted);
}

#[tokio::test]
async fn stopping_ends_the_watches_and_the_server() {
    let mut it = running(Options::default()).await;
    let request = api::WatchRequest { cluster_id: "c".into() };
    let mut watch = it.client.watch(request).await.unwrap().into_inner();
    watch.message().await.unwrap();
    it.stop.cancel();
    assert_eq!(watch.message().await.unwrap(), None);
    drop(it.client);
    let ended = tokio::time::timeout(Duration::from_secs(2), it.server.join_next()).await.unwrap();
    assert!(matches!(ended, Some(Ok(Ok(())))), "{ended:?}");
}

#[tokio::test]
async fn over_tls_the_client_hears_its_address_too() {
    let now = stdx::Clock::now(&stdx::SystemClock);
    let ca = pki::Authority::generate(pki::CaProfile::Os, now).unwrap();
    let template = pki::Template {
        subject: pki::Subject::common_name("discovery"),
        sans: pki::Sans::parse(["127.0.0.1"]),
        usage: pki::Usage::Server,
        validity: pki::Validity::starting(now, Duration::from_secs(600)),
    };
    let pair = ca.issue_pair(pki::Algorithm::Ed25519, &template).unwrap();
    let identity = transport::Identity::from_pem(&pair.crt, &pair.key).unwrap();
    let tls = transport::server_config(identity, &transport::ClientAuth::None).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut server = tokio::task::JoinSet::new();
    server.spawn(serve(listener, Some(tls), Options::default(), CancellationToken::new()));
    let roots = transport::Roots::from_pem([ca.certificate().to_pem()]).unwrap();
    let config = transport::client_config(None, &roots).unwrap();
    let channel = transport::dial::channel(address, transport::Slot::new(config));
    let hello = api::HelloRequest { cluster_id: "c".into(), client_version: "v0".into() };
    let answer = ClusterClient::new(channel).hello(hello).await.unwrap().into_inner();
    assert_eq!(answer.client_ip.as_ref(), [127, 0, 0, 1]);
}

#[tokio::test]
async fn a_watch_of_an_unknown_cluster_keeps_nothing() {
    let service = Service::new(Options::default(), CancellationToken::new());
    let request = Request::new(api::WatchRequest { cluster_id: "nobody".into() });
    let watch = api::cluster_server::Cluster::watch(&service, request).await.unwrap().into_inner();
    {
        let inner = service.inner.lock();
        assert_eq!((inner.registry.clusters(), inner.watches.total), (0, 1));
        // what a watch takes before anything happened: blocks of a channel come with its messages
        assert!(size_of::<Change>() * 32 < 4096, "{}", size_of::<Change>());
    }
    drop(watch);
    service.collect(Instant::now());
    let inner = service.inner.lock();
    assert_eq!((inner.watchers.len(), inner.watches.total), (0, 0));
}

#[tokio::test]
async fn a_watcher_that_does_not_read_is_told_to_start_again() {
    let service = Service::new(Options::default(), CancellationToken::new());
    let request = Request::new(api::WatchRequest { cluster_id: "c".into() });
    let mut watch = api::cluster_server::Cluster::watch(&service, request).await.unwrap().into_inner();
    for n in 0..=WATCH_BACKLOG {
        let change = Change::Deleted(n.to_string());
        service.inner.lock().notify("c", vec![change]);
    }
    assert!(service.inner.lock().watchers.is_empty(), "it holds no more than the backlog");
    let mut seen = 0;
    let end = loop {
        match watch.next().await.unwrap() {
            Ok(_) => seen += 1,
            Err(status) => break status,
        }
    };
    assert_eq!((seen, end.code()), (WATCH_BACKLOG + 1, Code::Aborted), "the snapshot and the backlog");
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn watches_are_bounded_for_one_source_also_without_tls() {
    let mut it = running(Options { watches_per_source: 2, ..Options::default() }).await;
    let request = || api::WatchRequest { cluster_id: "c".into() };
    let _first = it.client.watch(request()).await.unwrap();
    let second = it.client.watch(request()).await.unwrap();
    assert_eq!(it.client.watch(request()).await.unwrap_err().code(), Code::ResourceExhausted);
    drop(second);
    let again = async {
        while it.client.watch(request()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), again).await.expect("the second one's place is free");
}
