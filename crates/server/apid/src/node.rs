//! Facts about this node and its cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether calls for other nodes are carried on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Forwarding {
    /// They are: a control plane.
    Forwards,
    /// They are refused: a worker, or a node that does not know yet what it is.
    #[default]
    Refuses,
}

/// The part of a node's state that routing depends on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeState {
    /// Whether calls for other nodes are carried on.
    pub forwarding: Forwarding,
    /// Addresses of this node.
    pub addresses: BTreeSet<IpAddr>,
    /// Names of this node.
    pub names: BTreeSet<String>,
    /// Addresses of the cluster's members by host name.
    pub members: BTreeMap<String, Vec<IpAddr>>,
}

impl NodeState {
    /// Whether `target` means this node.
    #[must_use]
    pub fn is_local(&self, target: &str) -> bool {
        match target.parse::<IpAddr>() {
            Ok(address) => {
                let address = address.to_canonical();
                address == IpAddr::V4(Ipv4Addr::LOCALHOST)
                    || address == IpAddr::V6(Ipv6Addr::LOCALHOST)
                    || self.addresses.contains(&address)
            }
            Err(_) => target == "localhost" || self.names.contains(target),
        }
    }
}
