//! Which node gets which pod subnets: a pure function of the cluster's ranges and its nodes.
//!
//! A node that has subnets keeps them, whatever they are; the others get the next free ones, the oldest first. A node gets a
//! subnet of every range or none at all, because Kubernetes never changes the subnets of a node.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use kube_edge::Node;
use kubernetes::node_cidrs::NodeCidrRange;

/// The ranges of the cluster, and where the next search in each begins. A subnet that was freed is thus the last to be given
/// again: its former node may still run pods.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ranges {
    ranges: Vec<NodeCidrRange>,
    /// Subnets that no node may get.
    reserved: Vec<IpNet>,
    /// One for each range; nothing searches from the beginning.
    cursors: Vec<Option<u128>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Assignment {
    pub(crate) node: String,
    /// The node's version that the assignment is for.
    pub(crate) version: String,
    /// In the order of the ranges.
    pub(crate) subnets: Vec<IpNet>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub(crate) enum Problem {
    #[error("pod subnet {range} has no free part of /{node_prefix}: nodes stay without a pod network")]
    Exhausted { range: IpNet, node_prefix: u8 },
    #[error("subnet {subnet} of node {node} is outside of the cluster's pod subnets")]
    Outside { node: String, subnet: IpNet },
    #[error("subnet {subnet} of node {node} overlaps one of node {other}")]
    Overlap { node: String, subnet: IpNet, other: String },
}

/// Result of a look at all nodes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) assignments: Vec<Assignment>,
    pub(crate) problems: BTreeSet<Problem>,
}

impl Ranges {
    pub(crate) fn new(ranges: Vec<NodeCidrRange>, reserved: Vec<IpNet>) -> Self {
        let cursors = vec![None; ranges.len()];
        Self { ranges, reserved, cursors }
    }

    /// Whether they are the same, wherever the searches are.
    pub(crate) fn is(&self, ranges: &[NodeCidrRange], reserved: &[IpNet]) -> bool {
        self.ranges == ranges && self.reserved == reserved
    }

    /// Subnets for up to `limit` nodes that have none. The work grows as n log n with the number of nodes, and not with the size
    /// of the ranges.
    pub(crate) fn plan<'a>(&mut self, nodes: impl IntoIterator<Item = &'a Node>, limit: usize) -> Plan {
        let (having, mut without): (Vec<&Node>, Vec<&Node>) =
            nodes.into_iter().partition(|node| !node.pod_cidrs.is_empty());
        let mut plan = Plan { problems: self.problems(&having), ..Plan::default() };
        if without.is_empty() || self.ranges.is_empty() {
            return plan;
        }
        without.sort_by_key(|node| (node.created_at.is_none(), node.created_at, &node.uid, &node.name));
        let taken: Vec<IpNet> = having.iter().flat_map(|node| &node.pod_cidrs).chain(&self.reserved).copied().collect();
        let mut spaces: Vec<Space> = self.ranges.iter().map(|range| Space::new(*range, &taken)).collect();
        for node in without.into_iter().take(limit) {
            let found: Result<Vec<u128>, usize> = spaces
                .iter()
                .zip(&self.cursors)
                .enumerate()
                .map(|(index, (space, cursor))| space.free(*cursor).ok_or(index))
                .collect();
            let starts = match found {
                Ok(starts) => starts,
                Err(index) => {
                    let NodeCidrRange { cluster, node_prefix } = self.ranges[index];
                    plan.problems.insert(Problem::Exhausted { range: cluster, node_prefix });
                    break;
                }
            };
            let mut subnets = Vec::new();
            for ((space, cursor), start) in spaces.iter_mut().zip(&mut self.cursors).zip(starts) {
                subnets.push(space.take(start));
                *cursor = start.checked_add(space.span).and_then(|end| end.checked_add(1));
            }
            let (node, version) = (node.name.clone(), node.resource_version.clone());
            plan.assignments.push(Assignment { node, version, subnets });
        }
        plan
    }

    fn problems(&self, nodes: &[&Node]) -> BTreeSet<Problem> {
        let mut problems = BTreeSet::new();
        let mut all: Vec<(bool, u128, u128, IpNet, &str)> = Vec::new();
        for node in nodes {
            for subnet in node.pod_cidrs.iter().map(IpNet::trunc) {
                if !self.ranges.iter().any(|range| range.cluster.contains(&subnet)) {
                    problems.insert(Problem::Outside { node: node.name.clone(), subnet });
                }
                let (start, end) = bounds(&subnet);
                all.push((subnet.addr().is_ipv4(), start, end, subnet, &node.name));
            }
        }
        // In the order of their beginnings, one that overlaps any before it overlaps the one that reaches furthest.
        all.sort_unstable();
        let mut furthest: Option<(bool, u128, &str)> = None;
        for (is_v4, start, end, subnet, node) in all {
            if let Some((family, reach, other)) = furthest
                && family == is_v4
                && start <= reach
                && other != node
            {
                problems.insert(Problem::Overlap { node: node.to_owned(), subnet, other: other.to_owned() });
            }
            if furthest.is_none_or(|(family, reach, _)| family != is_v4 || reach < end) {
                furthest = Some((is_v4, end, node));
            }
        }
        problems
    }
}

/// One range: the intervals of addresses that are taken, merged.
struct Space {
    range: NodeCidrRange,
    first: u128,
    last: u128,
    /// Addresses of a node's part, less one.
    span: u128,
    /// First and last address of each interval.
    taken: BTreeMap<u128, u128>,
}

impl Space {
    fn new(range: NodeCidrRange, taken: &[IpNet]) -> Self {
        let (first, last) = bounds(&range.cluster);
        let host_bits = u32::from(range.cluster.max_prefix_len() - range.node_prefix);
        let span = if host_bits == 0 { 0 } else { u128::MAX >> (u128::BITS - host_bits) };
        let mut space = Self { range, first, last, span, taken: BTreeMap::new() };
        for net in taken.iter().filter(|net| net.addr().is_ipv4() == range.cluster.addr().is_ipv4()) {
            let (start, end) = bounds(&net.trunc());
            if start <= last && end >= first {
                space.insert(start.max(first), end.min(last));
            }
        }
        space
    }

    fn insert(&mut self, mut start: u128, mut end: u128) {
        // Intervals that overlap or touch become one, so that a search passes many neighbours in one step.
        while let Some((&other, &reach)) = self.taken.range(..=end.saturating_add(1)).next_back() {
            if reach.saturating_add(1) < start {
                break;
            }
            self.taken.remove(&other);
            (start, end) = (start.min(other), end.max(reach));
        }
        self.taken.insert(start, end);
    }

    /// The first free part at or after the cursor, else the first of all.
    fn free(&self, cursor: Option<u128>) -> Option<u128> {
        let cursor = cursor.filter(|at| (self.first..=self.last).contains(at));
        cursor.and_then(|at| self.free_from(at)).or_else(|| self.free_from(self.first))
    }

    fn free_from(&self, from: u128) -> Option<u128> {
        let mut at = self.aligned(from)?;
        loop {
            let end = at.checked_add(self.span).filter(|end| *end <= self.last)?;
            // The interval that begins last before the end reaches furthest, as they are merged.
            match self.taken.range(..=end).next_back() {
                Some((_, &reach)) if reach >= at => at = self.aligned(reach.checked_add(1)?)?,
                _ => return Some(at),
            }
        }
    }

    /// The first beginning of a part at or after it.
    fn aligned(&self, at: u128) -> Option<u128> {
        if at & self.span == 0 { Some(at) } else { (at | self.span).checked_add(1) }
    }

    fn take(&mut self, start: u128) -> IpNet {
        self.insert(start, start + self.span);
        let address = match self.range.cluster {
            // Addresses of this family fit by construction.
            IpNet::V4(_) => IpAddr::V4(u32::try_from(start).unwrap_or(u32::MAX).into()),
            IpNet::V6(_) => IpAddr::V6(start.into()),
        };
        IpNet::new_assert(address, self.range.node_prefix)
    }
}

/// First and last address.
pub(crate) fn bounds(net: &IpNet) -> (u128, u128) {
    let number = |address: IpAddr| match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    };
    (number(net.network()), number(net.broadcast()))
}

#[cfg(test)]
mod tests;
