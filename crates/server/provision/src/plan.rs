//! The parts of a cluster: names, addresses and links, planned before anything is created.
//!
//! All names are derived from the cluster's name, so that the remains of a killed create can be found. Pure.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use aws_lc_rs::digest;
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

/// The longest name of a cluster: its nodes' host names must stay below 64 characters.
pub const NAME_LIMIT: usize = 40;
/// The port where every cluster's discovery service listens, on its gateway.
pub const DISCOVERY_PORT: u16 = 3000;
/// The port where a cluster's key service listens, on its gateway (Talos 1.7).
pub(crate) const KEYS_PORT: u16 = 4050;

/// Eight hexadecimal digits follow in the name of each cluster's bridge, and a letter where it is that of a side network.
pub(crate) const BRIDGE_PREFIX: &str = "talos";
/// How many networks a cluster can have beside its own: as many as have a letter in names of links.
const SIDE_NETWORKS: usize = LETTERS.len() - 1;
/// A network's letter in names of links, by its number.
const LETTERS: [char; 8] = ['n', 'o', 'p', 'q', 'r', 's', 't', 'u'];

/// Role of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    ControlPlane,
    Worker,
}

impl Role {
    /// The name that the machine configuration and tables use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ControlPlane => "controlplane",
            Self::Worker => "worker",
        }
    }
}

/// The request.
#[derive(Debug, Clone)]
pub struct NodeSpec {
    pub controlplanes: usize,
    pub workers: usize,
}

/// A node with its resources on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedNode {
    pub name: String,
    pub role: Role,
    /// Its place in the network, from 1; address and link follow from it. It is the node's for good.
    pub slot: u32,
    pub address: Ipv4Addr,
    /// The host's end of the veth pair; the other is `eth0`.
    pub link: String,
}

/// A network of a cluster on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Network {
    /// 0 is the cluster's own, by which its nodes know each other and reach other hosts; the others are side networks, which
    /// lead nowhere else.
    pub number: usize,
    pub cidr: Ipv4Net,
    /// The host's address in it.
    pub gateway: Ipv4Addr,
    pub bridge: String,
}

impl Network {
    fn new(name: &str, number: usize, cidr: Ipv4Net) -> Self {
        let gateway = cidr.hosts().next().unwrap_or(cidr.addr());
        Self { number, cidr, gateway, bridge: bridge_name(name, number) }
    }

    /// The address of a node in it.
    #[must_use]
    pub fn address(&self, node: &PlannedNode) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.gateway) + node.slot)
    }
}

/// All that a cluster consists of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    pub name: String,
    pub cidr: Ipv4Net,
    /// The host's address in the cluster's network: default route, registry and discovery of the nodes.
    pub gateway: Ipv4Addr,
    pub mtu: u32,
    pub bridge: String,
    /// The nftables table with the cluster's address translation.
    pub table: String,
    pub nodes: Vec<PlannedNode>,
    /// Networks that nodes have a link in beside the cluster's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub side_networks: Vec<Network>,
    /// The highest slot that a node ever had. Slots of nodes that left stay empty: an address that means another machine
    /// than an hour ago is known by the old one's keys.
    last_slot: u32,
    /// The highest number in a name that a node of each role ever had.
    last_numbers: BTreeMap<Role, u32>,
}

/// Why a cluster cannot be planned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    #[error(
        "cluster name {0:?} is not usable: lower-case letters, digits and inner hyphens, at most {NAME_LIMIT} characters"
    )]
    Name(String),
    #[error("network {cidr} has room for {room} nodes, {wanted} are requested")]
    Room { cidr: Ipv4Net, room: usize, wanted: usize },
    #[error("network {0:?} is not an IPv4 network like 10.5.0.0/24 (IPv6 networks are not supported yet)")]
    Network(String),
    #[error("networks {0} and {1} of the cluster overlap")]
    Overlap(Ipv4Net, Ipv4Net),
    #[error("a cluster can have {} networks", SIDE_NETWORKS + 1)]
    Networks,
    #[error("a cluster needs a control plane node")]
    NoControlPlane,
    #[error("slot {0} is taken, or outside of the network")]
    Slot(u32),
    #[error("mtu {0} is not between 1280 and 65535")]
    Mtu(u32),
}

impl Plan {
    /// Plans a cluster: the network's first address is the gateway, control planes follow, then workers.
    ///
    /// # Errors
    ///
    /// When the name cannot be used, or the nodes do not fit the network.
    pub fn new(name: &str, cidr: &str, mtu: u32, nodes: &NodeSpec) -> Result<Self, PlanError> {
        check_name(name)?;
        let cidr = network(cidr)?;
        if nodes.controlplanes == 0 {
            return Err(PlanError::NoControlPlane);
        }
        if !(1280..=65535).contains(&mtu) {
            return Err(PlanError::Mtu(mtu));
        }
        let wanted = nodes.controlplanes + nodes.workers;
        if cidr.prefix_len() < 8 || wanted > room(cidr) {
            return Err(PlanError::Room { cidr, room: room(cidr), wanted });
        }
        let mut plan = Self {
            name: name.to_owned(),
            cidr,
            gateway: cidr.hosts().next().unwrap_or(cidr.addr()),
            mtu,
            bridge: bridge_name(name, 0),
            table: table_name(name),
            nodes: Vec::new(),
            side_networks: Vec::new(),
            last_slot: 0,
            last_numbers: BTreeMap::new(),
        };
        for (role, count) in [(Role::ControlPlane, nodes.controlplanes), (Role::Worker, nodes.workers)] {
            for _ in 0..count {
                plan.add(role)?;
            }
        }
        Ok(plan)
    }

    /// Adds a side network.
    ///
    /// # Errors
    ///
    /// When it overlaps another network of the cluster, has no room for its nodes, or is one too many.
    pub fn add_network(&mut self, cidr: &str) -> Result<(), PlanError> {
        let cidr = network(cidr)?;
        if self.side_networks.len() >= SIDE_NETWORKS {
            return Err(PlanError::Networks);
        }
        if let Some(other) = self.networks().iter().map(|network| network.cidr).find(|other| overlap(cidr, *other)) {
            return Err(PlanError::Overlap(cidr, other));
        }
        let wanted = self.last_slot as usize;
        if cidr.prefix_len() < 8 || wanted > room(cidr) {
            return Err(PlanError::Room { cidr, room: room(cidr), wanted });
        }
        self.side_networks.push(Network::new(&self.name, self.side_networks.len() + 1, cidr));
        Ok(())
    }

    /// All networks, the cluster's own first.
    #[must_use]
    pub fn networks(&self) -> Vec<Network> {
        let own = Network { number: 0, cidr: self.cidr, gateway: self.gateway, bridge: self.bridge.clone() };
        std::iter::once(own).chain(self.side_networks.iter().cloned()).collect()
    }

    /// The host's end of a node's link in a network.
    #[must_use]
    pub fn link(&self, node: &PlannedNode, network: &Network) -> String {
        link_name(&self.name, network.number, node.slot)
    }

    /// The network that has the least room, and how many nodes fit into all of them.
    fn tightest(&self) -> (Ipv4Net, usize) {
        let networks = self.networks();
        let rooms = networks.iter().map(|network| (network.cidr, room(network.cidr)));
        rooms.min_by_key(|(_, room)| *room).unwrap_or((self.cidr, 0))
    }

    /// Adds a node in a slot that no node ever had; the others stay where they are.
    ///
    /// # Errors
    ///
    /// When the network has no such slot any more.
    pub fn add(&mut self, role: Role) -> Result<&PlannedNode, PlanError> {
        let (cidr, room) = self.tightest();
        if self.last_slot as usize >= room {
            return Err(PlanError::Room { cidr, room, wanted: self.last_slot as usize + 1 });
        }
        self.add_in(role, self.last_slot + 1)
    }

    /// Adds a node in the slot that is asked for, which may be that of a node that left.
    ///
    /// # Errors
    ///
    /// When a node has the slot, or the network has none of that number.
    pub fn add_in(&mut self, role: Role, slot: u32) -> Result<&PlannedNode, PlanError> {
        let (_, room) = self.tightest();
        let free = slot > 0 && slot as usize <= room && self.nodes.iter().all(|node| node.slot != slot);
        if !free {
            return Err(PlanError::Slot(slot));
        }
        self.last_slot = self.last_slot.max(slot);
        let number = self.last_numbers.entry(role).or_default();
        *number += 1;
        let node = PlannedNode {
            name: format!("{}-{}-{number}", self.name, role.as_str()),
            role,
            slot,
            address: Ipv4Addr::from(u32::from(self.gateway) + slot),
            link: link_name(&self.name, 0, slot),
        };
        let index = self.nodes.len();
        self.nodes.push(node);
        Ok(&self.nodes[index])
    }

    /// Takes a node out; its slot stays empty unless [`Self::add_in`] asks for it.
    pub fn remove(&mut self, name: &str) -> Option<PlannedNode> {
        let index = self.nodes.iter().position(|node| node.name == name)?;
        Some(self.nodes.remove(index))
    }

    /// The first control plane: where the cluster is bootstrapped.
    #[must_use]
    pub fn first_control_plane(&self) -> Option<&PlannedNode> {
        self.nodes.iter().find(|node| node.role == Role::ControlPlane)
    }

    /// The node with this name or address.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&PlannedNode> {
        self.nodes.iter().find(|node| node.name == name || name.parse() == Ok(IpAddr::V4(node.address)))
    }

    /// Where the nodes reach the discovery service of this cluster.
    #[must_use]
    pub fn discovery_endpoint(&self) -> String {
        format!("http://{}:{DISCOVERY_PORT}/", self.gateway)
    }

    /// Where the machines reach the key service of this cluster.
    #[must_use]
    pub fn keys_endpoint(&self) -> String {
        format!("grpc://{}:{KEYS_PORT}", self.gateway)
    }
}

fn network(text: &str) -> Result<Ipv4Net, PlanError> {
    text.parse::<Ipv4Net>().map(|cidr| cidr.trunc()).map_err(|_| PlanError::Network(text.to_owned()))
}

/// Whether two networks have an address in common.
pub(crate) fn overlap(one: Ipv4Net, other: Ipv4Net) -> bool {
    one.contains(&other) || other.contains(&one)
}

/// How many nodes a network has addresses for beside the gateway; links and names have room for 999.
fn room(cidr: Ipv4Net) -> usize {
    if cidr.prefix_len() > 30 {
        return 0;
    }
    let hosts = u64::from(u32::MAX >> cidr.prefix_len()).saturating_sub(2);
    usize::try_from(hosts).unwrap_or(usize::MAX).min(999)
}

/// Refuses names that do not fit host names, links and tables.
pub(crate) fn check_name(name: &str) -> Result<(), PlanError> {
    let inner = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    let ends = !name.starts_with('-') && !name.ends_with('-');
    if name.is_empty() || name.len() > NAME_LIMIT || !inner || !ends {
        return Err(PlanError::Name(name.to_owned()));
    }
    Ok(())
}

/// Eight hexadecimal digits derived from the cluster's name, for the 15 characters of a link's name.
fn tag(name: &str) -> String {
    let digest = digest::digest(&digest::SHA256, name.as_bytes());
    stdx::hex(&digest.as_ref()[..4])
}

fn bridge_name(name: &str, number: usize) -> String {
    let letter = (number > 0).then(|| LETTERS.get(number)).flatten();
    format!("{BRIDGE_PREFIX}{}{}", tag(name), letter.map(char::to_string).unwrap_or_default())
}

fn link_name(name: &str, number: usize, slot: u32) -> String {
    format!("tn{}{}{slot}", tag(name), LETTERS.get(number).unwrap_or(&'n'))
}

/// The bridges that a cluster can have, also one whose plan is lost.
pub(crate) fn bridges(name: &str) -> Vec<String> {
    (0..LETTERS.len()).map(|number| bridge_name(name, number)).collect()
}

/// Whether a link has the name of the bridge of any cluster.
pub(crate) fn is_bridge(link: &str) -> bool {
    let Some(tag) = link.strip_prefix(BRIDGE_PREFIX) else { return false };
    let tag = tag.strip_suffix(&LETTERS[1..]).unwrap_or(tag);
    tag.len() == 8 && tag.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Whether a link is a node's of the cluster.
pub(crate) fn is_link_of(name: &str, link: &str) -> bool {
    let rest = link.strip_prefix("tn").and_then(|rest| rest.strip_prefix(tag(name).as_str()));
    rest.is_some_and(|rest| rest.starts_with(LETTERS))
}

pub(crate) fn table_name(name: &str) -> String {
    format!("talos_{}", name.replace('-', "_"))
}

/// The cluster's folder in each cgroup hierarchy.
pub(crate) fn cgroup_name(name: &str) -> String {
    format!("talos-{name}")
}

#[cfg(test)]
mod tests;
