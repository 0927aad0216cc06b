//! The stage that the machine is in, and whether it is ready.

use std::sync::Arc;

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use resources::config::MachineType;
use resources::enums::MachineStage;
use resources::k8s::{NodeStatus, Nodename, StaticPodStatus};
use resources::network::NetworkStatus;
use resources::runtime::{MachineStatus, MachineStatusStatus, UnmetCondition};
use resources::time::TimeStatus;
use resources::v1alpha1::Service;
use sequencer::{EventBus, Payload};
use tokio::sync::watch;

/// `runtime.MachineStatusController`.
#[derive(Debug)]
pub struct MachineStatusController {
    stage: watch::Receiver<MachineStage>,
    events: EventBus,
    announced: Option<(MachineStage, bool)>,
    watching: bool,
}

impl MachineStatusController {
    /// `stage` is set by the boot plan.
    pub fn new(stage: &Arc<watch::Sender<MachineStage>>, events: EventBus) -> Self {
        Self { stage: stage.subscribe(), events, announced: None, watching: false }
    }
}

#[async_trait]
impl Controller for MachineStatusController {
    fn name(&self) -> &'static str {
        "runtime.MachineStatusController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![
            Input::weak::<MachineType>(),
            Input::weak::<TimeStatus>(),
            Input::weak::<NetworkStatus>(),
            Input::weak::<Service>(),
            Input::weak::<StaticPodStatus>(),
            Input::weak::<Nodename>(),
            Input::weak::<NodeStatus>(),
        ]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<MachineStatus>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        if !self.watching {
            let (waker, mut stage) = (ctx.waker(), self.stage.clone());
            ctx.spawn("stage changes", async move {
                while stage.changed().await.is_ok() {
                    waker.wake();
                }
            });
            self.watching = true;
        }
        let stage = *self.stage.borrow_and_update();
        let unmet = match stage {
            MachineStage::Running => unmet(ctx)?,
            _ => Vec::new(),
        };
        let ready = unmet.is_empty() && matches!(stage, MachineStage::Running | MachineStage::Maintenance);
        let pairs: Vec<(String, String)> = unmet.iter().map(|c| (c.name.clone(), c.reason.clone())).collect();
        let status = MachineStatusStatus { ready, unmet_conditions: unmet };
        let before = ctx.put(MachineStatus::ID, MachineStatus { stage, status })?;
        drop(before);
        if self.announced != Some((stage, ready)) {
            self.announced = Some((stage, ready));
            tracing::info!(stage = stage.as_str(), ready, unmet = ?pairs, "machine status");
            self.events.publish(Payload::MachineStatus { stage: stage.as_str().to_owned(), ready, unmet: pairs });
        }
        Ok(())
    }
}

fn unmet(ctx: &Ctx) -> Result<Vec<UnmetCondition>, ReconcileError> {
    let mut unmet = Vec::new();
    let mut require = |name: &str, reason: Option<String>| {
        unmet.extend(reason.map(|reason| UnmetCondition { name: name.to_owned(), reason }));
    };
    let synced = ctx.get::<TimeStatus>(TimeStatus::ID)?.is_some_and(|time| time.synced);
    require("time", (!synced).then(|| "time is not synced".to_owned()));
    require("network", network(ctx)?);
    require("services", services(ctx)?);
    let is_control_plane = ctx.get::<MachineType>(MachineType::ID)?.is_some_and(|kind| kind.is_control_plane());
    if is_control_plane {
        require("staticPods", static_pods(ctx)?);
    }
    require("nodeReady", node_ready(ctx)?);
    Ok(unmet)
}

fn network(ctx: &Ctx) -> Result<Option<String>, ReconcileError> {
    let Some(status) = ctx.get::<NetworkStatus>("status")? else {
        return Ok(Some("network is not configured".to_owned()));
    };
    let waiting: Vec<&str> = [
        (status.address_ready, "address"),
        (status.connectivity_ready, "connectivity"),
        (status.hostname_ready, "hostname"),
        (status.etc_files_ready, "etc files"),
    ]
    .into_iter()
    .filter_map(|(ready, what)| (!ready).then_some(what))
    .collect();
    Ok((!waiting.is_empty()).then(|| format!("waiting on: {}", waiting.join(", "))))
}

fn services(ctx: &Ctx) -> Result<Option<String>, ReconcileError> {
    let problems: Vec<String> = ctx
        .list::<Service>()?
        .iter()
        .filter(|service| !service.unknown && !service.healthy)
        .map(|service| format!("{} not healthy", service.id()))
        .collect();
    let running = ctx.get::<Service>("kubelet")?.is_some();
    if !running {
        return Ok(Some("kubelet not running".to_owned()));
    }
    Ok((!problems.is_empty()).then(|| problems.join(", ")))
}

fn static_pods(ctx: &Ctx) -> Result<Option<String>, ReconcileError> {
    let statuses = ctx.list::<StaticPodStatus>()?;
    if statuses.is_empty() {
        return Ok(Some("no static pods reported yet".to_owned()));
    }
    let unready: Vec<String> =
        statuses.iter().filter(|pod| !is_ready(pod)).map(|pod| format!("{} not ready", pod.id())).collect();
    Ok((!unready.is_empty()).then(|| unready.join(", ")))
}

fn is_ready(pod: &StaticPodStatus) -> bool {
    use resources::Spec as _;
    let status = pod.to_yaml();
    let conditions = status.get("conditions").and_then(|c| c.as_array()).cloned().unwrap_or_default();
    conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

fn node_ready(ctx: &Ctx) -> Result<Option<String>, ReconcileError> {
    let Some(name) = ctx.get::<Nodename>(Nodename::ID)? else { return Ok(Some("nodename is not known".to_owned())) };
    if name.skip_node_registration {
        return Ok(None);
    }
    let node = ctx.get::<NodeStatus>(&name.nodename)?;
    Ok(match node {
        None => Some(format!("node {:?} is not registered", name.nodename)),
        Some(node) if !node.node_ready => Some(format!("node {:?} is not ready", name.nodename)),
        Some(_) => None,
    })
}
