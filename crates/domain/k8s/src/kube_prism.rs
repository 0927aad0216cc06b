//! `k8s.KubePrism…Controller`s: a load balancer on loopback in front of all API servers that are known.

use std::net::{IpAddr, SocketAddr};

use async_trait::async_trait;
use config::v1alpha1::Config;
use controller::{Controller, Ctx, Input, Output, ReconcileError, TaskHandle};
use kube_edge::balancer::{Balancer, Upstream};
use resources::cluster::Member;
use resources::config::MachineConfig;
use resources::k8s::{KubePrismConfig, KubePrismEndpoint, KubePrismEndpoints, KubePrismStatus};

const HOST: &str = "127.0.0.1";

/// Where API servers are: the cluster's endpoint, this node, the members that run the control plane.
#[derive(Debug, Default)]
pub struct KubePrismEndpointsController;

#[async_trait]
impl Controller for KubePrismEndpointsController {
    fn name(&self) -> &'static str {
        "k8s.KubePrismEndpointsController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![Input::weak::<MachineConfig>().id(MachineConfig::ACTIVE_ID), Input::weak::<Member>()]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<KubePrismEndpoints>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let active = ctx.get::<MachineConfig>(MachineConfig::ACTIVE_ID)?;
        if let Some(config) = MachineConfig::root_of(active.as_deref())? {
            let members = ctx.list::<Member>()?;
            let endpoints = endpoints(config, members.iter().map(|member| &*member.spec));
            ctx.put(KubePrismEndpoints::ID, KubePrismEndpoints { endpoints })?;
        }
        ctx.keep_touched::<KubePrismEndpoints>()
    }
}

fn endpoints<'a>(config: &Config, members: impl Iterator<Item = &'a Member>) -> Vec<KubePrismEndpoint> {
    let mut all: Vec<KubePrismEndpoint> = Vec::new();
    let mut add = |host: String, port: u32| {
        let endpoint = KubePrismEndpoint { host, port };
        if !all.contains(&endpoint) {
            all.push(endpoint);
        }
    };
    if let Some(url) = config.cluster().endpoint()
        && let Some(host) = url.host_str()
    {
        let port = url.port_or_known_default().unwrap_or(443);
        add(host.trim_matches(['[', ']']).to_owned(), port.into());
    }
    if config.is_control_plane() {
        add("localhost".to_owned(), config.cluster().api_server_port().into());
    }
    let mut found: Vec<(IpAddr, u32)> = members
        .filter_map(|member| member.control_plane.as_ref().map(|control_plane| (member, control_plane)))
        .flat_map(|(member, control_plane)| {
            let port = u32::try_from(control_plane.port).unwrap_or_default();
            member.addresses.iter().map(move |address| (*address, port))
        })
        .collect();
    found.sort_unstable();
    for (address, port) in found {
        add(address.to_string(), port);
    }
    all
}

/// Exists where the balancer is switched on.
#[derive(Debug, Default)]
pub struct KubePrismConfigController;

#[async_trait]
impl Controller for KubePrismConfigController {
    fn name(&self) -> &'static str {
        "k8s.KubePrismConfigController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![
            Input::weak::<MachineConfig>().id(MachineConfig::ACTIVE_ID),
            Input::weak::<KubePrismEndpoints>().id(KubePrismEndpoints::ID),
        ]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<KubePrismConfig>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let active = ctx.get::<MachineConfig>(MachineConfig::ACTIVE_ID)?;
        let config = MachineConfig::root_of(active.as_deref())?;
        let endpoints = ctx.get::<KubePrismEndpoints>(KubePrismEndpoints::ID)?;
        if let Some(port) = config.and_then(|config| config.machine().kubeprism_port())
            && let Some(known) = endpoints
        {
            let endpoints = known.endpoints.clone();
            let spec = KubePrismConfig { host: HOST.to_owned(), port: port.into(), endpoints };
            ctx.put(KubePrismConfig::ID, spec)?;
        }
        ctx.keep_touched::<KubePrismConfig>()
    }
}

/// Runs the balancer.
#[derive(Debug, Default)]
pub struct KubePrismController {
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    address: SocketAddr,
    balancer: Balancer,
    watcher: TaskHandle,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}

#[async_trait]
impl Controller for KubePrismController {
    fn name(&self) -> &'static str {
        "k8s.KubePrismController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![Input::weak::<KubePrismConfig>().id(KubePrismConfig::ID)]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<KubePrismStatus>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let Some(config) = ctx.get::<KubePrismConfig>(KubePrismConfig::ID)? else {
            self.running = None;
            return ctx.keep_touched::<KubePrismStatus>();
        };
        let port = u16::try_from(config.port)?;
        let address: SocketAddr = SocketAddr::new(config.host.parse()?, port);
        if self.running.as_ref().is_some_and(|running| running.address != address) {
            self.running = None;
        }
        let running = match &mut self.running {
            Some(running) => running,
            None => self.running.insert(start(ctx, address).await?),
        };
        running.balancer.set_upstreams(config.endpoints.iter().map(|endpoint| Upstream {
            host: endpoint.host.clone(),
            port: u16::try_from(endpoint.port).unwrap_or_default(),
        }));
        let healthy = *running.balancer.healthy().borrow();
        let host = running.balancer.address().to_string();
        ctx.put(KubePrismStatus::ID, KubePrismStatus { host, healthy })?;
        Ok(())
    }
}

async fn start(ctx: &mut Ctx, address: SocketAddr) -> Result<Running, ReconcileError> {
    let balancer = Balancer::bind(address).await?;
    tracing::info!(address = %balancer.address(), "balancing over the API servers");
    let waker = ctx.waker();
    let mut healthy = balancer.healthy();
    let watcher = ctx.spawn("health of the balancer", async move {
        while healthy.changed().await.is_ok() {
            waker.wake();
        }
    });
    Ok(Running { address, balancer, watcher })
}
