//! Limits on one caller: connections, streams, memory. Over real TLS on loopback.

use std::net::SocketAddr;
use std::time::Duration;

use apid::CallLimits;
use futures::StreamExt;
use http_body_util::BodyExt;
use pki::{Authority, PemPair};
use stdx::tasks::{CancellationToken, TaskSet};
use tonic::body::Body;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};
use transport::Slot;
use wire::machine::machine_service_client::MachineServiceClient;

use crate::support::{Node, authority, client, client_certificate, framed, machined_on, server_certificate};
use crate::{admin, control_plane, one_node, raw, valid, with};

fn reader(ca: &Authority) -> PemPair {
    client_certificate(ca, &["os:reader"], valid())
}

fn api(ca: &Authority, address: SocketAddr, certificate: &PemPair) -> MachineServiceClient<Channel> {
    MachineServiceClient::new(client(address, ca, Some(certificate)))
}

async fn stream(client: &mut MachineServiceClient<Channel>) -> Result<Streaming<wire::common::Data>, Status> {
    Ok(client.dmesg(wire::machine::DmesgRequest::default()).await?.into_inner())
}

async fn answers(client: &mut MachineServiceClient<Channel>) {
    let answer = tokio::time::timeout(Duration::from_secs(3), client.version(())).await;
    answer.expect("the call is kept out").unwrap();
}

#[tokio::test]
async fn idle_connections_do_not_keep_an_administrator_behind_the_same_address_out() {
    let ca = authority();
    let (_node, address) = one_node(&ca);
    let mut idle = Vec::new();
    for _ in 0..600 {
        idle.push(tokio::net::TcpStream::connect(address).await.unwrap());
    }
    answers(&mut admin(&ca, address)).await;
    // The flood continues while the administrator works.
    for _ in 0..8 {
        for _ in 0..32 {
            idle.push(tokio::net::TcpStream::connect(address).await.unwrap());
        }
        answers(&mut admin(&ca, address)).await;
    }
}

#[tokio::test]
async fn connections_with_one_key_have_a_limit_that_others_do_not_feel() {
    let ca = authority();
    let (_node, address) = one_node(&ca);
    let greedy = reader(&ca);
    let mut held = Vec::new();
    let refused = loop {
        let mut client = api(&ca, address, &greedy);
        match tokio::time::timeout(Duration::from_secs(10), client.version(())).await.unwrap() {
            Ok(_) => held.push(client),
            Err(status) => break status,
        }
    };
    assert_eq!(held.len(), 256, "{refused:?}");
    answers(&mut api(&ca, address, &reader(&ca))).await;
    answers(&mut admin(&ca, address)).await;
}

#[tokio::test]
async fn streams_of_one_client_leave_room_for_others() {
    let ca = authority();
    let (_node, address) = one_node(&ca);
    let greedy = reader(&ca);
    let mut client = api(&ca, address, &greedy);
    let mut held = Vec::new();
    let refused = loop {
        match stream(&mut client).await {
            Ok(stream) => held.push(stream),
            Err(status) => break status,
        }
    };
    assert_eq!((held.len(), refused.code()), (CallLimits::APID.streams_per_key, Code::ResourceExhausted));
    // More connections do not help, short calls still work.
    assert_eq!(stream(&mut api(&ca, address, &greedy)).await.unwrap_err().code(), Code::ResourceExhausted);
    answers(&mut client).await;
    let mut other = api(&ca, address, &reader(&ca));
    answers(&mut other).await;
    stream(&mut other).await.unwrap();
    held.pop();
    let again = async {
        while stream(&mut client).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), again).await.expect("a stream that ended still counts");
}

#[tokio::test]
async fn an_administrator_has_room_when_readers_have_taken_theirs() {
    let ca = authority();
    let limits = CallLimits { total: 8, reserved: 3, ..CallLimits::APID };
    let (node, port) = Node::start_with(&ca, "127.0.0.1", 0, control_plane(), "one", limits);
    let address = SocketAddr::new(node.ip, port);
    let mut held = Vec::new();
    for _ in 0..5 {
        held.push(stream(&mut api(&ca, address, &reader(&ca))).await.unwrap());
    }
    let mut late = api(&ca, address, &reader(&ca));
    assert_eq!(late.version(()).await.unwrap_err().code(), Code::ResourceExhausted);
    let operator = client_certificate(&ca, &["os:operator"], valid());
    assert_eq!(api(&ca, address, &operator).version(()).await.unwrap_err().code(), Code::ResourceExhausted);
    let mut admin = admin(&ca, address);
    answers(&mut admin).await;
    held.push(stream(&mut admin).await.unwrap());
    answers(&mut admin).await;
}

#[tokio::test]
async fn a_call_to_many_nodes_counts_once_for_each() {
    let ca = authority();
    let limits = CallLimits { per_key: 3, ..CallLimits::APID };
    let (node, port) = Node::start_with(&ca, "127.0.0.1", 0, control_plane(), "one", limits);
    let mut client = api(&ca, SocketAddr::new(node.ip, port), &reader(&ca));
    let nodes = [("nodes", "127.0.0.1"), ("nodes", "127.0.0.2"), ("nodes", "127.0.0.3"), ("nodes", "127.0.0.4")];
    client.version(with((), &nodes[..3])).await.unwrap();
    let refused = client.version(with((), &nodes)).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
}

/// Two nodes of one cluster on one port.
fn two_nodes(ca: &Authority, limits: CallLimits) -> (Vec<Node>, SocketAddr) {
    let (one, port) = Node::start(ca, "127.0.0.1", 0, control_plane(), "one");
    let (two, _) = Node::start_with(ca, "127.0.0.2", port, control_plane(), "two", limits);
    let address = SocketAddr::new(one.ip, port);
    (vec![one, two], address)
}

#[tokio::test]
async fn a_forwarded_call_counts_for_its_caller_and_not_for_the_node_that_forwards() {
    let ca = authority();
    let (_nodes, address) = two_nodes(&ca, CallLimits { streams_per_key: 1, ..CallLimits::APID });
    let on_two = || with(wire::machine::DmesgRequest::default(), &[("node", "127.0.0.2")]);
    let (mut first, mut second) = (api(&ca, address, &reader(&ca)), api(&ca, address, &reader(&ca)));
    let _held = first.dmesg(on_two()).await.unwrap();
    assert_eq!(first.dmesg(on_two()).await.unwrap_err().code(), Code::ResourceExhausted);
    second.dmesg(on_two()).await.unwrap();
}

#[tokio::test]
async fn machined_is_told_the_caller_and_a_client_cannot_claim_to_be_another() {
    let ca = authority();
    let (_nodes, address) = two_nodes(&ca, CallLimits::APID);
    let certificate = reader(&ca);
    let fingerprint = pki::Certificate::from_pem(&certificate.crt).unwrap().fingerprint();
    let mut client = api(&ca, address, &certificate);
    for node in ["127.0.0.1", "127.0.0.2"] {
        let claims = [("node", node), ("talos-caller", "somebody else")];
        let answer = client.version(with((), &claims)).await.unwrap().into_inner();
        let told = &answer.messages[0].version.as_ref().unwrap().built;
        let expected = told.starts_with(&format!("{fingerprint} 127.0.0.1:")) && told.ends_with(" O=os:reader");
        assert!(expected, "{node}: {told}");
    }
    let node = client_certificate(&ca, &["os:impersonator"], valid());
    let claims = [("talos-role", "os:reader"), ("talos-caller", "key address O=os:reader")];
    let answer = api(&ca, address, &node).version(with((), &claims)).await.unwrap().into_inner();
    assert_eq!(answer.messages[0].version.as_ref().unwrap().built, "key address O=os:reader");
}

#[tokio::test]
async fn a_request_is_no_larger_than_its_method_needs() {
    let ca = authority();
    let (_node, address) = one_node(&ca);
    let channel = client(address, &ca, Some(&reader(&ca)));
    for (length, expected) in [(60 << 10, Code::Ok), (70 << 10, Code::ResourceExhausted)] {
        let body = Body::new(http_body_util::Full::new(framed(&vec![7; length])).map_err(|never| match never {}));
        let response = raw(channel.clone(), "/machine.MachineService/Version", body).await.unwrap();
        let code = Status::from_header_map(response.headers()).map_or(Code::Ok, |status| status.code());
        assert_eq!(code, expected, "{length} bytes");
    }
}

#[tokio::test]
async fn a_call_goes_to_a_bounded_number_of_nodes() {
    let ca = authority();
    let (_node, address) = one_node(&ca);
    let nodes = (0..1100).map(|n| format!("a{n}")).collect::<Vec<_>>().join(",");
    let mut request = tonic::Request::new(());
    request.metadata_mut().insert("nodes", nodes.parse().unwrap());
    assert_eq!(admin(&ca, address).version(request).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn uploads_that_stall_in_maintenance_mode_are_few_and_do_not_stop_reads() {
    let ca = authority();
    let (tasks, directory) = (TaskSet::new("test"), tempfile::tempdir().unwrap());
    let socket = machined_on(directory.path(), &tasks);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let own = server_certificate(&ca, address.ip());
    let tls = Slot::new(apid::maintenance::tls(&own.crt, &own.key, &apid::maintenance::Clients::Anybody).unwrap());
    tasks.spawn("maintenance", async move {
        let clients = apid::maintenance::Clients::Anybody;
        apid::maintenance::serve(listener, tls, clients, &socket, CancellationToken::new()).await.unwrap();
    });
    let apply = |channel: Channel, body: Body| async move {
        // The connection lives as long as its channel.
        let response = raw(channel.clone(), "/machine.MachineService/ApplyConfiguration", body).await;
        response.map(|r| Status::from_header_map(r.headers()).map_or(Code::Ok, |status| status.code()))
    };
    let end = CancellationToken::new();
    let stalled = |end: CancellationToken| {
        let begin = futures::stream::iter([Ok(http_body::Frame::data(framed(&[7; 1000]).slice(..500)))]);
        let last = futures::stream::once(async move {
            end.cancelled().await;
            Err(Status::cancelled("test"))
        });
        Body::new(http_body_util::StreamBody::new(begin.chain(last)))
    };
    // One more than are taken: that one is refused, and the others stall.
    let mut uploads: futures::stream::FuturesUnordered<_> =
        (0..5).map(|_| apply(client(address, &ca, None), stalled(end.clone()))).collect();
    let first = tokio::time::timeout(Duration::from_secs(10), uploads.next()).await.expect("every upload is taken");
    assert_eq!(first.unwrap().unwrap(), Code::ResourceExhausted);
    let uploads = stdx::tasks::spawn("uploads", uploads.collect::<Vec<_>>());
    let channel = client(address, &ca, None);
    let whole = || Body::new(http_body_util::Full::new(framed(b"version: v1alpha1")).map_err(|never| match never {}));
    let read = raw(channel.clone(), "/cosi.resource.State/List", whole()).await.unwrap();
    // The machined of this test knows no state: the call has come through.
    assert_eq!(Status::from_header_map(read.headers()).unwrap().code(), Code::Unimplemented);
    // Many short connections from the same address do not displace those that last.
    for _ in 0..100 {
        assert_eq!(apply(client(address, &ca, None), whole()).await.unwrap(), Code::ResourceExhausted);
    }
    end.cancel();
    let served = async {
        while apply(channel.clone(), whole()).await.unwrap() != Code::Ok {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), served).await.expect("uploads that ended still count");
    drop(uploads);
}
