//! Network controllers: the kernel's state, the desired configuration, and resources derived from both.
//!
//! Settings (links, addresses, routes, operators, host name, resolvers, time servers) come in layers, are merged, and take
//! effect. Where the network is the host's, links, addresses and routes have no layers but that of the loopback link.
//! `docs/network.md` has the picture.

mod address_config;
mod address_spec;
mod address_status;
mod arguments;
mod device_config;
mod devices;
mod etc_file;
mod hardware_addr;
mod held;
mod host_dns_config;
mod hostname_config;
mod hostname_spec;
mod layer_specs;
mod link_config;
mod link_spec;
mod link_status;
mod merge;
mod meta_config;
mod network_status;
mod node_address;
mod operator_config;
mod operator_spec;
mod resolver_config;
mod route_config;
mod route_spec;
mod route_status;
mod settings_status;
mod time_server_config;
mod watch;

use std::io;
use std::sync::Arc;

use controller::Controller;
use dhcp::{KernelSockets, Sockets};
use netlink::{Addresses, KernelNetlink, Links, NetlinkError, Router};

pub use address_config::AddressConfigController;
pub use address_spec::AddressSpecController;
pub use address_status::AddressStatusController;
pub use arguments::Arguments;
pub use device_config::DeviceConfigController;
pub use etc_file::EtcFileController;
pub use hardware_addr::HardwareAddrController;
pub use hostname_config::{HostnameConfigController, stable_hostname};
pub use hostname_spec::{HostnameSpecController, SetHostname};
pub use link_config::LinkConfigController;
pub use link_spec::LinkSpecController;
pub use link_status::LinkStatusController;
pub use merge::MergeController;
pub use meta_config::MetaConfigController;
pub use network_status::StatusController;
pub use node_address::NodeAddressController;
pub use operator_config::OperatorConfigController;
pub use operator_spec::OperatorSpecController;
pub use resolver_config::ResolverConfigController;
pub use route_config::RouteConfigController;
pub use route_spec::RouteSpecController;
pub use route_status::RouteStatusController;
pub use settings_status::{ResolverSpecController, TimeServerSpecController};
pub use time_server_config::TimeServerConfigController;

/// The controllers' access to the kernel.
#[derive(Clone)]
pub struct Edges {
    /// Links of the node.
    pub links: Arc<dyn Links>,
    /// Addresses of the node.
    pub addresses: Arc<dyn Addresses>,
    /// Routes and masquerading of the node as the router of its pods.
    pub routes: Arc<dyn Router>,
    /// Sockets of DHCP clients.
    pub dhcp: Arc<dyn Sockets>,
    /// Sets the host name.
    pub set_hostname: SetHostname,
    /// Arguments of the kernel.
    pub arguments: Arguments,
}

impl Edges {
    /// The kernel, in the namespaces of this process, which was started with these arguments.
    ///
    /// Assumptions: called on a tokio runtime.
    pub fn kernel(arguments: Arguments) -> Result<Self, NetlinkError> {
        let kernel = Arc::new(KernelNetlink::connect()?);
        let set_hostname: SetHostname = Arc::new(|name: &str| -> io::Result<()> { sys::host::set_hostname(name) });
        Ok(Self {
            links: Arc::clone(&kernel) as Arc<dyn Links>,
            addresses: Arc::clone(&kernel) as Arc<dyn Addresses>,
            routes: kernel,
            dhcp: Arc::new(KernelSockets::default()),
            set_hostname,
            arguments,
        })
    }
}

impl std::fmt::Debug for Edges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Edges").field("links", &self.links).finish_non_exhaustive()
    }
}

/// All controllers of this crate, to be registered.
pub fn controllers(edges: &Edges) -> Vec<Box<dyn Controller>> {
    let mut list: Vec<Box<dyn Controller>> = vec![
        Box::new(HardwareAddrController),
        Box::new(NodeAddressController),
        Box::new(MergeController::hostname()),
        Box::new(HostnameSpecController::new(Arc::clone(&edges.set_hostname))),
        Box::new(MergeController::resolver()),
        Box::new(ResolverSpecController),
        Box::new(MergeController::time_server()),
        Box::new(TimeServerSpecController),
        Box::new(EtcFileController),
        Box::new(StatusController),
        Box::new(DeviceConfigController),
        host_dns_config::controller(),
    ];
    list.extend(layers(&edges.arguments));
    list.extend(of_kernel(edges));
    list
}

/// The layers of arguments and configuration.
fn layers(arguments: &Arguments) -> Vec<Box<dyn Controller>> {
    let arguments = || arguments.clone();
    vec![
        Box::new(LinkConfigController::new(arguments())),
        Box::new(AddressConfigController::new(arguments())),
        Box::new(RouteConfigController::new(arguments())),
        Box::new(OperatorConfigController::new(arguments())),
        Box::new(HostnameConfigController::new(arguments())),
        Box::new(ResolverConfigController::new(arguments())),
        Box::new(TimeServerConfigController::new(arguments())),
        Box::new(MetaConfigController::default()),
    ]
}

/// Links, addresses and routes: merged, put into the kernel, and read from it.
fn of_kernel(edges: &Edges) -> Vec<Box<dyn Controller>> {
    let (links, addresses) = (|| Arc::clone(&edges.links), || Arc::clone(&edges.addresses));
    // Two kinds of pointers: coercion of the router's needs a name.
    let routes = || -> Arc<dyn Router> { Arc::clone(&edges.routes) };
    vec![
        Box::new(MergeController::link()),
        Box::new(LinkSpecController::new(links())),
        Box::new(LinkStatusController::new(links())),
        Box::new(MergeController::address()),
        Box::new(AddressSpecController::new(links(), addresses())),
        Box::new(AddressStatusController::new(links(), addresses())),
        Box::new(MergeController::route()),
        Box::new(RouteSpecController::new(links(), addresses(), routes())),
        Box::new(RouteStatusController::new(links(), routes())),
        Box::new(MergeController::operator()),
        Box::new(OperatorSpecController::new(Arc::clone(&edges.dhcp))),
    ]
}

#[cfg(test)]
mod tests {
    use controller::testing::Harness;
    use netlink::{FakeNetlink, Routes as _};
    use parking_lot::Mutex;
    use resources::cluster::Identity;
    use resources::files::EtcFileSpec;
    use resources::network::NetworkStatus;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn together_they_make_a_named_node_with_files_from_an_identity_and_a_link() {
        let fake = Arc::new(FakeNetlink::default());
        fake.create_veth("eth0", "peer").await.unwrap();
        fake.change_link("eth0", netlink::LinkChange { up: Some(true), ..Default::default() }).await.unwrap();
        fake.add_address("eth0", "10.5.0.2/24".parse().unwrap()).await.unwrap();
        let gateway = netlink::Route { gateway: Some("10.5.0.1".parse().unwrap()), ..Default::default() };
        fake.add_route(&gateway).await.unwrap();
        let name = Arc::new(Mutex::new(String::new()));
        let kernel_name = Arc::clone(&name);
        let edges = Edges {
            links: fake.clone(),
            addresses: fake.clone(),
            routes: fake,
            dhcp: Arc::new(dhcp::FakeSockets::default()),
            arguments: Arguments::default(),
            set_hostname: Arc::new(move |name: &str| {
                name.clone_into(&mut kernel_name.lock());
                Ok(())
            }),
        };
        let harness = Harness::new();
        for controller in controllers(&edges) {
            harness.runtime.register_boxed(controller).unwrap();
        }
        harness.runtime.start();
        harness.put(Identity::ID, Identity { node_id: "abc".into() });
        harness.settle().await;
        assert_eq!(*name.lock(), stable_hostname("abc"));
        let hosts = harness.get::<EtcFileSpec>("hosts").unwrap();
        let hosts = String::from_utf8_lossy(&hosts.contents);
        assert!(hosts.contains(&format!("10.5.0.2  {}", stable_hostname("abc"))), "{hosts}");
        let status = harness.get::<NetworkStatus>("status").unwrap();
        assert!(status.address_ready && status.connectivity_ready && status.hostname_ready, "{status:?}");
    }
}
