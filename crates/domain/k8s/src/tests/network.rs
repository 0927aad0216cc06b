//! The native pod network and the local balancer.

use kube_edge::{Node, NodeAddress};
use netlink::{Masquerade, Route, Routes as _};
use resources::cluster::{ControlPlane, Member};
use resources::k8s::{KubePrismConfig, KubePrismStatus, Nodename};
use std::time::Duration;

use super::{CONTROL_PLANE, World};
use crate::{
    KubePrismConfigController, KubePrismController, KubePrismEndpointsController, NATIVE_ROUTES,
    NativePodNetworkController,
};

const CONFLIST: &str = "/etc/cni/net.d/10-native.conflist";

fn node(name: &str, cidr: &str, ip: &str) -> Node {
    Node {
        name: name.to_owned(),
        pod_cidrs: cidr.parse().into_iter().collect(),
        addresses: vec![NodeAddress { kind: "InternalIP".into(), address: ip.to_owned() }],
        ..Node::default()
    }
}

async fn routes(world: &World) -> Vec<String> {
    let routes = world.netlink.routes().await.unwrap();
    let ours = routes.into_iter().filter(|route| route.protocol == NATIVE_ROUTES);
    let mut texts: Vec<String> =
        ours.map(|route| format!("{} via {}", route.destination.unwrap(), route.gateway.unwrap())).collect();
    texts.sort();
    texts
}

fn start(world: &World) {
    let edges = world.edges();
    world.harness.run(NativePodNetworkController::new(edges.root, edges.connect, edges.routes));
    world.configure(CONTROL_PLANE);
    world.harness.put(Nodename::ID, Nodename { nodename: "a".into(), ..Nodename::default() });
    world.join();
}

#[tokio::test(start_paused = true)]
async fn network_comes_the_moment_the_node_has_its_subnet() {
    let world = World::new();
    start(&world);
    world.kube.put_node(node("a", "", "10.5.0.2"));
    world.harness.settle().await;
    assert_eq!(world.read(CONFLIST), None);

    world.kube.put_node(node("a", "10.244.0.0/24", "10.5.0.2"));
    world.harness.settle().await;
    assert!(world.read(CONFLIST).unwrap().contains("10.244.0.0/24"));
}

#[tokio::test(start_paused = true)]
async fn routes_follow_other_nodes_and_leave_those_of_others_alone() {
    let world = World::new();
    let foreign = Route { destination: Some("192.168.0.0/16".parse().unwrap()), ..Route::default() };
    world.netlink.add_route(&foreign).await.unwrap();
    let stale = Route {
        destination: Some("10.244.9.0/24".parse().unwrap()),
        gateway: Some("10.5.0.9".parse().unwrap()),
        protocol: NATIVE_ROUTES,
        ..Route::default()
    };
    world.netlink.add_route(&stale).await.unwrap();
    start(&world);
    world.kube.put_node(node("a", "10.244.0.0/24", "10.5.0.2"));
    world.kube.put_node(node("b", "10.244.1.0/24", "10.5.0.3"));
    world.kube.put_node(node("joining", "", "10.5.0.4"));
    world.harness.settle().await;
    assert_eq!(routes(&world).await, ["10.244.1.0/24 via 10.5.0.3"]);

    world.kube.put_node(node("b", "10.244.1.0/24", "10.5.0.33"));
    world.harness.settle().await;
    assert_eq!(routes(&world).await, ["10.244.1.0/24 via 10.5.0.33"]);

    world.kube.remove_node("b");
    world.harness.settle().await;
    assert!(routes(&world).await.is_empty());
    assert_eq!(world.netlink.routes().await.unwrap().len(), 1, "the foreign route is still there");
}

#[tokio::test(start_paused = true)]
async fn route_for_a_subnet_that_is_not_the_nodes_to_take_is_not_made() {
    let world = World::new();
    start(&world);
    let aged = |name, cidr, ip, age| Node {
        created_at: Some(std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(age)),
        ..node(name, cidr, ip)
    };
    world.kube.put_node(aged("a", "10.244.0.0/24", "10.5.0.2", 1));
    world.kube.put_node(aged("b", "10.244.1.0/24", "10.5.0.3", 2));
    for (name, cidr) in [("c", "0.0.0.0/0"), ("d", "10.5.0.0/24"), ("e", "10.244.0.0/25"), ("f", "10.244.1.0/24")] {
        world.kube.put_node(aged(name, cidr, "10.5.0.66", 3));
    }
    world.harness.settle().await;
    assert_eq!(routes(&world).await, ["10.244.1.0/24 via 10.5.0.3"]);

    // The older one is deleted: the subnet is free.
    world.kube.remove_node("b");
    world.harness.settle().await;
    assert_eq!(routes(&world).await, ["10.244.1.0/24 via 10.5.0.66"]);
}

/// The rules, as `source !exception …`.
fn masquerades(world: &World) -> Vec<String> {
    let text =
        |rule: &Masquerade| rule.except.iter().fold(rule.source.to_string(), |text, net| format!("{text} !{net}"));
    world.netlink.masquerades().iter().map(text).collect()
}

#[tokio::test(start_paused = true)]
async fn what_pods_send_outside_the_cluster_gets_the_nodes_address() {
    let world = World::new();
    start(&world);
    world.kube.put_node(node("a", "", "10.5.0.2"));
    world.kube.put_node(node("b", "10.244.1.0/24", "10.5.0.3"));
    world.harness.settle().await;
    assert!(masquerades(&world).is_empty(), "the node has no pods yet, and others look after theirs");

    world.kube.put_node(node("a", "10.244.0.0/24", "10.5.0.2"));
    world.harness.settle().await;
    assert_eq!(masquerades(&world), ["10.244.0.0/24 !10.244.0.0/16"]);

    world.netlink.flush_masquerades();
    world.harness.advance(Duration::from_secs(31)).await;
    assert_eq!(masquerades(&world).len(), 1, "they were flushed");
    world.kube.remove_node("a");
    world.harness.settle().await;
    assert_eq!(masquerades(&world).len(), 1, "its pods still run");

    world.configure(&CONTROL_PLANE.replace("name: native", "name: none"));
    world.harness.settle().await;
    assert!(masquerades(&world).is_empty());
}

#[tokio::test(start_paused = true)]
async fn routes_come_where_the_kernel_cannot_translate() {
    let world = World::new();
    world.netlink.set_cannot_translate(true);
    start(&world);
    world.kube.put_node(node("a", "10.244.0.0/24", "10.5.0.2"));
    world.kube.put_node(node("b", "10.244.1.0/24", "10.5.0.3"));
    world.harness.settle().await;
    assert_eq!(routes(&world).await.len(), 1);
    assert_eq!(world.harness.status("k8s.NativePodNetworkController").failures, 0, "it is no reason to try again");
}

#[tokio::test(start_paused = true)]
async fn routes_stay_while_the_server_is_away_and_come_back_when_removed() {
    let world = World::new();
    start(&world);
    world.kube.put_node(node("b", "10.244.1.0/24", "10.5.0.3"));
    world.harness.settle().await;
    world.kube.set_reachable(false);
    world.harness.advance(Duration::from_secs(300)).await;
    assert_eq!(routes(&world).await.len(), 1);

    world.netlink.set_routes(Vec::new());
    world.harness.advance(Duration::from_secs(31)).await;
    assert_eq!(routes(&world).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn another_network_takes_ours_away() {
    let world = World::new();
    start(&world);
    world.kube.put_node(node("a", "10.244.0.0/24", "10.5.0.2"));
    world.kube.put_node(node("b", "10.244.1.0/24", "10.5.0.3"));
    world.harness.settle().await;
    assert!(world.read(CONFLIST).is_some());

    world.configure(&CONTROL_PLANE.replace("name: native", "name: none"));
    world.harness.settle().await;
    assert!(world.read(CONFLIST).is_none());
    assert!(routes(&world).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn balancer_knows_endpoint_itself_and_members() {
    let world = World::new();
    world.harness.run(KubePrismEndpointsController);
    world.harness.run(KubePrismConfigController);
    world.configure(CONTROL_PLANE);
    let member = Member {
        addresses: vec!["10.5.0.2".parse().unwrap(), "10.5.0.4".parse().unwrap()],
        control_plane: Some(ControlPlane { port: 6443 }),
        ..Member::default()
    };
    world.harness.put("b", member);
    world.harness.put("worker", Member { addresses: vec!["10.5.0.9".parse().unwrap()], ..Member::default() });
    world.harness.settle().await;
    let config = world.harness.get::<KubePrismConfig>(KubePrismConfig::ID).unwrap();
    let hosts: Vec<_> = config.endpoints.iter().map(|endpoint| endpoint.host.as_str()).collect();
    assert_eq!(hosts, ["10.5.0.2", "localhost", "10.5.0.4"]);
    assert_eq!((config.host.as_str(), config.port), ("127.0.0.1", 7445));
}

#[tokio::test]
async fn balancer_runs_while_it_is_configured() {
    let world = World::new();
    world.harness.run(KubePrismController::default());
    let config = KubePrismConfig { host: "127.0.0.1".into(), port: 0, endpoints: Vec::new() };
    world.harness.put(KubePrismConfig::ID, config);
    world.harness.settle().await;
    let status = world.harness.get::<KubePrismStatus>(KubePrismStatus::ID).unwrap();
    assert!(!status.healthy);
    let address: std::net::SocketAddr = status.host.parse().unwrap();
    tokio::net::TcpStream::connect(address).await.unwrap();

    world.harness.destroy::<KubePrismConfig>(KubePrismConfig::ID);
    world.harness.settle().await;
    assert!(world.harness.get::<KubePrismStatus>(KubePrismStatus::ID).is_none());
}
