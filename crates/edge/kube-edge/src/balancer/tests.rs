use super::*;
use std::net::Ipv4Addr;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const PATIENCE: Duration = Duration::from_secs(10);

/// Answers every connection with its name.
async fn named_server(name: &'static str) -> (Upstream, TaskSet) {
    let listener = TcpListener::bind(LOOPBACK).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let tasks = TaskSet::new(name);
    tasks.spawn("server", async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _gone = stream.write_all(name.as_bytes()).await;
        }
    });
    (Upstream { host: "127.0.0.1".to_owned(), port }, tasks)
}

/// A port without a listener.
async fn closed() -> Upstream {
    let listener = TcpListener::bind(LOOPBACK).await.unwrap();
    Upstream { host: "127.0.0.1".to_owned(), port: listener.local_addr().unwrap().port() }
}

async fn ask(balancer: &Balancer) -> String {
    let mut stream = TcpStream::connect(balancer.address()).await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer
}

async fn wait(balancer: &Balancer, wanted: bool) {
    let mut healthy = balancer.healthy();
    timeout(PATIENCE, healthy.wait_for(|healthy| *healthy == wanted)).await.unwrap().unwrap();
}

#[tokio::test]
async fn connection_goes_to_an_upstream_that_answers() {
    let balancer = Balancer::bind(LOOPBACK).await.unwrap();
    let (live, _server) = named_server("live").await;
    let dead = closed().await;
    balancer.set_upstreams([dead, live]);
    wait(&balancer, true).await;
    for _ in 0..4 {
        assert_eq!(ask(&balancer).await, "live");
    }
}

#[tokio::test]
async fn new_upstream_is_used_without_waiting_for_the_next_check() {
    let balancer = Balancer::bind(LOOPBACK).await.unwrap();
    assert!(!*balancer.healthy().borrow());
    let (live, _server) = named_server("live").await;
    balancer.set_upstreams([live]);
    assert_eq!(ask(&balancer).await, "live");
    wait(&balancer, true).await;
}

#[tokio::test]
async fn connection_is_held_until_an_upstream_answers() {
    let balancer = Balancer::bind(LOOPBACK).await.unwrap();
    let starting = closed().await;
    balancer.set_upstreams([starting.clone()]);
    let server = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, starting.port)).await.unwrap();
        loop {
            // Checks connect, too.
            let (mut stream, _) = listener.accept().await.unwrap();
            let _gone = stream.write_all(b"started").await;
        }
    };
    tokio::select! {
        answer = ask(&balancer) => assert_eq!(answer, "started"),
        () = server => {}
    }
}

#[tokio::test(start_paused = true)]
async fn connection_is_not_held_for_ever() {
    let balancer = Balancer::bind(LOOPBACK).await.unwrap();
    let begun = tokio::time::Instant::now();
    let mut stream = TcpStream::connect(balancer.address()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "");
    assert!(begun.elapsed() >= HOLD && begun.elapsed() < HOLD + Duration::from_secs(1), "{:?}", begun.elapsed());
}

/// Clients repeat a connection that was closed, ten times with pauses, and take a refused one as the answer.
#[tokio::test(start_paused = true)]
async fn a_long_outage_refuses_connections_until_an_upstream_answers() {
    let balancer = Balancer::bind(LOOPBACK).await.unwrap();
    assert_eq!(ask(&balancer).await, "");
    let begun = tokio::time::Instant::now();
    let refused = async {
        loop {
            match TcpStream::connect(balancer.address()).await {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return,
                // It was in the queue of the listener.
                Ok(_) | Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    };
    timeout(PATIENCE, refused).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());

    let (live, _server) = named_server("live").await;
    balancer.set_upstreams([live]);
    wait(&balancer, true).await;
    let accepted = async {
        while TcpStream::connect(balancer.address()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, accepted).await.unwrap();
    assert_eq!(ask(&balancer).await, "live");
}

#[tokio::test]
async fn upstream_that_went_away_is_passed_over() {
    let balancer = Balancer::bind(LOOPBACK).await.unwrap();
    let (first, first_server) = named_server("first").await;
    balancer.set_upstreams([first.clone()]);
    wait(&balancer, true).await;
    assert_eq!(ask(&balancer).await, "first");

    drop(first_server);
    let (second, _second_server) = named_server("second").await;
    balancer.set_upstreams([first, second]);
    for _ in 0..4 {
        assert_eq!(ask(&balancer).await, "second");
    }
}

#[tokio::test]
async fn loss_of_the_last_upstream_is_seen_as_unhealthy() {
    let balancer = Balancer::bind(LOOPBACK).await.unwrap();
    let (only, _server) = named_server("only").await;
    balancer.set_upstreams([only]);
    wait(&balancer, true).await;
    balancer.set_upstreams([]);
    wait(&balancer, false).await;
}

#[tokio::test]
async fn dropped_balancer_listens_no_longer() {
    let balancer = Balancer::bind(LOOPBACK).await.unwrap();
    let address = balancer.address();
    drop(balancer);
    let refused = async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, refused).await.unwrap();
}
