//! Which node's claim of pod subnets counts. A node's object is written by its kubelet when it registers, so that what it
//! names is checked before a route follows it: a subnet must lie within the pod subnets of the cluster, and may not overlap
//! one that an older node has.

use std::collections::BTreeMap;

use ipnet::IpNet;
use kube_edge::Node;

use crate::pod_subnet_plan::bounds;

/// Subnets that count, by node, and those that do not.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Claims {
    granted: BTreeMap<String, Vec<IpNet>>,
    /// In the order of the nodes' age.
    pub(crate) refused: Vec<Refusal>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) node: String,
    pub(crate) subnet: IpNet,
    pub(crate) reason: Reason,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Reason {
    #[error("it is outside of the pod subnets of the cluster")]
    Outside,
    #[error("it overlaps {subnet} of node {node}, which is older")]
    Taken { node: String, subnet: IpNet },
}

impl Claims {
    /// The oldest node's claims count first; nodes of the same age are ordered by their identity in the cluster. The work grows
    /// as n log n with the number of nodes.
    pub(crate) fn of<'a>(nodes: impl IntoIterator<Item = &'a Node>, cluster: &[IpNet]) -> Self {
        let mut nodes: Vec<&Node> = nodes.into_iter().collect();
        nodes.sort_by_key(|node| (node.created_at.is_none(), node.created_at, &node.uid, &node.name));
        let mut claims = Self::default();
        let mut taken = Taken::default();
        for node in nodes {
            for subnet in node.pod_cidrs.iter().map(IpNet::trunc) {
                let reason = if !cluster.iter().any(|net| net.contains(&subnet)) {
                    Reason::Outside
                } else if let Some((owner, other)) = taken.by_another(&node.name, &subnet) {
                    Reason::Taken { node: owner.to_owned(), subnet: other }
                } else {
                    taken.insert(&node.name, subnet);
                    claims.granted.entry(node.name.clone()).or_default().push(subnet);
                    continue;
                };
                claims.refused.push(Refusal { node: node.name.clone(), subnet, reason });
            }
        }
        claims
    }

    pub(crate) fn granted(&self, node: &str) -> &[IpNet] {
        self.granted.get(node).map_or(&[], Vec::as_slice)
    }
}

/// Granted subnets by family and first address; none overlaps another.
#[derive(Debug, Default)]
struct Taken<'a>(BTreeMap<(bool, u128), (IpNet, &'a str)>);

impl<'a> Taken<'a> {
    /// Those that overlap it, from the end.
    fn overlapping(&self, subnet: &IpNet) -> impl Iterator<Item = (&'a str, IpNet)> {
        let (is_v4, (start, end)) = (subnet.addr().is_ipv4(), bounds(subnet));
        let before = self.0.range((is_v4, 0)..=(is_v4, end)).rev();
        before.map(|(_, (other, owner))| (*owner, *other)).take_while(move |(_, other)| bounds(other).1 >= start)
    }

    fn by_another(&self, node: &str, subnet: &IpNet) -> Option<(&'a str, IpNet)> {
        self.overlapping(subnet).find(|(owner, _)| *owner != node)
    }

    /// A node may name a subnet and a part of it: the larger one stays.
    fn insert(&mut self, node: &'a str, subnet: IpNet) {
        let own: Vec<IpNet> = self.overlapping(&subnet).map(|(_, other)| other).collect();
        if own.iter().any(|other| other.contains(&subnet)) {
            return;
        }
        for other in own {
            self.0.remove(&(other.addr().is_ipv4(), bounds(&other).0));
        }
        self.0.insert((subnet.addr().is_ipv4(), bounds(&subnet).0), (subnet, node));
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn node(name: &str, created: u64, subnets: &[&str]) -> Node {
        Node {
            name: name.to_owned(),
            uid: format!("uid of {name}"),
            created_at: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(created)),
            pod_cidrs: subnets.iter().map(|text| net(text)).collect(),
            ..Node::default()
        }
    }

    fn claims(nodes: &[Node]) -> Claims {
        Claims::of(nodes, &[net("10.244.0.0/16"), net("fd00:244::/56")])
    }

    #[test]
    fn subnets_inside_the_clusters_that_nobody_has_count() {
        let nodes = [node("a", 1, &["10.244.0.0/24", "fd00:244::/64"]), node("b", 2, &["10.244.1.0/24"])];
        let claims = claims(&nodes);
        assert_eq!(claims.granted("a"), [net("10.244.0.0/24"), net("fd00:244::/64")]);
        assert_eq!(claims.granted("b"), [net("10.244.1.0/24")]);
        assert_eq!((claims.granted("c"), claims.refused.len()), (&[][..], 0));
    }

    #[test]
    fn a_subnet_outside_of_the_clusters_does_not_count() {
        // The whole internet, services, a neighbour, the nodes' own network, and more than the cluster has.
        for subnet in ["0.0.0.0/0", "10.96.0.0/12", "10.245.0.0/24", "10.5.0.0/24", "10.244.0.0/15", "::/0"] {
            let claims = claims(&[node("a", 1, &[subnet])]);
            assert_eq!(claims.granted("a"), [], "{subnet}");
            assert_eq!(claims.refused[0].reason, Reason::Outside);
        }
    }

    #[test]
    fn the_older_node_keeps_its_subnet_whatever_the_names_are() {
        let old = node("z", 1, &["10.244.1.0/24"]);
        for subnet in ["10.244.1.0/24", "10.244.1.128/25", "10.244.0.0/16"] {
            let young = node("a", 2, &[subnet, "10.244.9.0/24"]);
            let claims = claims(&[young, old.clone()]);
            assert_eq!(claims.granted("z"), [net("10.244.1.0/24")]);
            let taken = Reason::Taken { node: "z".to_owned(), subnet: net("10.244.1.0/24") };
            assert_eq!(claims.refused[0].reason, taken);
            assert!(!claims.granted("a").contains(&net(subnet)));
        }
    }

    #[test]
    fn nodes_of_one_age_are_ordered_the_same_way_on_every_node() {
        let (one, two) = (node("one", 1, &["10.244.1.0/24"]), node("two", 1, &["10.244.1.0/24"]));
        assert_eq!(claims(&[one.clone(), two.clone()]), claims(&[two, one]));
    }

    #[test]
    fn subnets_of_one_node_may_overlap_and_stay_its_own() {
        let one = node("a", 1, &["10.244.1.0/24", "10.244.1.128/25", "10.244.0.0/22", "10.244.2.0/24"]);
        let other = node("b", 2, &["10.244.1.0/25", "10.244.3.0/24", "10.244.4.0/24"]);
        let claims = claims(&[one.clone(), other]);
        assert_eq!(claims.granted("a"), one.pod_cidrs);
        assert_eq!(claims.granted("b"), [net("10.244.4.0/24")]);
    }

    #[test]
    fn ten_thousand_nodes_take_no_time() {
        let subnet = |index: u32| format!("10.{}.{}.0/24", index / 256, index % 256);
        let nodes: Vec<Node> =
            (0..10_000).map(|index| node(&format!("n{index}"), u64::from(index), &[subnet(index).as_str()])).collect();
        let begin = tokio::time::Instant::now();
        let claims = Claims::of(&nodes, &[net("10.0.0.0/8")]);
        assert_eq!((claims.granted.len(), claims.refused.len()), (10_000, 0));
        assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    }
}
