use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::{TcpListener, UdpSocket};

use super::*;

const SOON: Duration = Duration::from_secs(20);

fn to(protocol: Protocol, port: u16) -> ServiceLogs {
    let endpoint = Endpoint { protocol, host: "127.0.0.1".to_owned(), port };
    ServiceLogs { endpoint, tags: BTreeMap::from([("rack".to_owned(), "7".to_owned())]) }
}

fn told(message: &[u8]) -> (String, String, String) {
    let object: Value = serde_json::from_slice(message).unwrap();
    let text = |key: &str| object[key].as_str().unwrap().to_owned();
    (text("talos-service"), text("msg"), text("rack"))
}

fn expected(service: &str, message: &str) -> (String, String, String) {
    (service.to_owned(), message.to_owned(), "7".to_owned())
}

async fn accept(listener: &TcpListener) -> BufReader<tokio::net::TcpStream> {
    let accepted = tokio::time::timeout(SOON, listener.accept()).await.expect("nobody connects");
    BufReader::new(accepted.unwrap().0)
}

async fn line(stream: &mut BufReader<tokio::net::TcpStream>) -> Vec<u8> {
    let mut line = Vec::new();
    tokio::time::timeout(SOON, stream.read_until(b'\n', &mut line)).await.expect("no line comes").unwrap();
    assert_eq!(line.pop(), Some(b'\n'));
    line
}

#[tokio::test]
async fn lines_of_all_services_arrive_by_tcp_also_after_the_receiver_was_away() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let logs = LogStore::default();
    logs.sink("machined")(b"before\nhalf");
    let _delivery =
        stdx::tasks::spawn("delivery", deliver_service_logs(logs.clone(), to(Protocol::Tcp, address.port())));
    let mut stream = accept(&listener).await;
    assert_eq!(told(&line(&mut stream).await), expected("machined", "before"));
    logs.sink("machined")(b" and half\n\n");
    assert_eq!(told(&line(&mut stream).await), expected("machined", "half and half"));
    logs.sink("etcd")(b"{\"msg\":\"later\"}\n");
    assert_eq!(told(&line(&mut stream).await), expected("etcd", "later"));

    drop((stream, listener));
    tokio::time::sleep(Duration::from_millis(100)).await;
    logs.sink("etcd")(b"while it is away\n");
    tokio::time::sleep(Duration::from_millis(100)).await;
    let listener = TcpListener::bind(address).await.unwrap();
    let mut stream = accept(&listener).await;
    assert_eq!(told(&line(&mut stream).await), expected("etcd", "while it is away"));
}

#[tokio::test]
async fn each_line_is_a_packet_by_udp_and_long_ones_are_cut() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let logs = LogStore::default();
    // Each of these bytes takes six in JSON.
    let long = vec![1; 20_000];
    logs.sink("apid")(&[&long[..], b"\nshort\n"].concat());
    let delivery = deliver_service_logs(logs.clone(), to(Protocol::Udp, socket.local_addr().unwrap().port()));
    let _delivery = stdx::tasks::spawn("delivery", delivery);
    let mut packet = vec![0; 64 << 10];
    let mut messages = Vec::new();
    for _ in 0..2 {
        let length = tokio::time::timeout(SOON, socket.recv(&mut packet)).await.expect("no packet comes").unwrap();
        messages.push(told(&packet[..length]).1);
    }
    assert_eq!((messages[0].len(), messages[1].as_str()), (8 << 10, "short"));
}

#[tokio::test]
async fn a_receiver_that_reads_nothing_costs_lines_and_no_memory() {
    let logs = LogStore::default();
    let sink = logs.sink("x");
    let losses = Losses::default();
    let (sender, mut messages) = mpsc::channel(QUEUE);
    let delivery = to(Protocol::Tcp, 1);
    let reading = read_all(logs.clone(), &delivery, sender, &losses);
    tokio::pin!(reading);
    let line = [&[b'n'; 1000][..], b"\n"].concat();
    for _ in 0..3000 {
        sink(&line);
        drop(tokio::time::timeout(Duration::ZERO, &mut reading).await);
        tokio::task::yield_now().await;
    }
    while let Ok(Some(_)) = tokio::time::timeout(Duration::from_millis(200), async {
        tokio::select! {
            message = messages.recv() => message,
            () = &mut reading => None,
        }
    })
    .await
    {}
    assert!(losses.take() > 1 << 20, "overwritten lines are counted");
}
