use super::*;

fn nodes(controlplanes: usize, workers: usize) -> NodeSpec {
    NodeSpec { controlplanes, workers }
}

#[test]
fn gateway_comes_first_then_control_planes_then_workers() {
    let plan = Plan::new("talos-default", "10.5.0.0/24", 1500, &nodes(2, 1)).unwrap();
    assert_eq!(plan.gateway, Ipv4Addr::new(10, 5, 0, 1));
    let got: Vec<_> = plan.nodes.iter().map(|n| (n.name.as_str(), n.role.as_str(), n.address.to_string())).collect();
    assert_eq!(
        got,
        [
            ("talos-default-controlplane-1", "controlplane", "10.5.0.2".to_owned()),
            ("talos-default-controlplane-2", "controlplane", "10.5.0.3".to_owned()),
            ("talos-default-worker-1", "worker", "10.5.0.4".to_owned()),
        ]
    );
    assert_eq!(plan.first_control_plane().unwrap().name, "talos-default-controlplane-1");
    assert_eq!(plan.node("10.5.0.4").unwrap().name, "talos-default-worker-1");
    assert_eq!(plan.discovery_endpoint(), "http://10.5.0.1:3000/");
}

#[test]
fn names_of_links_fit_the_kernel_and_differ_between_clusters() {
    let long = "a".repeat(NAME_LIMIT);
    let one = Plan::new(&long, "10.5.0.0/16", 1500, &nodes(1, 998)).unwrap();
    let two = Plan::new(&format!("{}b", "a".repeat(NAME_LIMIT - 1)), "10.6.0.0/24", 1500, &nodes(1, 1)).unwrap();
    let links: Vec<_> = one.nodes.iter().map(|n| n.link.clone()).chain([one.bridge.clone()]).collect();
    assert!(links.iter().all(|link| link.len() <= 15), "{links:?}");
    assert_ne!(one.bridge, two.bridge);
    assert_ne!(one.nodes[0].link, two.nodes[0].link);
    assert!(one.nodes.iter().all(|node| node.name.len() < 64));
}

#[test]
fn a_network_given_by_one_of_its_addresses_is_its_network() {
    let plan = Plan::new("x", "10.9.8.7/24", 1500, &nodes(1, 0)).unwrap();
    assert_eq!(plan.cidr.to_string(), "10.9.8.0/24");
    assert_eq!(plan.nodes[0].address.to_string(), "10.9.8.2");
}

#[test]
fn a_network_that_is_too_small_is_refused() {
    Plan::new("x", "10.5.0.0/30", 1500, &nodes(1, 0)).unwrap();
    let refused = Plan::new("x", "10.5.0.0/30", 1500, &nodes(1, 1));
    assert!(matches!(refused, Err(PlanError::Room { room: 1, wanted: 2, .. })), "{refused:?}");
    let refused = Plan::new("x", "10.5.0.0/32", 1500, &nodes(1, 0));
    assert!(matches!(refused, Err(PlanError::Room { .. })), "{refused:?}");
}

#[test]
fn unusable_names_and_networks_are_refused() {
    for name in ["", "A", "a_b", "-a", "a-", "a/b", "..", &"a".repeat(NAME_LIMIT + 1)] {
        let refused = Plan::new(name, "10.5.0.0/24", 1500, &nodes(1, 0));
        assert!(matches!(refused, Err(PlanError::Name(_))), "{name}: {refused:?}");
    }
    let refused = Plan::new("a", "fd00::/64", 1500, &nodes(1, 0));
    assert!(matches!(refused, Err(PlanError::Network(_))), "{refused:?}");
    assert_eq!(Plan::new("a", "10.5.0.0/24", 1500, &nodes(0, 1)), Err(PlanError::NoControlPlane));
    assert_eq!(Plan::new("a", "10.5.0.0/24", 500, &nodes(1, 1)), Err(PlanError::Mtu(500)));
}

#[test]
fn adding_and_removing_nodes_shifts_nobody_and_gives_no_slot_twice() {
    let mut plan = Plan::new("x", "10.5.0.0/24", 1500, &nodes(1, 2)).unwrap();
    let left = plan.remove("x-worker-1").unwrap();
    assert_eq!((left.slot, left.address.to_string()), (2, "10.5.0.3".to_owned()));
    assert_eq!(plan.remove("x-worker-1"), None);
    plan.add(Role::ControlPlane).unwrap();
    plan.add(Role::Worker).unwrap();
    let shown = |plan: &Plan| -> Vec<String> {
        plan.nodes.iter().map(|node| format!("{} {} {}", node.slot, node.name, node.address)).collect()
    };
    let now = [
        "1 x-controlplane-1 10.5.0.2",
        "3 x-worker-2 10.5.0.4",
        "4 x-controlplane-2 10.5.0.5",
        "5 x-worker-3 10.5.0.6",
    ];
    assert_eq!(shown(&plan), now);
    // Also when the last one leaves, and after the plan was written and read.
    plan.remove("x-worker-3").unwrap();
    let mut plan: Plan = serde_json::from_str(&serde_json::to_string(&plan).unwrap()).unwrap();
    assert_eq!(plan.add(Role::Worker).unwrap().name, "x-worker-4");
    assert_eq!(plan.nodes[3].slot, 6);
    let asked = plan.add_in(Role::Worker, 2).unwrap();
    assert_eq!((asked.name.as_str(), asked.address.to_string().as_str()), ("x-worker-5", "10.5.0.3"));
    for slot in [0, 1, 2, 254] {
        assert_eq!(plan.add_in(Role::Worker, slot).unwrap_err(), PlanError::Slot(slot));
    }
}

#[test]
fn a_full_network_takes_no_more_nodes() {
    let mut plan = Plan::new("x", "10.5.0.0/29", 1500, &nodes(1, 4)).unwrap();
    let full = plan.add(Role::Worker).unwrap_err();
    assert!(matches!(full, PlanError::Room { room: 5, wanted: 6, .. }), "{full}");
    plan.remove("x-worker-4").unwrap();
    plan.add(Role::Worker).unwrap_err();
    plan.add_in(Role::Worker, 5).unwrap();
}

#[test]
fn side_networks_have_bridges_and_links_of_their_own_and_the_same_slots() {
    let mut plan = Plan::new("x", "10.5.0.0/24", 1500, &nodes(1, 1)).unwrap();
    plan.add_network("10.6.0.9/16").unwrap();
    plan.add_network("192.168.7.0/29").unwrap();
    let networks = plan.networks();
    let worker = &plan.nodes[1];
    let addresses: Vec<String> = networks.iter().map(|network| network.address(worker).to_string()).collect();
    assert_eq!(addresses, ["10.5.0.3", "10.6.0.3", "192.168.7.3"]);
    let names: std::collections::BTreeSet<String> = networks
        .iter()
        .flat_map(|network| [network.bridge.clone(), plan.link(worker, network), plan.link(&plan.nodes[0], network)])
        .collect();
    assert_eq!(names.len(), 9, "{names:?}");
    assert!(names.iter().all(|name| name.len() <= 15), "{names:?}");
    assert_eq!((&networks[0].bridge, &plan.link(worker, &networks[0])), (&plan.bridge, &worker.link));
    for network in &networks {
        assert!(is_bridge(&network.bridge) && bridges("x").contains(&network.bridge), "{network:?}");
        assert!(is_link_of("x", &plan.link(worker, network)) && !is_link_of("y", &plan.link(worker, network)));
    }
    for other in ["talosforwarding", "talos0123456", "talos012345678", "docker0", "talos01234567z"] {
        assert!(!is_bridge(other), "{other}");
    }
    // The smallest network decides how many nodes there can be.
    for _ in 0..3 {
        plan.add(Role::Worker).unwrap();
    }
    assert!(matches!(plan.add(Role::Worker), Err(PlanError::Room { room: 5, wanted: 6, .. })));
    let read: Plan = serde_json::from_str(&serde_json::to_string(&plan).unwrap()).unwrap();
    assert_eq!(read, plan);
}

#[test]
fn a_side_network_that_overlaps_is_too_small_or_one_too_many_is_refused() {
    let mut plan = Plan::new("x", "10.5.0.0/24", 1500, &nodes(1, 1)).unwrap();
    let overlaps = plan.add_network("10.5.0.128/25").unwrap_err();
    assert!(matches!(overlaps, PlanError::Overlap(..)), "{overlaps}");
    assert!(matches!(plan.add_network("10.6.0.0/30"), Err(PlanError::Room { room: 1, wanted: 2, .. })));
    assert_eq!(plan.add_network("fd00::/64"), Err(PlanError::Network("fd00::/64".to_owned())));
    for number in 0..7 {
        plan.add_network(&format!("10.6.{number}.0/24")).unwrap();
    }
    assert_eq!(plan.add_network("10.7.0.0/24"), Err(PlanError::Networks));
    assert_eq!(PlanError::Networks.to_string(), "a cluster can have 8 networks");
}
