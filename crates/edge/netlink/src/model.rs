//! Links, addresses and routes, and what can be done with them.

use std::net::IpAddr;

use async_trait::async_trait;
use ipnet::IpNet;
use resources::enums::{
    AddressFlags, Family, LinkFlags, LinkType, OperationalState, RouteFlags, RouteProtocol, RouteType, RoutingTable,
    Scope,
};
use resources::values::HardwareAddr;

use crate::{Changes, Namespace, NetlinkError};

/// A link.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    /// Its number in this namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its hardware type.
    pub link_type: LinkType,
    /// The link below it (of a VLAN) or its peer (of a veth); 0 without one.
    pub parent_index: u32,
    /// Its flags.
    pub flags: LinkFlags,
    /// Its hardware address.
    pub hardware_addr: HardwareAddr,
    /// The hardware address it was made with.
    pub permanent_addr: HardwareAddr,
    /// The hardware address of broadcasts.
    pub broadcast_addr: HardwareAddr,
    /// The largest packet.
    pub mtu: u32,
    /// Its queueing discipline.
    pub queue_disc: String,
    /// The bridge or bond it belongs to; 0 without one.
    pub master_index: u32,
    /// Its state by RFC 2863.
    pub operational_state: OperationalState,
    /// Whether a signal is on the wire, where the kernel says.
    pub carrier: bool,
    /// `bridge`, `veth`, `vlan`; empty for hardware.
    pub kind: String,
    /// What it is to its master: `bridge`, `bond`.
    pub slave_kind: String,
}

/// What to change of a link; `None` leaves it as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinkChange {
    /// Up or down.
    pub up: Option<bool>,
    /// The largest packet.
    pub mtu: Option<u32>,
    /// The bridge or bond to belong to.
    pub master: Option<Master>,
    /// A new name. The link has to be down.
    pub name: Option<String>,
    /// A new hardware address.
    pub hardware_addr: Option<HardwareAddr>,
}

/// What a link belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Master {
    /// The bridge or bond of this name.
    Link(String),
    /// Nothing.
    None,
}

/// An address of a link.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Address {
    /// The link's number.
    pub link_index: u32,
    /// The address, with the length of its prefix.
    pub address: Option<IpNet>,
    /// The own address of a point-to-point link; of others the address once more.
    pub local: Option<IpAddr>,
    /// The broadcast address.
    pub broadcast: Option<IpAddr>,
    /// The anycast address.
    pub anycast: Option<IpAddr>,
    /// The multicast address.
    pub multicast: Option<IpAddr>,
    /// IPv4 or IPv6.
    pub family: Family,
    /// How far it is valid.
    pub scope: Scope,
    /// Its flags.
    pub flags: AddressFlags,
}

/// A route.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Route {
    /// IPv4 or IPv6. To add a route it may be left 0 if destination or gateway says it.
    pub family: Family,
    /// Where to; `None` is the default route.
    pub destination: Option<IpNet>,
    /// The source address that packets get.
    pub source: Option<IpAddr>,
    /// The next hop.
    pub gateway: Option<IpAddr>,
    /// The link's number; 0 without one.
    pub out_link_index: u32,
    /// The table; 0 means the main one.
    pub table: RoutingTable,
    /// Its metric: of equal destinations the lowest wins.
    pub priority: u32,
    /// How far it reaches.
    pub scope: Scope,
    /// What it does; 0 means unicast.
    pub route_type: RouteType,
    /// Its flags.
    pub flags: RouteFlags,
    /// Who made it; 0 means static.
    pub protocol: RouteProtocol,
    /// The largest packet, 0 where the link says.
    pub mtu: u32,
}

impl Route {
    /// The family that is said, or that follows from the addresses.
    #[must_use]
    pub fn effective_family(&self) -> Family {
        let first = self.destination.map(|net| net.addr()).or(self.gateway).or(self.source);
        match first {
            _ if self.family != Family::default() => self.family,
            Some(IpAddr::V6(_)) => Family::INET6,
            _ => Family::INET4,
        }
    }
}

/// A rule that gives packets from a subnet the address of the link by which they leave, so that answers come back.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Masquerade {
    /// Where the packets come from.
    pub source: IpNet,
    /// Where they may go as they are. Subnets of the other family do not matter.
    pub except: Vec<IpNet>,
}

/// Links.
///
/// Links are named by name: numbers differ between namespaces.
#[async_trait]
pub trait Links: std::fmt::Debug + Send + Sync + 'static {
    /// All links, ordered by number.
    async fn links(&self) -> Result<Vec<Link>, NetlinkError>;
    /// Tells when to look again.
    fn link_changes(&self) -> Changes;
    /// The link of that name; `None` without one.
    async fn link(&self, name: &str) -> Result<Option<Link>, NetlinkError> {
        Ok(self.links().await?.into_iter().find(|link| link.name == name))
    }
    /// Makes a bridge, down.
    async fn create_bridge(&self, name: &str) -> Result<(), NetlinkError>;
    /// Makes a pair of virtual Ethernet links, down.
    async fn create_veth(&self, name: &str, peer: &str) -> Result<(), NetlinkError>;
    /// Changes a link.
    async fn change_link(&self, name: &str, change: LinkChange) -> Result<(), NetlinkError>;
    /// Moves a link to another namespace, where it is down and without addresses.
    async fn move_link(&self, name: &str, to: &Namespace) -> Result<(), NetlinkError>;
    /// Removes a link, and of a veth its peer.
    async fn delete_link(&self, name: &str) -> Result<(), NetlinkError>;
}

/// Addresses.
#[async_trait]
pub trait Addresses: std::fmt::Debug + Send + Sync + 'static {
    /// All addresses of all links.
    async fn addresses(&self) -> Result<Vec<Address>, NetlinkError>;
    /// Tells when to look again.
    fn address_changes(&self) -> Changes;
    /// Gives a link an address. It may be there already.
    async fn add_address(&self, link: &str, address: IpNet) -> Result<(), NetlinkError>;
    /// Takes an address from a link. It may be gone already.
    async fn delete_address(&self, link: &str, address: IpNet) -> Result<(), NetlinkError>;
}

/// Routes.
#[async_trait]
pub trait Routes: std::fmt::Debug + Send + Sync + 'static {
    /// All routes of all tables, without the kernel's cache.
    async fn routes(&self) -> Result<Vec<Route>, NetlinkError>;
    /// Tells when to look again.
    fn route_changes(&self) -> Changes;
    /// Adds a route; one with the same destination, table and metric is an error.
    async fn add_route(&self, route: &Route) -> Result<(), NetlinkError>;
    /// Adds a route in the place of one with the same destination, table and metric, if there is one.
    async fn replace_route(&self, route: &Route) -> Result<(), NetlinkError>;
    /// Removes a route. It may be gone already.
    async fn delete_route(&self, route: &Route) -> Result<(), NetlinkError>;
}

/// Translation of addresses.
#[async_trait]
pub trait Translation: std::fmt::Debug + Send + Sync + 'static {
    /// Makes these our only rules, at once, and leaves those of others alone. Whether something had to change.
    async fn keep_masquerades(&self, wanted: &[Masquerade]) -> Result<bool, NetlinkError>;
}

/// What a node has to do to be the router of its pods.
pub trait Router: Routes + Translation {}

impl<T: Routes + Translation> Router for T {}
