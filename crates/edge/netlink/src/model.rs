//! Links, addresses and routes, and the operations on them.

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
    /// Index in this namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its hardware type.
    pub link_type: LinkType,
    /// The underlying link of a VLAN, or the peer of a veth; 0 without one.
    pub parent_index: u32,
    /// Its flags.
    pub flags: LinkFlags,
    /// Its hardware address.
    pub hardware_addr: HardwareAddr,
    /// The permanent hardware address.
    pub permanent_addr: HardwareAddr,
    /// The broadcast hardware address.
    pub broadcast_addr: HardwareAddr,
    /// The MTU.
    pub mtu: u32,
    /// Its queueing discipline.
    pub queue_disc: String,
    /// The bridge or bond that it belongs to; 0 without one.
    pub master_index: u32,
    /// Operational state by RFC 2863.
    pub operational_state: OperationalState,
    /// Whether there is a carrier, if the kernel knows.
    pub carrier: bool,
    /// Kind, such as `bridge`, `veth` or `vlan`; empty for hardware.
    pub kind: String,
    /// Kind as a member of its master: `bridge`, `bond`.
    pub slave_kind: String,
}

/// The device behind a link; empty texts where it has none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinkHardware {
    /// Place on the bus, such as `0000:00:03.0`.
    pub bus_path: String,
    /// The kernel's driver.
    pub driver: String,
    /// Vendor and product on the PCI bus, such as `1AF4:1000`.
    pub pci_id: String,
}

/// Changes to a link; `None` leaves a setting unchanged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinkChange {
    /// Up or down.
    pub up: Option<bool>,
    /// The MTU.
    pub mtu: Option<u32>,
    /// The master to join.
    pub master: Option<Master>,
    /// A new name; the link must be down.
    pub name: Option<String>,
    /// A new hardware address.
    pub hardware_addr: Option<HardwareAddr>,
}

/// The master of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Master {
    /// The bridge or bond with this name.
    Link(String),
    /// No master.
    None,
}

/// An address of a link.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Address {
    /// Index of the link.
    pub link_index: u32,
    /// The address with its prefix length.
    pub address: Option<IpNet>,
    /// The local address of a point-to-point link; otherwise the address again.
    pub local: Option<IpAddr>,
    /// The broadcast address.
    pub broadcast: Option<IpAddr>,
    /// The anycast address.
    pub anycast: Option<IpAddr>,
    /// The multicast address.
    pub multicast: Option<IpAddr>,
    /// IPv4 or IPv6.
    pub family: Family,
    /// Scope of validity.
    pub scope: Scope,
    /// Its flags.
    pub flags: AddressFlags,
}

/// A route.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Route {
    /// IPv4 or IPv6. May be 0 when adding a route if destination or gateway imply it.
    pub family: Family,
    /// Destination; `None` is the default route.
    pub destination: Option<IpNet>,
    /// The preferred source address.
    pub source: Option<IpAddr>,
    /// The next hop.
    pub gateway: Option<IpAddr>,
    /// Index of the link; 0 without one.
    pub out_link_index: u32,
    /// The table; 0 means main.
    pub table: RoutingTable,
    /// The metric: the lowest wins among equal destinations.
    pub priority: u32,
    /// The scope.
    pub scope: Scope,
    /// The type; 0 means unicast.
    pub route_type: RouteType,
    /// Its flags.
    pub flags: RouteFlags,
    /// The origin; 0 means static.
    pub protocol: RouteProtocol,
    /// The MTU; 0 means the link's.
    pub mtu: u32,
}

impl Route {
    /// The family, explicit or implied by the addresses.
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

/// Masquerades packets from a subnet: they get the address of the outgoing link, so that replies return.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Masquerade {
    /// Source subnet.
    pub source: IpNet,
    /// Destinations that are not masqueraded. Subnets of the other family are ignored.
    pub except: Vec<IpNet>,
}

/// Links.
///
/// Links are identified by name: indexes differ between namespaces.
#[async_trait]
pub trait Links: std::fmt::Debug + Send + Sync + 'static {
    /// All links, ordered by number.
    async fn links(&self) -> Result<Vec<Link>, NetlinkError>;
    /// Notifies of changes.
    fn link_changes(&self) -> Changes;
    /// The link with that name; `None` if there is none.
    async fn link(&self, name: &str) -> Result<Option<Link>, NetlinkError> {
        Ok(self.links().await?.into_iter().find(|link| link.name == name))
    }
    /// The device behind a link, where the kernel tells.
    async fn hardware(&self, _name: &str) -> LinkHardware {
        LinkHardware::default()
    }
    /// Creates a bridge, down.
    async fn create_bridge(&self, name: &str) -> Result<(), NetlinkError>;
    /// Creates a veth pair, down.
    async fn create_veth(&self, name: &str, peer: &str) -> Result<(), NetlinkError>;
    /// Changes a link.
    async fn change_link(&self, name: &str, change: LinkChange) -> Result<(), NetlinkError>;
    /// Moves a link to another namespace, where it is down and has no addresses.
    async fn move_link(&self, name: &str, to: &Namespace) -> Result<(), NetlinkError>;
    /// Removes a link; for a veth also its peer.
    async fn delete_link(&self, name: &str) -> Result<(), NetlinkError>;
}

/// Addresses.
#[async_trait]
pub trait Addresses: std::fmt::Debug + Send + Sync + 'static {
    /// All addresses of all links.
    async fn addresses(&self) -> Result<Vec<Address>, NetlinkError>;
    /// Notifies of changes.
    fn address_changes(&self) -> Changes;
    /// Adds an address of global scope to a link. Succeeds if it exists.
    async fn add_address(&self, link: &str, address: IpNet) -> Result<(), NetlinkError> {
        self.add_address_with(link, address, Scope::GLOBAL, AddressFlags::default()).await
    }
    /// Adds an address of that scope and with those flags to a link. Succeeds if it exists, without changing it.
    async fn add_address_with(
        &self,
        link: &str,
        address: IpNet,
        scope: Scope,
        flags: AddressFlags,
    ) -> Result<(), NetlinkError>;
    /// Removes an address from a link. Succeeds if it does not exist.
    async fn delete_address(&self, link: &str, address: IpNet) -> Result<(), NetlinkError>;
}

/// Routes.
#[async_trait]
pub trait Routes: std::fmt::Debug + Send + Sync + 'static {
    /// All routes of all tables, without cached ones.
    async fn routes(&self) -> Result<Vec<Route>, NetlinkError>;
    /// Notifies of changes.
    fn route_changes(&self) -> Changes;
    /// Adds a route; fails if one with the same destination, table and metric exists.
    async fn add_route(&self, route: &Route) -> Result<(), NetlinkError>;
    /// Adds a route behind those with the same destination, table and metric. Succeeds if it exists.
    async fn append_route(&self, route: &Route) -> Result<(), NetlinkError>;
    /// Adds a route or replaces the one with the same destination, table and metric.
    async fn replace_route(&self, route: &Route) -> Result<(), NetlinkError>;
    /// Removes a route. Succeeds if it does not exist.
    async fn delete_route(&self, route: &Route) -> Result<(), NetlinkError>;
}

/// Address translation.
#[async_trait]
pub trait Translation: std::fmt::Debug + Send + Sync + 'static {
    /// Replaces all our rules atomically and leaves others' rules alone. Returns whether anything changed.
    async fn keep_masquerades(&self, wanted: &[Masquerade]) -> Result<bool, NetlinkError>;
}

/// The operations of a node as the router of its pods.
pub trait Router: Routes + Translation {}

impl<T: Routes + Translation> Router for T {}
