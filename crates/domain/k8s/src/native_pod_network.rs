//! `k8s.NativePodNetworkController`: a bridge for the node's own pods, by a CNI configuration, a route to the pods of each
//! other node, and the node's address as the source of packets from pods to anything else.
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
use netlink::{Masquerade, Route, Router};
use resources::config::MachineConfig;
use resources::enums::{RouteProtocol, RoutingTable};
use resources::k8s::Nodename;
use sys::files::{self, Access};

use crate::Root;
use crate::kube_clients::{Client, JOIN_POLL};
use crate::pod_subnets::{Claims, Refusal};

/// Marks our routes in the kernel, so that we know which to remove.
pub const NATIVE_ROUTES: RouteProtocol = RouteProtocol(0x54);

#[derive(Debug)]
pub struct NativePodNetworkController {
    root: Root,
    router: Arc<dyn Router>,
    client: Client,
    cache: Option<NodeCache>,
    /// Whether missing kernel support for masquerading was reported.
    lack_is_known: bool,
    /// It was said that these do not count.
    refused: Vec<Refusal>,
}

impl NativePodNetworkController {
    #[must_use]
    pub fn new(root: Root, connect: Arc<dyn Connect>, router: Arc<dyn Router>) -> Self {
        Self { root, router, client: Client::new(connect), cache: None, lack_is_known: false, refused: Vec::new() }
    }
}

#[async_trait]
impl Controller for NativePodNetworkController {
    fn name(&self) -> &'static str {
        "k8s.NativePodNetworkController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![Input::weak::<MachineConfig>().id(MachineConfig::ACTIVE_ID), Input::weak::<Nodename>().id(Nodename::ID)]
    }

    fn outputs(&self) -> Vec<Output> {
        Vec::new()
    }

    fn resync(&self) -> Option<Duration> {
        // Restores removed routes and rules, and follows renewals of the kubelet's certificate.
        Some(Duration::from_secs(30))
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let active = ctx.get::<MachineConfig>(MachineConfig::ACTIVE_ID)?;
        let Some(config) = MachineConfig::root_of(active.as_deref())? else { return Ok(()) };
        if config.cluster().cni() != CniKind::Native {
            self.cache = None;
            files::remove(&self.cni_file())?;
            self.keep_routes(&[]).await?;
            return self.keep_masquerades(&[]).await;
        }
        let Some(nodename) = ctx.get::<Nodename>(Nodename::ID)? else { return Ok(()) };
        let Some(connected) = self.client.of_kubelet(&self.root).await? else {
            ctx.requeue_after(JOIN_POLL);
            return Ok(());
        };
        let cache = self.client.watch_nodes(&mut self.cache, &connected, ctx);
        let cluster = config.cluster().pod_cidrs();
        let own = &nodename.nodename;
        let known = cache.look(|nodes| {
            let claims = Claims::of(nodes.values(), &cluster);
            let routes = wanted_routes(nodes, &claims, own);
            (claims, routes)
        });
        let Some((claims, routes)) = known else { return Ok(()) };
        self.report(&claims.refused);
        let own = claims.granted(own);
        self.write_conflist(own)?;
        self.keep_routes(&routes).await?;
        // A node without pod subnets keeps its rules: its pods still run.
        if own.is_empty() { Ok(()) } else { self.keep_masquerades(&wanted_masquerades(own, &cluster)).await }
    }
}

impl NativePodNetworkController {
    fn cni_file(&self) -> std::path::PathBuf {
        self.root.at(paths::CNI_CONFIG_DIR).join(native_cni::FILE_NAME)
    }

    /// Reports ignored claims, once each.
    fn report(&mut self, refused: &[Refusal]) {
        for refusal in refused.iter().filter(|refusal| !self.refused.contains(refusal)) {
            let Refusal { node, subnet, reason } = refusal;
            tracing::warn!(node, %subnet, %reason, "pod subnet of a node is not used");
        }
        self.refused = refused.to_vec();
    }

    /// A node without pod subnets keeps the former ones: its pods still run.
    fn write_conflist(&self, own: &[IpNet]) -> Result<(), ReconcileError> {
        if let Some(list) = native_cni::conflist(own, 0)
            && files::write_atomic(&self.cni_file(), format!("{list:#}\n").as_bytes(), Access::PUBLIC)?
        {
            tracing::info!("pod network of this node is configured");
        }
        Ok(())
    }

    /// Makes our routes these.
    async fn keep_routes(&self, wanted: &[Route]) -> Result<(), ReconcileError> {
        let ours: Vec<Route> =
            self.router.routes().await?.into_iter().filter(|route| route.protocol == NATIVE_ROUTES).collect();
        let leads_as =
            |route: &Route, other: &Route| route.destination == other.destination && route.gateway == other.gateway;
        for route in wanted.iter().filter(|route| !ours.iter().any(|there| leads_as(there, route))) {
            self.router.replace_route(route).await?;
        }
        let to_nowhere = |route: &&Route| !wanted.iter().any(|wanted| wanted.destination == route.destination);
        for route in ours.iter().filter(to_nowhere) {
            self.router.delete_route(route).await?;
        }
        Ok(())
    }

    /// Sets our rules. A kernel without nftables is reported once: pods reach each other without rules.
    async fn keep_masquerades(&mut self, wanted: &[Masquerade]) -> Result<(), ReconcileError> {
        match self.router.keep_masquerades(wanted).await {
            Ok(changed) => {
                if changed {
                    tracing::info!(rules = wanted.len(), "masquerading of pod traffic to outside the cluster is set");
                }
                Ok(())
            }
            // We create the table: a missing object is a missing kernel feature.
            Err(error) if error.is_unsupported() || error.is_not_found() => {
                if !std::mem::replace(&mut self.lack_is_known, true) {
                    let error = stdx::error_chain(&error);
                    tracing::warn!(error, "this kernel does not translate addresses: pods stay inside the cluster");
                }
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Masquerades this node's pod traffic, except to pods of the cluster.
fn wanted_masquerades(own: &[IpNet], cluster: &[IpNet]) -> Vec<Masquerade> {
    let rule = |source: &IpNet| {
        let same_family = |net: &&IpNet| net.addr().is_ipv4() == source.addr().is_ipv4();
        Masquerade { source: *source, except: cluster.iter().filter(same_family).copied().collect() }
    };
    own.iter().map(rule).collect()
}

/// One route for each pod subnet of another node, through its internal address of that family.
fn wanted_routes(nodes: &BTreeMap<String, Node>, claims: &Claims, own: &str) -> Vec<Route> {
    let mut routes = Vec::new();
    for node in nodes.values().filter(|node| node.name != own) {
        for cidr in claims.granted(&node.name) {
            let same_family = |ip: &std::net::IpAddr| ip.is_ipv4() == matches!(cidr, IpNet::V4(_));
            let Some(gateway) = node.ips("InternalIP").find(same_family) else { continue };
            routes.push(Route {
                destination: Some(*cidr),
                gateway: Some(gateway),
                table: RoutingTable::MAIN,
                protocol: NATIVE_ROUTES,
                ..Route::default()
            });
        }
    }
    routes
}
