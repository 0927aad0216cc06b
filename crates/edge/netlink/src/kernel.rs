//! The traits implemented with rtnetlink.
//!
//! Three sockets: requests, change notifications, nftables. All belong to the namespace in which they were opened.

use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt};
use ipnet::IpNet;
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use resources::enums::{AddressFlags, Scope};
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::{Handle, LinkBridge, LinkUnspec, LinkVeth, MulticastGroup, new_connection, new_multicast_connection};
use rustix::io::Errno;
use stdx::tasks::{self, Task};

use crate::error::failed;
use crate::nft::Nft;
use crate::{
    Address, Addresses, ChangeSender, Changes, Link, LinkChange, LinkHardware, Links, Masquerade, Master, Namespace,
    NetlinkError, Route, Routes, Translation,
};
use crate::{hardware, message};

/// Links, addresses and routes of one network namespace. Cheap to clone.
#[derive(Debug, Clone)]
pub struct KernelNetlink {
    handle: Handle,
    inner: Arc<Inner>,
}

/// Dropped with the last clone.
#[derive(Debug)]
struct Inner {
    changes: Arc<AllChanges>,
    /// The kernel refuses a second dump on a socket while one is in progress.
    listing: tokio::sync::Mutex<()>,
    /// Where sysfs shows the links of this namespace; `None` for another one.
    sysfs: Option<&'static Path>,
    /// `None` on a kernel without nftables; everything else works.
    nft: std::io::Result<Nft>,
    _requests: Task<()>,
    _events: Task<()>,
}

#[derive(Debug, Default)]
struct AllChanges {
    links: ChangeSender,
    addresses: ChangeSender,
    routes: ChangeSender,
}

const GROUPS: [MulticastGroup; 5] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
];

impl KernelNetlink {
    /// The namespace of the calling thread.
    ///
    /// Assumptions: called on a tokio runtime, whose tasks read the sockets until the last clone is dropped.
    pub fn connect() -> Result<Self, NetlinkError> {
        Self::open(Some(Path::new("/sys/class/net")))
    }

    fn open(sysfs: Option<&'static Path>) -> Result<Self, NetlinkError> {
        let opening = |error| NetlinkError::new("opening a netlink socket", error);
        let (requests, handle, _) = new_connection().map_err(opening)?;
        let (listener, _, mut messages) = new_multicast_connection(&GROUPS).map_err(opening)?;
        let changes = Arc::new(AllChanges::default());
        let requests = tasks::spawn("netlink-requests", requests);
        let told = Arc::clone(&changes);
        let events = tasks::spawn("netlink-events", async move {
            let hear = async {
                while let Some((message, _)) = messages.next().await {
                    told.notify(&message);
                }
            };
            futures::future::join(listener, hear).await;
        });
        let nft = Nft::open();
        let listing = tokio::sync::Mutex::default();
        Ok(Self {
            handle,
            inner: Arc::new(Inner { changes, listing, sysfs, nft, _requests: requests, _events: events }),
        })
    }

    /// Another namespace. Same assumptions as [`connect`](Self::connect).
    pub fn connect_in(namespace: &Namespace) -> Result<Self, NetlinkError> {
        let runtime = tokio::runtime::Handle::current();
        namespace.run(|| {
            let _entered = runtime.enter();
            Self::open(None)
        })?
    }

    async fn index(&self, name: &str) -> Result<u32, NetlinkError> {
        let looking_up = || format!("looking up link {name}");
        let mut found = pin!(self.handle.link().get().match_name(name.to_owned()).execute());
        let link = found.try_next().await.map_err(failed(looking_up))?;
        link.map(|link| link.header.index).ok_or_else(|| NetlinkError::new(looking_up(), Errno::NODEV))
    }

    async fn make(&self, message: LinkMessage, what: &str, name: &str) -> Result<(), NetlinkError> {
        self.handle.link().add(message).execute().await.map_err(failed(|| format!("creating {what} {name}")))
    }

    async fn routes_of(&self, family: AddressFamily) -> Result<Vec<Route>, NetlinkError> {
        let _listing = self.inner.listing.lock().await;
        let found: Vec<RouteMessage> = self
            .handle
            .route()
            .get(message::all_routes(family))
            .execute()
            .try_collect()
            .await
            .map_err(failed(|| "listing routes"))?;
        Ok(found.iter().filter(|route| !message::is_cached(route)).map(message::route).collect())
    }
}

impl AllChanges {
    fn notify(&self, message: &NetlinkMessage<RouteNetlinkMessage>) {
        match &message.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(_) | RouteNetlinkMessage::DelLink(_)) => {
                self.links.notify();
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(_) | RouteNetlinkMessage::DelAddress(_)) => {
                self.addresses.notify();
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(_) | RouteNetlinkMessage::DelRoute(_)) => {
                self.routes.notify();
            }
            // Messages were lost: anything may have changed.
            NetlinkPayload::Overrun(_) | NetlinkPayload::Error(_) => {
                tracing::debug!("netlink messages were lost");
                self.links.notify();
                self.addresses.notify();
                self.routes.notify();
            }
            _ => {}
        }
    }
}

#[async_trait]
impl Links for KernelNetlink {
    async fn links(&self) -> Result<Vec<Link>, NetlinkError> {
        let _listing = self.inner.listing.lock().await;
        let found: Vec<LinkMessage> =
            self.handle.link().get().execute().try_collect().await.map_err(failed(|| "listing links"))?;
        let mut links: Vec<Link> = found.iter().map(message::link).collect();
        links.sort_by_key(|link| link.index);
        Ok(links)
    }

    fn link_changes(&self) -> Changes {
        self.inner.changes.links.subscribe()
    }

    async fn hardware(&self, name: &str) -> LinkHardware {
        self.inner.sysfs.map(|sysfs| hardware::read(sysfs, name)).unwrap_or_default()
    }

    async fn create_bridge(&self, name: &str) -> Result<(), NetlinkError> {
        self.make(LinkBridge::new(name).down().build(), "bridge", name).await
    }

    async fn create_veth(&self, name: &str, peer: &str) -> Result<(), NetlinkError> {
        self.make(LinkVeth::new(name, peer).build(), "veth", name).await
    }

    async fn change_link(&self, name: &str, change: LinkChange) -> Result<(), NetlinkError> {
        let mut message = LinkUnspec::new_with_index(self.index(name).await?);
        message = match change.master {
            Some(Master::Link(master)) => message.controller(self.index(&master).await?),
            Some(Master::None) => message.nocontroller(),
            None => message,
        };
        message = match change.up {
            Some(true) => message.up(),
            Some(false) => message.down(),
            None => message,
        };
        if let Some(mtu) = change.mtu {
            message = message.mtu(mtu);
        }
        if let Some(name) = change.name {
            message = message.name(name);
        }
        if let Some(address) = change.hardware_addr {
            message = message.address(address.0);
        }
        let request = self.handle.link().set(message.build());
        request.execute().await.map_err(failed(|| format!("changing link {name}")))
    }

    async fn move_link(&self, name: &str, to: &Namespace) -> Result<(), NetlinkError> {
        let message = LinkUnspec::new_with_index(self.index(name).await?).setns_by_fd(to.as_fd().as_raw_fd());
        let request = self.handle.link().set(message.build());
        request.execute().await.map_err(failed(|| format!("moving link {name} to another namespace")))
    }

    async fn delete_link(&self, name: &str) -> Result<(), NetlinkError> {
        let index = self.index(name).await?;
        self.handle.link().del(index).execute().await.map_err(failed(|| format!("removing link {name}")))
    }
}

#[async_trait]
impl Addresses for KernelNetlink {
    async fn addresses(&self) -> Result<Vec<Address>, NetlinkError> {
        let _listing = self.inner.listing.lock().await;
        let found: Vec<_> =
            self.handle.address().get().execute().try_collect().await.map_err(failed(|| "listing addresses"))?;
        Ok(found.iter().map(message::address).collect())
    }

    fn address_changes(&self) -> Changes {
        self.inner.changes.addresses.subscribe()
    }

    async fn add_address_with(
        &self,
        link: &str,
        address: IpNet,
        scope: Scope,
        flags: AddressFlags,
    ) -> Result<(), NetlinkError> {
        let index = self.index(link).await?;
        let mut request = self.handle.address().add(index, address.addr(), address.prefix_len());
        message::set_address(request.message_mut(), address, scope, flags);
        let added = request.execute().await.map_err(failed(|| format!("adding address {address} to {link}")));
        allow(added, NetlinkError::is_exists)
    }

    async fn delete_address(&self, link: &str, address: IpNet) -> Result<(), NetlinkError> {
        let index = self.index(link).await?;
        let mut message = self.handle.address().add(index, address.addr(), address.prefix_len());
        let message = std::mem::take(message.message_mut());
        let deleted = self.handle.address().del(message).execute().await;
        allow(deleted.map_err(failed(|| format!("removing address {address} from {link}"))), NetlinkError::is_not_found)
    }
}

#[async_trait]
impl Routes for KernelNetlink {
    async fn routes(&self) -> Result<Vec<Route>, NetlinkError> {
        let mut routes = self.routes_of(AddressFamily::Inet).await?;
        routes.extend(self.routes_of(AddressFamily::Inet6).await?);
        Ok(routes)
    }

    fn route_changes(&self) -> Changes {
        self.inner.changes.routes.subscribe()
    }

    async fn add_route(&self, route: &Route) -> Result<(), NetlinkError> {
        let request = self.handle.route().add(message::route_message(route));
        request.execute().await.map_err(failed(|| format!("adding a route {}", describe(route))))
    }

    async fn append_route(&self, route: &Route) -> Result<(), NetlinkError> {
        let appending = || format!("appending the route {}", describe(route));
        let mut request = NetlinkMessage::from(RouteNetlinkMessage::NewRoute(message::route_message(route)));
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_APPEND;
        let mut answers = self.handle.clone().request(request).map_err(failed(appending))?;
        while let Some(answer) = answers.next().await {
            if let NetlinkPayload::Error(error) = answer.payload
                && error.code.is_some()
            {
                return allow(Err(NetlinkError::new(appending(), error.to_io())), NetlinkError::is_exists);
            }
        }
        Ok(())
    }

    async fn replace_route(&self, route: &Route) -> Result<(), NetlinkError> {
        let request = self.handle.route().add(message::route_message(route)).replace();
        request.execute().await.map_err(failed(|| format!("replacing the route {}", describe(route))))
    }

    async fn delete_route(&self, route: &Route) -> Result<(), NetlinkError> {
        let deleted = self.handle.route().del(message::route_message(route)).execute().await;
        allow(deleted.map_err(failed(|| format!("removing the route {}", describe(route)))), NetlinkError::is_not_found)
    }
}

#[async_trait]
impl Translation for KernelNetlink {
    async fn keep_masquerades(&self, wanted: &[Masquerade]) -> Result<bool, NetlinkError> {
        match &self.inner.nft {
            Ok(nft) => nft.keep(wanted),
            // Without nftables there are no rules to remove.
            Err(_) if wanted.is_empty() => Ok(false),
            Err(error) => {
                let cause = error.raw_os_error().map_or(Errno::PROTONOSUPPORT, Errno::from_raw_os_error);
                Err(NetlinkError::new("masquerading pods", cause))
            }
        }
    }
}

fn describe(route: &Route) -> String {
    let to = route.destination.map_or_else(|| "by default".to_owned(), |net| format!("to {net}"));
    route.gateway.map_or(to.clone(), |gateway| format!("{to} via {gateway}"))
}

/// An error that means the request was already fulfilled.
fn allow(result: Result<(), NetlinkError>, fine: fn(&NetlinkError) -> bool) -> Result<(), NetlinkError> {
    match result {
        Err(error) if fine(&error) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests;
