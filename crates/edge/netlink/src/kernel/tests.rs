//! Tests against the kernel in a namespace per test; they need root.

mod masquerade;

use std::time::Duration;

use resources::enums::{Family, LinkFlags, LinkType, RouteProtocol, RouteType, RoutingTable, Scope};

use super::*;

/// A namespace for one test.
fn fresh() -> (Namespace, KernelNetlink) {
    let namespace = Namespace::create().expect("creating a namespace needs root");
    let netlink = KernelNetlink::connect_in(&namespace).unwrap();
    (namespace, netlink)
}

fn up() -> LinkChange {
    LinkChange { up: Some(true), ..LinkChange::default() }
}

/// The pair `d0`, `d1`, up, so that there is a carrier.
async fn both_up(netlink: &KernelNetlink) {
    netlink.change_link("d0", up()).await.unwrap();
    netlink.change_link("d1", up()).await.unwrap();
}

#[tokio::test]
async fn a_fresh_namespace_has_only_the_loopback_link() {
    let (_namespace, netlink) = fresh();
    let links = netlink.links().await.unwrap();
    let loopback = links.iter().find(|link| link.name == "lo").unwrap();
    assert_eq!(loopback.link_type, LinkType::LOOPBACK);
    assert!(!loopback.flags.contains(LinkFlags::UP));
    assert!(links.iter().all(|link| link.kind != "bridge" && link.kind != "veth"), "{links:?}");
    assert!(netlink.addresses().await.unwrap().is_empty());
}

/// Link, address and route controllers share one connection and wake at the same changes.
#[tokio::test(flavor = "multi_thread")]
async fn lists_may_be_asked_for_at_the_same_time() {
    let (_namespace, netlink) = fresh();
    for at in 0..20 {
        netlink.create_veth(&format!("a{at}"), &format!("b{at}")).await.unwrap();
    }
    let all = (0..100).map(|_| {
        let netlink = netlink.clone();
        tasks::spawn("lists", async move { tokio::join!(netlink.links(), netlink.addresses(), netlink.routes()) })
    });
    let all: Vec<_> = all.collect();
    for asked in all {
        let (links, addresses, routes) = asked.join().await.unwrap();
        assert!(links.unwrap().len() > 40);
        addresses.unwrap();
        routes.unwrap();
    }
}

#[tokio::test]
async fn a_veth_in_a_bridge_reaches_the_other_namespace() {
    let (_host, host) = fresh();
    let (node_namespace, node) = fresh();
    host.create_bridge("br0").await.unwrap();
    host.create_veth("veth0", "peer0").await.unwrap();
    host.move_link("peer0", &node_namespace).await.unwrap();
    let into_bridge = LinkChange { master: Some(Master::Link("br0".into())), mtu: Some(1400), ..up() };
    host.change_link("veth0", into_bridge).await.unwrap();
    host.change_link("br0", up()).await.unwrap();
    let mac = "02:00:0a:05:00:02".parse().unwrap();
    let rename = LinkChange { name: Some("eth0".into()), hardware_addr: Some(mac), ..LinkChange::default() };
    node.change_link("peer0", rename).await.unwrap();
    node.change_link("eth0", up()).await.unwrap();

    let links = host.links().await.unwrap();
    let (bridge, veth) = (find(&links, "br0"), find(&links, "veth0"));
    assert_eq!((bridge.kind.as_str(), veth.kind.as_str(), veth.slave_kind.as_str()), ("bridge", "veth", "bridge"));
    assert_eq!((veth.master_index, veth.mtu), (bridge.index, 1400));
    assert!(veth.flags.contains(LinkFlags::UP));
    assert!(host.link("peer0").await.unwrap().is_none());
    let eth0 = node.link("eth0").await.unwrap().unwrap();
    assert_eq!(eth0.hardware_addr.to_string(), "02:00:0a:05:00:02");

    host.delete_link("veth0").await.unwrap();
    assert!(node.link("eth0").await.unwrap().is_none(), "the peer goes with it");
}

fn find<'a>(links: &'a [Link], name: &str) -> &'a Link {
    links.iter().find(|link| link.name == name).unwrap()
}

#[tokio::test]
async fn addresses_are_added_once_and_deleted_once() {
    let (_namespace, netlink) = fresh();
    netlink.create_veth("d0", "d1").await.unwrap();
    let wanted: IpNet = "10.5.0.2/24".parse().unwrap();
    netlink.add_address("d0", wanted).await.unwrap();
    netlink.add_address("d0", wanted).await.unwrap();
    let found = netlink.addresses().await.unwrap();
    let address = found.iter().find(|address| address.family == Family::INET4).unwrap();
    assert_eq!((address.address, address.local), (Some(wanted), Some(wanted.addr())));
    assert_eq!(address.broadcast, Some("10.5.0.255".parse().unwrap()));
    assert_eq!((address.scope, address.flags.to_string().as_str()), (Scope::GLOBAL, "permanent"));
    assert_eq!(address.link_index, netlink.link("d0").await.unwrap().unwrap().index);
    netlink.delete_address("d0", wanted).await.unwrap();
    netlink.delete_address("d0", wanted).await.unwrap();
    assert_eq!(netlink.addresses().await.unwrap().len(), found.len() - 1);
}

#[tokio::test]
async fn routes_are_added_replaced_and_deleted() {
    let (_namespace, netlink) = fresh();
    netlink.create_veth("d0", "d1").await.unwrap();
    both_up(&netlink).await;
    netlink.add_address("d0", "10.5.0.2/24".parse().unwrap()).await.unwrap();
    let index = netlink.link("d0").await.unwrap().unwrap().index;
    let destination: IpNet = "10.244.1.0/24".parse().unwrap();
    let mut route = Route {
        destination: Some(destination),
        gateway: Some("10.5.0.3".parse().unwrap()),
        out_link_index: index,
        ..Route::default()
    };
    netlink.add_route(&route).await.unwrap();
    assert!(netlink.add_route(&route).await.unwrap_err().is_exists());
    route.gateway = Some("10.5.0.4".parse().unwrap());
    netlink.replace_route(&route).await.unwrap();
    let default = Route { gateway: Some("10.5.0.1".parse().unwrap()), priority: 1024, ..Route::default() };
    netlink.add_route(&default).await.unwrap();

    let routes = netlink.routes().await.unwrap();
    let to: Vec<_> = routes.iter().filter(|route| route.destination == Some(destination)).collect();
    assert_eq!(to.len(), 1, "{routes:?}");
    assert_eq!((to[0].gateway, to[0].out_link_index), (route.gateway, index));
    assert_eq!((to[0].table, to[0].protocol, to[0].route_type), {
        (RoutingTable::MAIN, RouteProtocol::STATIC, RouteType::UNICAST)
    });
    let found = routes.iter().find(|route| route.destination.is_none() && route.family == Family::INET4).unwrap();
    assert_eq!((found.gateway, found.priority), (default.gateway, 1024));
    let connected = routes.iter().find(|route| route.destination == Some("10.5.0.0/24".parse().unwrap())).unwrap();
    assert_eq!((connected.protocol, connected.scope), (RouteProtocol::KERNEL, Scope::LINK));

    netlink.delete_route(&route).await.unwrap();
    netlink.delete_route(&route).await.unwrap();
    assert!(netlink.routes().await.unwrap().iter().all(|route| route.destination != Some(destination)));
}

#[tokio::test]
async fn changes_are_told_by_kind() {
    let (_namespace, netlink) = fresh();
    let (mut links, mut addresses, mut routes) =
        (netlink.link_changes(), netlink.address_changes(), netlink.route_changes());
    netlink.create_veth("d0", "d1").await.unwrap();
    assert!(soon(links.changed()).await);
    tokio::time::timeout(Duration::from_millis(50), addresses.changed()).await.expect_err("no address changed");
    netlink.add_address("d0", "10.5.0.2/24".parse().unwrap()).await.unwrap();
    assert!(soon(addresses.changed()).await);
    both_up(&netlink).await;
    assert!(soon(routes.changed()).await);
    drop(netlink);
    assert!(
        !soon(async {
            while links.changed().await {}
            false
        })
        .await,
        "it ends with the last clone"
    );
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(5), what).await.expect("told within five seconds")
}

#[tokio::test]
async fn an_error_names_the_operation_and_its_subject() {
    let (_namespace, netlink) = fresh();
    let error = netlink.delete_link("nope").await.unwrap_err();
    assert!(error.is_not_found(), "{error:?}");
    assert_eq!(error.to_string(), "looking up link nope");
    netlink.create_bridge("br0").await.unwrap();
    let error = netlink.create_bridge("br0").await.unwrap_err();
    assert!(error.is_exists(), "{error:?}");
}
