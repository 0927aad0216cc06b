//! `apid` over real TLS on loopback.

#![expect(clippy::unwrap_used, reason = "tests")]

mod limits;
mod maintenance;
mod run;
mod support;

use std::net::SocketAddr;
use std::time::Duration;

use apid::NodeState;
use apid::authz::METHODS;
use http::Request;
use http_body_util::BodyExt;
use pki::{Authority, Validity};
use support::{HOUR, LARGE, Node, authority, client, client_certificate, framed, now, server_certificate};
use tonic::body::Body;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tower::ServiceExt;
use wire::machine::machine_service_client::MachineServiceClient;

fn valid() -> Validity {
    Validity::starting(now(), HOUR)
}

fn control_plane() -> NodeState {
    NodeState { forwarding: apid::Forwarding::Forwards, ..NodeState::default() }
}

fn one_node(ca: &Authority) -> (Node, SocketAddr) {
    let (node, port) = Node::start(ca, "127.0.0.1", 0, control_plane(), "one");
    let address = SocketAddr::new(node.ip, port);
    (node, address)
}

fn admin(ca: &Authority, address: SocketAddr) -> MachineServiceClient<Channel> {
    MachineServiceClient::new(client(address, ca, Some(&client_certificate(ca, &["os:admin"], valid()))))
}

fn with<T>(message: T, metadata: &[(&'static str, &'static str)]) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    for (key, value) in metadata {
        request.metadata_mut().append(*key, value.parse().unwrap());
    }
    request
}

async fn raw(channel: Channel, path: &str, body: Body) -> Result<http::Response<Body>, Status> {
    let request = Request::post(path).header("content-type", "application/grpc").header("te", "trailers").body(body);
    channel.oneshot(request.unwrap()).await.map_err(|e| Status::unavailable(stdx::error_chain(&e)))
}

#[tokio::test]
async fn a_client_of_the_cluster_gets_an_answer_and_nobody_else_does() {
    let (ca, other) = (authority(), authority());
    let (_node, address) = one_node(&ca);
    let roles = &["os:admin"][..];
    let expired = Validity { not_before: now() - 2 * HOUR, not_after: now() - HOUR };
    let early = Validity { not_before: now() + HOUR, not_after: now() + 2 * HOUR };
    let server_only = server_certificate(&ca, address.ip());
    let refused = [
        ("no certificate", None),
        ("another cluster's", Some(client_certificate(&other, roles, valid()))),
        ("expired", Some(client_certificate(&ca, roles, expired))),
        ("not valid yet", Some(client_certificate(&ca, roles, early))),
        ("a server's certificate", Some(server_only)),
    ];
    for (what, certificate) in &refused {
        let mut client = MachineServiceClient::new(client(address, &ca, certificate.as_ref()));
        let status = client.version(()).await.unwrap_err();
        // In TLS 1.3 the client learns after its own handshake that it was refused: before, while or after it sends.
        let closed = matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled);
        assert!(closed && std::error::Error::source(&status).is_some(), "{what}: {status:?}");
    }
    let answer = admin(&ca, address).version(()).await.unwrap().into_inner();
    assert_eq!(answer.messages[0].version.as_ref().unwrap().tag, "one");
}

#[tokio::test]
async fn a_server_of_another_cluster_is_refused_by_the_client() {
    let (ca, other) = (authority(), authority());
    let (_node, address) = one_node(&ca);
    let certificate = client_certificate(&ca, &["os:admin"], valid());
    let mut client = MachineServiceClient::new(client(address, &other, Some(&certificate)));
    assert_eq!(client.version(()).await.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn each_role_gets_exactly_its_methods_over_the_wire() {
    let ca = authority();
    let (_node, address) = one_node(&ca);
    let roles = ["os:admin", "os:operator", "os:reader", "os:etcd:backup", "os:impersonator", "os:new", "admin"];
    for role in roles {
        let channel = client(address, &ca, Some(&client_certificate(&ca, &[role], valid())));
        for method in METHODS {
            let body = Body::new(http_body_util::Full::new(framed(b"")).map_err(|never| match never {}));
            let response = raw(channel.clone(), method.path, body).await.unwrap();
            let denied =
                Status::from_header_map(response.headers()).is_some_and(|s| s.code() == Code::PermissionDenied);
            let allowed = method.roles.iter().any(|r| r.as_str() == role);
            assert_eq!(!denied, allowed, "{} for {role}", method.path);
        }
    }
}

#[tokio::test]
async fn a_method_that_nobody_knows_is_unimplemented() {
    let ca = authority();
    let (_node, address) = one_node(&ca);
    let channel = client(address, &ca, Some(&client_certificate(&ca, &["os:admin"], valid())));
    let response = raw(channel, "/machine.MachineService/Nope", Body::empty()).await.unwrap();
    assert_eq!(Status::from_header_map(response.headers()).unwrap().code(), Code::Unimplemented);
}

#[tokio::test]
async fn roles_reach_machined_and_a_client_cannot_add_its_own() {
    let ca = authority();
    let (_node, address) = one_node(&ca);
    let certificate = client_certificate(&ca, &["os:reader", "os:etcd:backup", "os:unheard-of"], valid());
    let mut client = MachineServiceClient::new(client(address, &ca, Some(&certificate)));
    let claims = [("talos-role", "os:admin"), ("proxyfrom", "10.5.0.9"), ("node", "127.0.0.1"), ("custom", "x")];
    let answer = client.version(with((), &claims)).await.unwrap().into_inner();
    let heard = &answer.messages[0].version.as_ref().unwrap().sha;
    assert_eq!(heard, "talos-role=os:reader;talos-role=os:etcd:backup;custom=x");
    assert_eq!(answer.messages[0].metadata, None, "an answer of one node is passed on as it is");
}

#[tokio::test]
async fn an_error_passes_with_its_details_and_trailers() {
    let ca = authority();
    let (_node, address) = one_node(&ca);
    let status = admin(&ca, address).memory(()).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::FailedPrecondition, "not now"));
    assert_eq!(status.details(), [1, 2, 3]);
    assert_eq!(status.metadata().get("x-custom").unwrap(), "kept");
}

#[tokio::test]
async fn a_stream_of_requests_passes_byte_for_byte() {
    let ca = authority();
    let (_node, address) = one_node(&ca);
    let channel = client(address, &ca, Some(&client_certificate(&ca, &["os:admin"], valid())));
    let chunks = [framed(b"first"), framed(&vec![7; 100_000])].map(|c| Ok::<_, Status>(http_body::Frame::data(c)));
    let body = Body::new(http_body_util::StreamBody::new(futures::stream::iter(chunks)));
    let response = raw(channel, "/machine.MachineService/EtcdRecover", body).await.unwrap();
    assert_eq!(response.headers()["x-length"], (5 + 5 + 5 + 100_000).to_string());
}

/// Two live nodes and one that was killed, all on one port; the first is the door.
async fn three_nodes(ca: &Authority) -> (Vec<Node>, SocketAddr) {
    let (one, port) = Node::start(ca, "127.0.0.1", 0, control_plane(), "one");
    let (two, _) = Node::start(ca, "127.0.0.2", port, NodeState::default(), "two");
    let (three, _) = Node::start(ca, "127.0.0.3", port, NodeState::default(), "three");
    three.kill().await;
    let address = SocketAddr::new(one.ip, port);
    (vec![one, two], address)
}

const ALL: [(&str, &str); 3] = [("nodes", "127.0.0.1"), ("nodes", "127.0.0.3"), ("nodes", "127.0.0.2")];

#[tokio::test]
async fn a_node_that_is_down_is_reported_in_its_place() {
    let ca = authority();
    let (_nodes, address) = three_nodes(&ca).await;
    let answer = admin(&ca, address).version(with((), &ALL)).await.unwrap().into_inner();
    let hosts: Vec<_> = answer.messages.iter().map(|m| m.metadata.as_ref().unwrap().hostname.as_str()).collect();
    assert_eq!(hosts, ["127.0.0.1", "127.0.0.3", "127.0.0.2"]);
    let tags: Vec<_> =
        answer.messages.iter().map(|m| m.version.as_ref().map(|v| v.tag.as_str()).unwrap_or_default()).collect();
    assert_eq!(tags, ["one", "", "two"]);
    let failed = answer.messages[1].metadata.as_ref().unwrap();
    assert!(failed.error.contains("Unavailable"), "{}", failed.error);
    assert_eq!(failed.status.as_ref().unwrap().code, Code::Unavailable as i32);
    // The other node heard the client's role from this node, and nothing that would make it forward again.
    assert_eq!(answer.messages[2].version.as_ref().unwrap().sha, "talos-role=os:admin");
}

#[tokio::test]
async fn streams_of_several_nodes_are_merged_with_their_names() {
    let ca = authority();
    let (_nodes, address) = three_nodes(&ca).await;
    let request = with(wire::machine::LogsRequest::default(), &ALL);
    let mut stream = admin(&ca, address).logs(request).await.unwrap().into_inner();
    let mut lines = Vec::new();
    let mut failed = Vec::new();
    while let Some(data) = stream.message().await.unwrap() {
        let metadata = data.metadata.unwrap();
        if metadata.error.is_empty() {
            lines.push((metadata.hostname, String::from_utf8(data.bytes.to_vec()).unwrap()));
        } else {
            failed.push(metadata.hostname);
        }
    }
    lines.sort();
    let expected =
        [("127.0.0.1", "one one"), ("127.0.0.1", "one two"), ("127.0.0.2", "two one"), ("127.0.0.2", "two two")];
    assert_eq!(lines, expected.map(|(host, line)| (host.to_owned(), line.to_owned())));
    assert_eq!(failed, ["127.0.0.3"]);
}

#[tokio::test]
async fn one_other_node_answers_as_it_is_and_a_dead_one_is_unavailable() {
    let ca = authority();
    let (_nodes, address) = three_nodes(&ca).await;
    let answer = admin(&ca, address).version(with((), &[("node", "127.0.0.2")])).await.unwrap().into_inner();
    assert_eq!(answer.messages[0].version.as_ref().unwrap().tag, "two");
    assert_eq!(answer.messages[0].metadata, None);
    let status = admin(&ca, address).version(with((), &[("node", "127.0.0.3")])).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
}

#[tokio::test]
async fn a_worker_carries_no_calls() {
    let ca = authority();
    let (node, address) = one_node(&ca);
    node.state.set(NodeState { addresses: [node.ip].into(), ..NodeState::default() });
    let status = admin(&ca, address).version(with((), &[("node", "127.0.0.2")])).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(status.message().starts_with("no request forwarding"), "{status:?}");
}

#[tokio::test]
async fn a_call_that_a_node_forwards_stays_where_it_arrives() {
    let ca = authority();
    let (_nodes, address) = three_nodes(&ca).await;
    let certificate = client_certificate(&ca, &["os:impersonator"], valid());
    let mut client = MachineServiceClient::new(client(address, &ca, Some(&certificate)));
    let claims = [("talos-role", "os:reader"), ("proxyfrom", "127.0.0.9"), ("node", "127.0.0.2")];
    let answer = client.version(with((), &claims)).await.unwrap().into_inner();
    assert_eq!(answer.messages[0].version.as_ref().unwrap().tag, "one");
}

#[tokio::test]
async fn new_certificates_count_for_new_connections_without_a_restart() {
    let (ca, next) = (authority(), authority());
    let (node, address) = one_node(&ca);
    let mut open = admin(&ca, address);
    open.version(()).await.unwrap();
    let roots = transport::Roots::from_pem([next.certificate().to_pem()]).unwrap();
    let identity = support::identity(&server_certificate(&next, node.ip));
    node.tls.set(transport::server_config(identity, &transport::ClientAuth::Required(roots)).unwrap());
    open.version(()).await.unwrap();
    admin(&next, address).version(()).await.unwrap();
    assert_eq!(admin(&ca, address).version(()).await.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn a_peer_that_never_finishes_its_handshake_does_not_hold_up_others() {
    let ca = authority();
    let (_node, address) = one_node(&ca);
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(tokio::net::TcpStream::connect(address).await.unwrap());
    }
    let mut client = admin(&ca, address);
    let answer = tokio::time::timeout(Duration::from_secs(5), client.version(())).await;
    assert_eq!(answer.unwrap().unwrap().into_inner().messages.len(), 1);
}

async fn version_in_time(client: &mut MachineServiceClient<Channel>) {
    let answer = tokio::time::timeout(Duration::from_secs(10), client.version(())).await;
    assert_eq!(answer.expect("the call is held up").unwrap().into_inner().messages.len(), 1);
}

#[tokio::test]
async fn readers_that_stand_still_do_not_hold_up_others() {
    let ca = authority();
    let (node, address) = one_node(&ca);
    let mut still = Vec::new();
    for _ in 0..16 {
        let stream = admin(&ca, address).dmesg(wire::machine::DmesgRequest::default()).await.unwrap();
        still.push(stream.into_inner());
    }
    // Until all of them have as much underway as they may.
    let mut client = admin(&ca, address);
    let (mut given, mut unchanged) = (0, 0);
    while unchanged < 20 {
        version_in_time(&mut client).await;
        let now = *node.endless.given.borrow();
        unchanged = if now == given { unchanged + 1 } else { 0 };
        given = now;
    }
    assert_eq!(*node.endless.open.borrow(), still.len());
}

#[tokio::test]
async fn a_stream_ends_at_its_source_when_its_reader_leaves() {
    let ca = authority();
    let (nodes, address) = three_nodes(&ca).await;
    for target in [("node", "127.0.0.1"), ("node", "127.0.0.2"), ("nodes", "127.0.0.2")] {
        let source = if target.1 == "127.0.0.1" { &nodes[0] } else { &nodes[1] };
        let mut open = source.endless.open.subscribe();
        let request = with(wire::machine::DmesgRequest::default(), &[target]);
        let mut stream = admin(&ca, address).dmesg(request).await.unwrap().into_inner();
        stream.message().await.unwrap().unwrap();
        assert_eq!(*open.borrow_and_update(), 1, "{target:?}");
        drop(stream);
        let ended = tokio::time::timeout(Duration::from_secs(10), open.wait_for(|open| *open == 0)).await;
        assert_eq!(*ended.expect("it continues").unwrap(), 0);
    }
}

#[tokio::test]
async fn a_node_that_dies_in_the_middle_is_named_and_the_others_go_on() {
    let ca = authority();
    let (mut nodes, address) = three_nodes(&ca).await;
    let targets = [("nodes", "127.0.0.1"), ("nodes", "127.0.0.2")];
    let request = with(wire::machine::DmesgRequest::default(), &targets);
    let mut stream = admin(&ca, address).dmesg(request).await.unwrap().into_inner();
    let mut victim = nodes.pop();
    let mut seen = std::collections::BTreeMap::new();
    let (mut failed, mut after) = (None, 0);
    let reading = async {
        while after < 10 {
            let metadata = stream.message().await.unwrap().unwrap().metadata.unwrap();
            *seen.entry(metadata.hostname.clone()).or_insert(0) += 1;
            if !metadata.error.is_empty() {
                failed = Some((metadata.hostname, metadata.status.unwrap().code));
            } else if failed.is_some() {
                assert_eq!(metadata.hostname, "127.0.0.1");
                after += 1;
            }
            if seen.len() == 2
                && let Some(victim) = victim.take()
            {
                victim.kill().await;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), reading).await.expect("the death of a node is not told");
    let (host, code) = failed.unwrap();
    assert_eq!(host, "127.0.0.2");
    assert!([Code::Unavailable, Code::Unknown, Code::Internal].map(|c| c as i32).contains(&code), "{code}");
}

#[tokio::test]
async fn a_deadline_goes_along_to_the_node() {
    let ca = authority();
    let (_nodes, address) = three_nodes(&ca).await;
    for target in [("node", "127.0.0.1"), ("node", "127.0.0.2"), ("nodes", "127.0.0.2")] {
        let mut request = with((), &[target]);
        request.set_timeout(Duration::from_secs(20));
        let answer = admin(&ca, address).version(request).await.unwrap().into_inner();
        let heard = &answer.messages[0].version.as_ref().unwrap().sha;
        assert!(heard.contains("grpc-timeout="), "{target:?}: {heard}");
    }
}

#[tokio::test]
async fn messages_of_32_mib_pass_both_ways() {
    let ca = authority();
    let (_nodes, address) = three_nodes(&ca).await;
    for target in [("node", "127.0.0.1"), ("node", "127.0.0.2"), ("nodes", "127.0.0.2")] {
        let mut client = admin(&ca, address).max_decoding_message_size(transport::MAX_MESSAGE);
        let answer = client.hostname(with((), &[target])).await.unwrap().into_inner();
        assert!(answer.messages[0].hostname.len() > LARGE - 3, "{target:?}");
    }
    let channel = client(address, &ca, Some(&client_certificate(&ca, &["os:admin"], valid())));
    let large = framed(&vec![7; LARGE]);
    let body = Body::new(http_body_util::Full::new(large.clone()).map_err(|never| match never {}));
    let response = raw(channel, "/machine.MachineService/ApplyConfiguration", body).await.unwrap();
    assert_eq!(response.headers()["x-length"], large.len().to_string());
}

#[tokio::test]
async fn a_member_is_found_by_its_name() {
    let ca = authority();
    let (nodes, address) = three_nodes(&ca).await;
    let members = [("worker-1".to_owned(), vec!["127.0.0.2".parse().unwrap()])].into();
    nodes[0].state.set(NodeState { members, addresses: [nodes[0].ip].into(), ..control_plane() });
    let answer = admin(&ca, address).version(with((), &[("node", "worker-1")])).await.unwrap().into_inner();
    assert_eq!(answer.messages[0].version.as_ref().unwrap().tag, "two");
    let targets = [("nodes", "worker-1"), ("nodes", "no-such-node.invalid")];
    let answer = admin(&ca, address).version(with((), &targets)).await.unwrap().into_inner();
    let metadata: Vec<_> = answer.messages.iter().map(|m| m.metadata.as_ref().unwrap()).collect();
    assert_eq!((metadata[0].hostname.as_str(), metadata[0].error.as_str()), ("worker-1", ""));
    assert_eq!(metadata[1].hostname, "no-such-node.invalid");
    assert!(metadata[1].error.contains("no address for node no-such-node.invalid"), "{}", metadata[1].error);
}
