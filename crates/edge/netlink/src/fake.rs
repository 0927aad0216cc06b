//! In-memory implementation of the traits, for tests.
//!
//! It stores values and notifies of changes; it does not model the kernel's rules about reachability.

use std::sync::Arc;

use async_trait::async_trait;
use ipnet::IpNet;
use parking_lot::Mutex;
use resources::enums::{
    AddressFlags, Family, LinkFlags, LinkType, OperationalState, RouteProtocol, RouteType, RoutingTable, Scope,
};
use rustix::io::Errno;

use crate::{
    Address, Addresses, ChangeSender, Changes, Link, LinkChange, Links, Masquerade, Master, Namespace, NetlinkError,
    Route, Routes, Translation,
};

/// Links, addresses, routes and translation in memory; clones share them.
#[derive(Debug, Clone, Default)]
pub struct FakeNetlink {
    state: Arc<Mutex<State>>,
    links: Arc<ChangeSender>,
    addresses: Arc<ChangeSender>,
    routes: Arc<ChangeSender>,
}

#[derive(Debug, Default)]
struct State {
    links: Vec<Link>,
    addresses: Vec<Address>,
    routes: Vec<Route>,
    masquerades: Vec<Masquerade>,
    cannot_translate: bool,
}

impl FakeNetlink {
    /// The current masquerade rules.
    pub fn masquerades(&self) -> Vec<Masquerade> {
        self.state.lock().masquerades.clone()
    }

    /// Removes all rules, as an external flush would.
    pub fn flush_masquerades(&self) {
        self.state.lock().masquerades.clear();
    }

    /// Whether it simulates a kernel without nftables.
    pub fn set_cannot_translate(&self, cannot: bool) {
        self.state.lock().cannot_translate = cannot;
    }

    /// Replaces all links.
    pub fn set_links(&self, links: Vec<Link>) {
        self.state.lock().links = links;
        self.links.notify();
    }

    /// Replaces all addresses.
    pub fn set_addresses(&self, addresses: Vec<Address>) {
        self.state.lock().addresses = addresses;
        self.addresses.notify();
    }

    /// Replaces all routes.
    pub fn set_routes(&self, routes: Vec<Route>) {
        self.state.lock().routes = routes;
        self.routes.notify();
    }

    fn add_link(&self, name: &str, kind: &str) -> Result<(), NetlinkError> {
        let mut state = self.state.lock();
        if state.links.iter().any(|link| link.name == name) {
            return Err(NetlinkError::new(format!("creating {kind} {name}"), Errno::EXIST));
        }
        let index = state.links.iter().map(|link| link.index).max().unwrap_or(0) + 1;
        let operational_state = OperationalState::DOWN;
        let link = Link {
            index,
            name: name.to_owned(),
            link_type: LinkType::ETHER,
            mtu: 1500,
            kind: kind.to_owned(),
            operational_state,
            ..Link::default()
        };
        state.links.push(link);
        drop(state);
        self.links.notify();
        Ok(())
    }

    fn index(&self, name: &str) -> Result<u32, NetlinkError> {
        let state = self.state.lock();
        let found = state.links.iter().find(|link| link.name == name).map(|link| link.index);
        found.ok_or_else(|| NetlinkError::new(format!("looking up link {name}"), Errno::NODEV))
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut Link)) -> Result<(), NetlinkError> {
        let index = self.index(name)?;
        self.state.lock().links.iter_mut().filter(|link| link.index == index).take(1).for_each(change_once(change));
        self.links.notify();
        Ok(())
    }
}

/// `for_each` needs an `FnMut`; there is one link per index.
fn change_once(change: impl FnOnce(&mut Link)) -> impl FnMut(&mut Link) {
    let mut change = Some(change);
    move |link| {
        if let Some(change) = change.take() {
            change(link);
        }
    }
}

#[async_trait]
impl Links for FakeNetlink {
    async fn links(&self) -> Result<Vec<Link>, NetlinkError> {
        Ok(self.state.lock().links.clone())
    }

    fn link_changes(&self) -> Changes {
        self.links.subscribe()
    }

    async fn create_bridge(&self, name: &str) -> Result<(), NetlinkError> {
        self.add_link(name, "bridge")
    }

    async fn create_veth(&self, name: &str, peer: &str) -> Result<(), NetlinkError> {
        self.add_link(name, "veth")?;
        self.add_link(peer, "veth")
    }

    async fn change_link(&self, name: &str, change: LinkChange) -> Result<(), NetlinkError> {
        let master = match &change.master {
            Some(Master::Link(master)) => Some(self.index(master)?),
            Some(Master::None) => Some(0),
            None => None,
        };
        self.change(name, |link| {
            link.master_index = master.unwrap_or(link.master_index);
            link.mtu = change.mtu.unwrap_or(link.mtu);
            if let Some(up) = change.up {
                link.flags.0 = if up { link.flags.0 | LinkFlags::UP.0 } else { link.flags.0 & !LinkFlags::UP.0 };
                link.operational_state = if up { OperationalState::UP } else { OperationalState::DOWN };
            }
            if let Some(name) = change.name {
                link.name = name;
            }
            if let Some(address) = change.hardware_addr {
                link.hardware_addr = address;
            }
        })
    }

    async fn move_link(&self, name: &str, _to: &Namespace) -> Result<(), NetlinkError> {
        self.delete_link(name).await
    }

    async fn delete_link(&self, name: &str) -> Result<(), NetlinkError> {
        let index = self.index(name)?;
        self.state.lock().links.retain(|link| link.index != index);
        self.links.notify();
        Ok(())
    }
}

#[async_trait]
impl Addresses for FakeNetlink {
    async fn addresses(&self) -> Result<Vec<Address>, NetlinkError> {
        Ok(self.state.lock().addresses.clone())
    }

    fn address_changes(&self) -> Changes {
        self.addresses.subscribe()
    }

    async fn add_address_with(
        &self,
        link: &str,
        address: IpNet,
        scope: Scope,
        flags: AddressFlags,
    ) -> Result<(), NetlinkError> {
        let link_index = self.index(link)?;
        let mut state = self.state.lock();
        if !state.addresses.iter().any(|known| known.link_index == link_index && known.address == Some(address)) {
            state.addresses.push(Address {
                link_index,
                address: Some(address),
                local: Some(address.addr()),
                family: if address.addr().is_ipv4() { Family::INET4 } else { Family::INET6 },
                scope,
                flags: AddressFlags(flags.0 | AddressFlags::PERMANENT.0),
                ..Address::default()
            });
        }
        drop(state);
        self.addresses.notify();
        Ok(())
    }

    async fn delete_address(&self, link: &str, address: IpNet) -> Result<(), NetlinkError> {
        let index = self.index(link)?;
        let gone = |known: &Address| known.link_index == index && known.address == Some(address);
        self.state.lock().addresses.retain(|known| !gone(known));
        self.addresses.notify();
        Ok(())
    }
}

#[async_trait]
impl Routes for FakeNetlink {
    async fn routes(&self) -> Result<Vec<Route>, NetlinkError> {
        Ok(self.state.lock().routes.clone())
    }

    fn route_changes(&self) -> Changes {
        self.routes.subscribe()
    }

    async fn add_route(&self, route: &Route) -> Result<(), NetlinkError> {
        if self.state.lock().routes.iter().any(|known| key(known) == key(route)) {
            return Err(NetlinkError::new("adding a route", Errno::EXIST));
        }
        self.replace_route(route).await
    }

    async fn append_route(&self, route: &Route) -> Result<(), NetlinkError> {
        let mut state = self.state.lock();
        let stored = stored(route);
        let is_same = |known: &Route| key(known) == key(route) && known.gateway == route.gateway;
        if !state.routes.iter().any(is_same) {
            state.routes.push(stored);
        }
        drop(state);
        self.routes.notify();
        Ok(())
    }

    async fn replace_route(&self, route: &Route) -> Result<(), NetlinkError> {
        let mut state = self.state.lock();
        state.routes.retain(|known| key(known) != key(route));
        state.routes.push(stored(route));
        drop(state);
        self.routes.notify();
        Ok(())
    }

    async fn delete_route(&self, route: &Route) -> Result<(), NetlinkError> {
        let is_meant =
            |known: &Route| key(known) == key(route) && (route.gateway.is_none() || known.gateway == route.gateway);
        self.state.lock().routes.retain(|known| !is_meant(known));
        self.routes.notify();
        Ok(())
    }
}

#[async_trait]
impl Translation for FakeNetlink {
    /// Stricter than the kernel: a rule whose exceptions do not contain its source would masquerade traffic between
    /// pods of one node.
    async fn keep_masquerades(&self, wanted: &[Masquerade]) -> Result<bool, NetlinkError> {
        let mut state = self.state.lock();
        if state.cannot_translate && !wanted.is_empty() {
            return Err(NetlinkError::new("masquerading pods", Errno::PROTONOSUPPORT));
        }
        if wanted.iter().any(|rule| !rule.except.iter().any(|net| net.contains(&rule.source))) {
            return Err(NetlinkError::new("masquerading pods", Errno::INVAL));
        }
        let changed = state.masquerades != wanted;
        state.masquerades = wanted.to_vec();
        Ok(changed)
    }
}

/// The route with the defaults of the kernel.
fn stored(route: &Route) -> Route {
    let mut stored = route.clone();
    stored.family = route.effective_family();
    stored.table = key(route).2;
    if stored.protocol == RouteProtocol::UNSPEC {
        stored.protocol = RouteProtocol::STATIC;
    }
    if stored.route_type == RouteType::UNSPEC {
        stored.route_type = RouteType::UNICAST;
    }
    stored
}

/// The key that identifies a route.
fn key(route: &Route) -> (Family, Option<IpNet>, RoutingTable, u32) {
    let table = if route.table == RoutingTable::UNSPEC { RoutingTable::MAIN } else { route.table };
    (route.effective_family(), route.destination.map(|net| net.trunc()), table, route.priority)
}
