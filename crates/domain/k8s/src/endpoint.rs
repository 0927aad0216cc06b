//! `k8s.EndpointController` and `k8s.StaticEndpointController`: addresses of API servers, as the cluster says and as the
//! configuration says.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use kube_edge::Connect;
use resources::MachineType;
use resources::config::MachineConfig;
use resources::k8s::Endpoint;
use resources::secrets::KubernetesSecrets;

use crate::Root;
use crate::kube_clients::{Client, JOIN_POLL};

/// The Service that every cluster has for its API servers.
const SERVICE: (&str, &str) = ("default", "kubernetes");
const REFRESH: Duration = Duration::from_secs(30);
const RETRY: Duration = Duration::from_secs(5);
/// Kubelets of newer releases may not read endpoints; that may be granted.
const FORBIDDEN_RETRY: Duration = Duration::from_secs(300);

#[derive(Debug)]
pub struct EndpointController {
    root: Root,
    admin: Client,
    kubelet: Client,
}

impl EndpointController {
    #[must_use]
    pub fn new(root: Root, connect: Arc<dyn Connect>) -> Self {
        Self { root, admin: Client::new(Arc::clone(&connect)), kubelet: Client::new(connect) }
    }
}

#[async_trait]
impl Controller for EndpointController {
    fn name(&self) -> &'static str {
        "k8s.EndpointController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![
            Input::weak::<MachineType>().id(MachineType::ID),
            Input::weak::<KubernetesSecrets>().id(KubernetesSecrets::ID),
        ]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::shared::<Endpoint>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let Some(machine_type) = ctx.get::<MachineType>(MachineType::ID)? else { return Ok(()) };
        let connected = if machine_type.is_control_plane() {
            let Some(secrets) = ctx.get::<KubernetesSecrets>(KubernetesSecrets::ID)? else { return Ok(()) };
            self.admin.with_kubeconfig(&secrets.localhost_admin_kubeconfig).await?
        } else {
            let Some(connected) = self.kubelet.of_kubelet(&self.root).await? else {
                ctx.requeue_after(JOIN_POLL);
                return Ok(());
            };
            connected
        };
        match connected.api.endpoints(SERVICE.0, SERVICE.1).await {
            Ok(addresses) if addresses.is_empty() => ctx.requeue_after(RETRY),
            Ok(addresses) => {
                ctx.put(Endpoint::KUBE_APISERVER_ID, Endpoint { addresses })?;
                ctx.requeue_after(REFRESH);
            }
            Err(error) if error.code() == Some(403) => ctx.requeue_after(FORBIDDEN_RETRY),
            Err(error) => {
                // Known addresses stay: without them there would be no way back.
                tracing::debug!(error = %stdx::error_chain(&error), "addresses of API servers are not known");
                ctx.requeue_after(RETRY);
            }
        }
        Ok(())
    }
}

/// Resolves the host of the cluster's endpoint.
#[derive(Debug, Default)]
pub struct StaticEndpointController;

#[async_trait]
impl Controller for StaticEndpointController {
    fn name(&self) -> &'static str {
        "k8s.StaticEndpointController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![Input::weak::<MachineConfig>().id(MachineConfig::ACTIVE_ID)]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::shared::<Endpoint>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let active = ctx.get::<MachineConfig>(MachineConfig::ACTIVE_ID)?;
        let config = MachineConfig::root_of(active.as_deref())?;
        let Some(endpoint) = config.and_then(|config| config.cluster().endpoint()) else {
            return ctx.keep_touched::<Endpoint>();
        };
        let host = endpoint.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let addresses = match host.parse::<IpAddr>() {
            Ok(address) => vec![address],
            Err(_) => {
                // The addresses of a name may change.
                let addresses = resolve(&host).await;
                ctx.requeue_after(if addresses.is_empty() { RETRY } else { REFRESH });
                addresses
            }
        };
        if addresses.is_empty() {
            return Ok(());
        }
        ctx.put(Endpoint::CONTROLPLANE_ID, Endpoint { addresses })?;
        Ok(())
    }
}

async fn resolve(host: &str) -> Vec<IpAddr> {
    match tokio::time::timeout(RETRY, tokio::net::lookup_host((host, 0))).await {
        Ok(Ok(found)) => found.map(|address| address.ip()).collect::<BTreeSet<_>>().into_iter().collect(),
        Ok(Err(error)) => {
            tracing::debug!(%error, host, "the cluster's endpoint does not resolve");
            Vec::new()
        }
        Err(_) => Vec::new(),
    }
}
