//! `k8s.NativePodNetworkController`: a bridge for the node's own pods, by a CNI configuration, and a route to the pods of
//! each other node.
//!
//! Nodes have to reach each other directly at their internal addresses: there is no tunnel here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use config::v1alpha1::CniKind;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use ipnet::IpNet;
use kube_edge::{Connect, Node, NodeCache};
use kubernetes::{native_cni, paths};
use netlink::{Route, Routes};
use resources::enums::{RouteProtocol, RoutingTable};
use resources::k8s::Nodename;
use sys::files::{self, Access};

use crate::Root;
use crate::kube_clients::{Client, JOIN_POLL};
use crate::machine_config::{self, ConfigCache};

/// Marks our routes in the kernel, so that we know which to remove.
pub const NATIVE_ROUTES: RouteProtocol = RouteProtocol(0x54);

#[derive(Debug)]
pub struct NativePodNetworkController {
    root: Root,
    routes: Arc<dyn Routes>,
    client: Client,
    config: ConfigCache,
    cache: Option<NodeCache>,
}

impl NativePodNetworkController {
    #[must_use]
    pub fn new(root: Root, connect: Arc<dyn Connect>, routes: Arc<dyn Routes>) -> Self {
        Self { root, routes, client: Client::new(connect), config: ConfigCache::default(), cache: None }
    }
}

#[async_trait]
impl Controller for NativePodNetworkController {
    fn name(&self) -> &'static str {
        "k8s.NativePodNetworkController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![machine_config::input(), Input::weak::<Nodename>().id(Nodename::ID)]
    }

    fn outputs(&self) -> Vec<Output> {
        Vec::new()
    }

    fn resync(&self) -> Option<Duration> {
        // Puts back routes that somebody removed, and follows the renewal of the kubelet's certificate.
        Some(Duration::from_secs(30))
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let documents = self.config.read(ctx)?;
        let Some(config) = documents.as_ref().and_then(|documents| documents.v1alpha1()) else { return Ok(()) };
        if config.cluster().cni() != CniKind::Native {
            self.cache = None;
            files::remove(&self.cni_file())?;
            return self.keep_routes(&[]).await;
        }
        let Some(nodename) = ctx.get::<Nodename>(Nodename::ID)? else { return Ok(()) };
        let Some(connected) = self.client.of_kubelet(&self.root).await? else {
            ctx.requeue_after(JOIN_POLL);
            return Ok(());
        };
        if connected.is_new || self.cache.is_none() {
            let waker = ctx.waker();
            self.cache = Some(NodeCache::start(connected.api, None, move || waker.wake()));
        }
        let Some(cache) = &self.cache else { return Ok(()) };
        if cache.error().is_some_and(|error| error.is_unauthorized()) {
            self.client.forget();
        }
        let Some(nodes) = cache.known() else { return Ok(()) };
        self.write_conflist(nodes.get(&nodename.nodename))?;
        self.keep_routes(&wanted_routes(&nodes, &nodename.nodename)).await
    }
}

impl NativePodNetworkController {
    fn cni_file(&self) -> std::path::PathBuf {
        self.root.at(paths::CNI_CONFIG_DIR).join(native_cni::FILE_NAME)
    }

    /// A node without pod subnets keeps what it had: its pods still run.
    fn write_conflist(&self, own: Option<&Node>) -> Result<(), ReconcileError> {
        let list = own.and_then(|node| native_cni::conflist(&node.pod_cidrs, 0));
        if let Some(list) = list
            && files::write_atomic(&self.cni_file(), format!("{list:#}\n").as_bytes(), Access::PUBLIC)?
        {
            tracing::info!("pod network of this node is configured");
        }
        Ok(())
    }

    /// Makes our routes these.
    async fn keep_routes(&self, wanted: &[Route]) -> Result<(), ReconcileError> {
        let ours: Vec<Route> =
            self.routes.routes().await?.into_iter().filter(|route| route.protocol == NATIVE_ROUTES).collect();
        let leads_as =
            |route: &Route, other: &Route| route.destination == other.destination && route.gateway == other.gateway;
        for route in wanted.iter().filter(|route| !ours.iter().any(|there| leads_as(there, route))) {
            self.routes.replace_route(route).await?;
        }
        let to_nowhere = |route: &&Route| !wanted.iter().any(|wanted| wanted.destination == route.destination);
        for route in ours.iter().filter(to_nowhere) {
            self.routes.delete_route(route).await?;
        }
        Ok(())
    }
}

/// One route for each pod subnet of another node, through its internal address of that family.
fn wanted_routes(nodes: &BTreeMap<String, Node>, own: &str) -> Vec<Route> {
    let mut routes = Vec::new();
    for node in nodes.values().filter(|node| node.name != own) {
        for cidr in &node.pod_cidrs {
            let same_family = |ip: &std::net::IpAddr| ip.is_ipv4() == matches!(cidr, IpNet::V4(_));
            let Some(gateway) = node.ips("InternalIP").find(same_family) else { continue };
            routes.push(Route {
                destination: Some(cidr.trunc()),
                gateway: Some(gateway),
                table: RoutingTable::MAIN,
                protocol: NATIVE_ROUTES,
                ..Route::default()
            });
        }
    }
    routes
}
