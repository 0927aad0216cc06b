//! The service registry: publishes this node's affiliate and receives the others'.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError, TaskHandle};
use discovery_client::{Client, Dial, KnownAffiliates, Options, TcpDial, retire};
use resources::cluster::{Affiliate, DiscoveryConfig, Identity, RAW_NAMESPACE};
use resources::runtime::MachineResetSignal;
use tokio::sync::watch;

/// `DiscoveryConfig`, `Identity`, own `Affiliate` → the service; the service → `Affiliate` `service/ID` in `cluster-raw`.
///
/// A reset signal removes this node from the service immediately instead of after its time to live.
#[derive(Debug)]
pub struct DiscoveryServiceController {
    ca_bundle: PathBuf,
    dial: Arc<dyn Dial>,
    running: Option<Running>,
}

/// A client with its inputs and outputs.
#[derive(Debug)]
struct Running {
    options: Options,
    own: watch::Sender<Option<Affiliate>>,
    known: KnownAffiliates,
    task: TaskHandle,
}

impl DiscoveryServiceController {
    /// Trusts services whose certificates come from `ca_bundle`.
    pub fn new(ca_bundle: PathBuf) -> Self {
        Self::with_dial(ca_bundle, Arc::new(TcpDial))
    }

    /// Reaches services by `dial`.
    pub fn with_dial(ca_bundle: PathBuf, dial: Arc<dyn Dial>) -> Self {
        Self { ca_bundle, dial, running: None }
    }

    fn wanted(&self, ctx: &Ctx) -> Result<Option<Options>, ReconcileError> {
        let config = ctx.get::<DiscoveryConfig>(DiscoveryConfig::ID)?;
        let identity = ctx.get::<Identity>(Identity::ID)?;
        let (Some(config), Some(identity)) = (config, identity) else {
            return Ok(None);
        };
        if !config.discovery_enabled || !config.registry_service_enabled {
            return Ok(None);
        }
        Ok(Some(Options {
            address: config.service_endpoint.clone(),
            insecure: config.service_endpoint_insecure,
            cluster_id: config.service_cluster_id.clone(),
            key: config.service_encryption_key.clone(),
            node_id: identity.node_id.clone(),
            ca_bundle: self.ca_bundle.clone(),
        }))
    }

    fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.task.abort();
        }
    }
}

fn start(ctx: &mut Ctx, dial: Arc<dyn Dial>, options: Options) -> Result<Running, ReconcileError> {
    let (own, told) = watch::channel(None);
    let known = KnownAffiliates::default();
    let waker = ctx.waker();
    let client = Client::new(options.clone(), dial, told, KnownAffiliates::clone(&known), move || waker.wake())?;
    let task = ctx.spawn("discovery-client", client.run());
    Ok(Running { options, own, known, task })
}

#[async_trait]
impl Controller for DiscoveryServiceController {
    fn name(&self) -> &'static str {
        "cluster.DiscoveryServiceController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![
            Input::weak::<DiscoveryConfig>().id(DiscoveryConfig::ID),
            Input::weak::<Identity>().id(Identity::ID),
            Input::weak::<Affiliate>(),
            Input::weak::<MachineResetSignal>().id(MachineResetSignal::ID),
        ]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::shared::<Affiliate>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let wanted = self.wanted(ctx)?;
        if ctx.get::<MachineResetSignal>(MachineResetSignal::ID)?.is_some() {
            self.stop();
            ctx.keep_touched::<Affiliate>()?;
            if let Some(options) = wanted
                && let Err(error) = retire(&*self.dial, &options).await
            {
                tracing::warn!(error = %stdx::ErrorChain(&error), "this node stays known until its time to live ends");
            }
            return Ok(());
        }
        // A client that panicked woke this controller.
        let alive = self.running.as_ref().filter(|running| !running.task.is_finished());
        if alive.map(|running| &running.options) != wanted.as_ref() {
            self.stop();
            if let Some(options) = wanted {
                self.running = Some(start(ctx, Arc::clone(&self.dial), options)?);
            }
        }
        if let Some(running) = &self.running {
            let own = ctx.get::<Affiliate>(&running.options.node_id)?.map(|affiliate| Affiliate::clone(&affiliate));
            running.own.send_if_modified(|known| {
                let changed = *known != own;
                *known = own;
                changed
            });
            let known = running.known.lock().clone();
            for (id, affiliate) in known {
                ctx.put_in(RAW_NAMESPACE, &format!("service/{id}"), affiliate)?;
            }
        }
        ctx.keep_touched::<Affiliate>()
    }
}

#[cfg(test)]
mod tests;
