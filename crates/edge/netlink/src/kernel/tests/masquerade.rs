//! Real packets from a pod through a node to an outside host, each in a namespace of its own.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use super::*;

const POD: &str = "10.244.1.5";
const NODE: &str = "192.0.2.2";
const OUTSIDE: &str = "192.0.2.1";
/// Outside of the node, but within the cluster's pod network.
const OTHER_POD: &str = "10.244.2.9";

struct World {
    pod: Namespace,
    outside: Namespace,
    node: KernelNetlink,
    _node_namespace: Namespace,
    _links: Vec<KernelNetlink>,
}

impl World {
    /// The node forwards and the outside host has a route to the pods: only the rules make a difference.
    async fn new() -> Self {
        let (node_namespace, node) = fresh();
        let (pod_namespace, pod) = fresh();
        let (outside_namespace, outside) = fresh();
        for (ours, theirs, namespace) in [("pods", "eth0", &pod_namespace), ("eth0", "wire", &outside_namespace)] {
            node.create_veth(ours, "moving").await.unwrap();
            node.move_link("moving", namespace).await.unwrap();
            node.change_link(ours, up()).await.unwrap();
            let other = if theirs == "eth0" { &pod } else { &outside };
            let rename = LinkChange { name: Some(theirs.into()), ..LinkChange::default() };
            other.change_link("moving", rename).await.unwrap();
            other.change_link(theirs, up()).await.unwrap();
        }
        let net = |address: &str| -> IpNet { format!("{address}/24").parse().unwrap() };
        node.add_address("pods", net("10.244.1.1")).await.unwrap();
        node.add_address("eth0", net(NODE)).await.unwrap();
        pod.add_address("eth0", net(POD)).await.unwrap();
        outside.add_address("wire", net(OUTSIDE)).await.unwrap();
        outside.add_address("wire", net(OTHER_POD)).await.unwrap();
        route(&pod, "0.0.0.0/0", "10.244.1.1").await;
        route(&node, "10.244.2.0/24", OUTSIDE).await;
        route(&outside, "10.244.1.0/24", NODE).await;
        let forward = || std::fs::write("/proc/sys/net/ipv4/ip_forward", "1");
        node_namespace.run(forward).unwrap().unwrap();
        Self {
            pod: pod_namespace,
            outside: outside_namespace,
            node,
            _node_namespace: node_namespace,
            _links: vec![pod, outside],
        }
    }

    /// The source address seen by an outside server at `to` when the pod connects.
    fn seen_from(&self, to: &str) -> IpAddr {
        let to: IpAddr = to.parse().unwrap();
        let listener = self.outside.run(|| TcpListener::bind((to, 0))).unwrap().unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let connect = || TcpStream::connect_timeout(&address, Duration::from_secs(5));
        let _client = self.pod.run(connect).unwrap().expect("the pod reaches the outside and is answered");
        listener.accept().unwrap().1.ip()
    }
}

async fn route(netlink: &KernelNetlink, destination: &str, gateway: &str) {
    let destination = Some(destination.parse().unwrap()).filter(|net: &IpNet| net.prefix_len() > 0);
    let gateway = Some(gateway.parse().unwrap());
    netlink.add_route(&Route { destination, gateway, ..Route::default() }).await.unwrap();
}

fn rules() -> Vec<Masquerade> {
    let net = |text: &str| text.parse().unwrap();
    vec![
        Masquerade { source: net("10.244.1.0/24"), except: vec![net("10.244.0.0/16")] },
        Masquerade { source: net("fd00:10:244:1::/64"), except: vec![net("fd00:10:244::/48")] },
    ]
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[tokio::test]
async fn packets_of_pods_leave_with_the_nodes_address_except_to_other_pods() {
    let world = World::new().await;
    assert_eq!(world.seen_from(OUTSIDE), ip(POD), "as they are, without rules");
    assert!(world.node.keep_masquerades(&rules()).await.unwrap());
    assert_eq!(world.seen_from(OUTSIDE), ip(NODE));
    assert_eq!(world.seen_from(OTHER_POD), ip(POD));

    assert!(!world.node.keep_masquerades(&rules()).await.unwrap(), "they are there already");
    let narrow = vec![Masquerade { source: "10.244.9.0/24".parse().unwrap(), except: Vec::new() }];
    assert!(world.node.keep_masquerades(&narrow).await.unwrap(), "others take their place");
    assert_eq!(world.seen_from(OUTSIDE), ip(POD));

    assert!(world.node.keep_masquerades(&rules()).await.unwrap());
    assert_eq!(world.seen_from(OUTSIDE), ip(NODE));
    assert!(world.node.keep_masquerades(&[]).await.unwrap());
    assert_eq!(world.seen_from(OUTSIDE), ip(POD), "nothing stays behind");
    assert!(!world.node.keep_masquerades(&[]).await.unwrap());
}
