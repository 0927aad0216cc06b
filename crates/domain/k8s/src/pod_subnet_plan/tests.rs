use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::*;

const ALL: usize = usize::MAX;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn ranges(parts: &[(&str, u8)]) -> Ranges {
    let range =
        |(cluster, node_prefix): &(&str, u8)| NodeCidrRange { cluster: net(cluster), node_prefix: *node_prefix };
    Ranges::new(parts.iter().map(range).collect(), Vec::new())
}

fn node(name: &str, created: u64, subnets: &[&str]) -> Node {
    Node {
        name: name.to_owned(),
        uid: format!("uid of {name}"),
        resource_version: created.to_string(),
        created_at: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(created)),
        pod_cidrs: subnets.iter().map(|text| net(text)).collect(),
        ..Node::default()
    }
}

/// Nodes and their new subnets.
fn given(plan: &Plan) -> Vec<(&str, Vec<String>)> {
    let texts = |subnets: &[IpNet]| subnets.iter().map(ToString::to_string).collect();
    plan.assignments.iter().map(|one| (one.node.as_str(), texts(&one.subnets))).collect()
}

fn first_subnets(plan: &Plan) -> Vec<String> {
    plan.assignments.iter().map(|one| one.subnets[0].to_string()).collect()
}

#[test]
fn oldest_nodes_come_first_and_those_with_subnets_keep_them() {
    let nodes =
        [node("b", 2, &[]), node("c", 1, &[]), node("a", 9, &["10.244.0.0/24"]), node("d", 2, &["10.244.2.0/24"])];
    let plan = ranges(&[("10.244.0.0/16", 24)]).plan(&nodes, ALL);
    assert_eq!(given(&plan), [("c", vec!["10.244.1.0/24".to_owned()]), ("b", vec!["10.244.3.0/24".to_owned()])]);
    assert_eq!(plan.assignments[0].version, "1");
    assert!(plan.problems.is_empty());
}

#[test]
fn both_families_are_given_in_the_order_of_the_cluster() {
    let nodes = [node("a", 1, &["fd00:244::/64", "10.244.0.0/24"]), node("b", 2, &[])];
    let plan = ranges(&[("fd00:244::/56", 64), ("10.244.0.0/16", 26)]).plan(&nodes, ALL);
    assert_eq!(given(&plan), [("b", vec!["fd00:244:0:1::/64".to_owned(), "10.244.1.0/26".to_owned()])]);
}

#[test]
fn subnet_that_was_freed_is_given_again_last() {
    let mut ranges = ranges(&[("10.244.0.0/22", 24)]);
    let plan = ranges.plan(&[node("a", 1, &[]), node("b", 2, &[])], ALL);
    assert_eq!(first_subnets(&plan), ["10.244.0.0/24", "10.244.1.0/24"]);
    // a is deleted.
    let mut nodes = vec![node("b", 2, &["10.244.1.0/24"]), node("c", 3, &[])];
    for (wanted, next) in [("10.244.2.0/24", "d"), ("10.244.3.0/24", "e"), ("10.244.0.0/24", "f")] {
        let plan = ranges.plan(&nodes, ALL);
        assert_eq!(first_subnets(&plan), [wanted]);
        nodes.last_mut().unwrap().pod_cidrs = vec![net(wanted)];
        nodes.push(node(next, 9, &[]));
    }
    let plan = ranges.plan(&nodes, ALL);
    assert_eq!(plan.assignments, []);
    assert_eq!(plan.problems, BTreeSet::from([Problem::Exhausted { range: net("10.244.0.0/22"), node_prefix: 24 }]));
}

#[test]
fn node_gets_a_subnet_of_every_range_or_none() {
    let nodes = [node("a", 1, &["10.244.0.0/24", "fd00::/64"]), node("b", 2, &[])];
    let mut ranges = ranges(&[("10.244.0.0/16", 24), ("fd00::/64", 64)]);
    let plan = ranges.plan(&nodes, ALL);
    assert_eq!(plan.assignments, []);
    assert_eq!(plan.problems, BTreeSet::from([Problem::Exhausted { range: net("fd00::/64"), node_prefix: 64 }]));
}

#[test]
fn subnets_of_services_and_of_other_sizes_are_passed_over() {
    let range = NodeCidrRange { cluster: net("10.244.0.0/16"), node_prefix: 24 };
    let mut ranges = Ranges::new(vec![range], vec![net("10.244.0.0/23"), net("10.96.0.0/12")]);
    let nodes =
        [node("a", 1, &["10.244.2.128/25"]), node("b", 1, &["10.244.4.0/22"]), node("c", 2, &[]), node("d", 3, &[])];
    assert_eq!(first_subnets(&ranges.plan(&nodes, ALL)), ["10.244.3.0/24", "10.244.8.0/24"]);
}

#[test]
fn subnets_outside_the_range_and_overlaps_are_reported_and_kept() {
    let nodes = [
        node("a", 1, &["10.244.1.0/24"]),
        node("b", 2, &["10.244.1.128/25"]),
        node("c", 3, &["192.168.0.0/24"]),
        node("d", 4, &[]),
    ];
    let plan = ranges(&[("10.244.0.0/16", 24)]).plan(&nodes, ALL);
    let overlap = Problem::Overlap { node: "b".into(), subnet: net("10.244.1.128/25"), other: "a".into() };
    let outside = Problem::Outside { node: "c".into(), subnet: net("192.168.0.0/24") };
    assert_eq!(plan.problems, BTreeSet::from([outside, overlap]));
    assert_eq!(first_subnets(&plan), ["10.244.0.0/24"]);
}

#[test]
fn ranges_up_to_the_end_of_the_address_space_end_there() {
    for (cluster, prefix, all) in [
        ("255.255.255.0/24", 25, 2),
        ("255.255.255.254/31", 32, 2),
        ("ffff:ffff:ffff:ffff::/63", 64, 2),
        ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe/127", 128, 2),
        ("0.0.0.0/0", 1, 2),
        ("::/0", 0, 1),
    ] {
        let nodes: Vec<Node> = (0..5).map(|number| node(&number.to_string(), number, &[])).collect();
        let plan = ranges(&[(cluster, prefix)]).plan(&nodes, ALL);
        assert_eq!((plan.assignments.len(), plan.problems.len()), (all, 1), "{cluster}");
    }
}

#[test]
fn ten_thousand_nodes_in_a_full_range_take_no_time() {
    let number = 10_000;
    let text = |index: u32| format!("10.{}.{}.0/24", index / 256, index % 256);
    let mut nodes: Vec<Node> =
        (0..number).map(|index| node(&format!("n{index}"), 1, &[text(index).as_str()])).collect();
    nodes.extend((0..1000).map(|index| node(&format!("new{index}"), 2, &[])));
    let begin = tokio::time::Instant::now();
    let plan = ranges(&[("10.0.0.0/8", 24)]).plan(&nodes, ALL);
    assert_eq!(plan.assignments.len(), 1000);
    assert_eq!(plan.assignments[999].subnets, [net(&text(number + 999))]);
    // A search that walks over all of them for each node takes minutes.
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
}

/// Nodes with any subnets in, around and outside of the ranges, and nodes without.
fn any_nodes() -> impl Strategy<Value = Vec<Node>> {
    let v4 = (0u32..2048, 20u8..=32).prop_map(|(block, prefix)| {
        IpNet::new_assert(IpAddr::V4((0x0af4_0000_u32 - 0x400 + block * 16).into()), prefix).trunc()
    });
    let v6 = (0u128..64, 58u8..=66).prop_map(|(block, prefix)| {
        IpNet::new_assert(IpAddr::V6(((0xfd00_u128 << 112) + (block << 63)).into()), prefix).trunc()
    });
    let subnets = prop_oneof![
        3 => Just(Vec::new()),
        2 => v4.clone().prop_map(|net| vec![net]),
        1 => (v4, v6).prop_map(|(v4, v6)| vec![v4, v6]),
    ];
    prop::collection::vec((subnets, 0u64..4), 0..40).prop_map(|all| {
        let build = |(index, (pod_cidrs, created)): (usize, (Vec<IpNet>, u64))| Node {
            pod_cidrs,
            ..node(&format!("n{index}"), created, &[])
        };
        all.into_iter().enumerate().map(build).collect()
    })
}

fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(other) || other.contains(one)
}

proptest! {
    #[test]
    fn nobody_gets_what_somebody_has_and_nothing_free_is_refused(nodes in any_nodes(), prefix in 22u8..=28, twice in any::<bool>()) {
        let parts = [("10.244.0.0/20", prefix), ("fd00::/60", 64)];
        let mut ranges = ranges(if twice { &parts } else { &parts[..1] });
        let plan = ranges.plan(&nodes, ALL);
        let mut reversed = ranges.clone();
        let mut taken: Vec<IpNet> = nodes.iter().flat_map(|node| node.pod_cidrs.clone()).collect();
        for Assignment { node, subnets, .. } in &plan.assignments {
            prop_assert!(nodes.iter().any(|known| known.name == *node && known.pod_cidrs.is_empty()));
            prop_assert_eq!(subnets.len(), if twice { 2 } else { 1 });
            for (subnet, (cluster, size)) in subnets.iter().zip(&parts) {
                prop_assert_eq!(subnet.prefix_len(), *size);
                prop_assert!(net(cluster).contains(subnet) && subnet.trunc() == *subnet);
                prop_assert!(!taken.iter().any(|other| overlap(other, subnet)), "{} is taken", subnet);
            }
            taken.extend(subnets);
        }
        let names: BTreeSet<&str> = plan.assignments.iter().map(|one| one.node.as_str()).collect();
        prop_assert_eq!(names.len(), plan.assignments.len());
        let waiting = nodes.iter().filter(|node| node.pod_cidrs.is_empty() && !names.contains(node.name.as_str())).count();
        if waiting > 0 {
            let mut exhausted = plan.problems.iter().filter_map(|problem| match problem {
                Problem::Exhausted { range, node_prefix } => Some((*range, *node_prefix)),
                _ => None,
            });
            let (range, size) = exhausted.next_back().unwrap();
            prop_assert!(range.subnets(size).unwrap().all(|part| taken.iter().any(|other| overlap(other, &part))));
        }
        // The order of a list says nothing.
        let again: Vec<Node> = nodes.iter().rev().cloned().collect();
        reversed.cursors.fill(None);
        prop_assert_eq!(reversed.plan(&again, ALL), plan);
    }
}
