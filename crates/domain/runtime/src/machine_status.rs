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

/// Services of every node, and those of control planes besides.
const SERVICES: &[&str] = &["apid", "containerd", "kubelet"];
const CONTROL_PLANE_SERVICES: &[&str] = &["etcd", "trustd"];

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
        ctx.put(MachineStatus::ID, MachineStatus { stage, status })?;
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
    let is_control_plane = ctx.get::<MachineType>(MachineType::ID)?.is_some_and(|kind| kind.is_control_plane());
    require("services", services(ctx, is_control_plane)?);
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

/// What has to run is named: a service that failed has no resource.
fn services(ctx: &Ctx, is_control_plane: bool) -> Result<Option<String>, ReconcileError> {
    let of_control_plane = CONTROL_PLANE_SERVICES.iter().filter(|_| is_control_plane);
    let mut problems = Vec::new();
    for name in SERVICES.iter().chain(of_control_plane) {
        if !ctx.get::<Service>(name)?.is_some_and(|service| service.running) {
            problems.push(format!("{name} not running"));
        }
    }
    let running = ctx.list::<Service>()?;
    let unhealthy = running.iter().filter(|service| !service.unknown && !service.healthy);
    problems.extend(unhealthy.map(|service| format!("{} not healthy", service.id())));
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

#[cfg(test)]
mod tests {
    use controller::testing::Harness;

    use super::*;

    fn start(machine_type: MachineType) -> (Harness, Arc<watch::Sender<MachineStage>>, EventBus) {
        let stage = Arc::new(watch::Sender::new(MachineStage::Booting));
        let events = EventBus::new(Arc::new(stdx::SystemClock));
        let harness = Harness::with(MachineStatusController::new(&stage, events.clone()));
        harness.put(MachineType::ID, machine_type);
        harness.put(TimeStatus::ID, TimeStatus { synced: true, ..Default::default() });
        let network = NetworkStatus {
            address_ready: true,
            connectivity_ready: true,
            hostname_ready: true,
            etc_files_ready: true,
        };
        harness.put(NetworkStatus::ID, network);
        harness.put(Nodename::ID, Nodename { nodename: "n".into(), ..Default::default() });
        harness.put("n", NodeStatus { nodename: "n".into(), node_ready: true, ..Default::default() });
        (harness, stage, events)
    }

    fn run(harness: &Harness, services: &[&str]) {
        for name in services {
            harness.put(name, Service { running: true, healthy: true, unknown: false });
        }
    }

    fn unmet(harness: &Harness) -> Vec<String> {
        let status = harness.get::<MachineStatus>(MachineStatus::ID).unwrap();
        status.status.unmet_conditions.iter().map(|unmet| format!("{}: {}", unmet.name, unmet.reason)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_is_ready_once_its_services_run_and_its_node_is_ready() {
        let (harness, stage, events) = start(MachineType::Worker);
        run(&harness, &["apid", "containerd"]);
        harness.settle().await;
        assert!(unmet(&harness).is_empty(), "nothing is asked for while it boots");
        assert!(!harness.get::<MachineStatus>(MachineStatus::ID).unwrap().status.ready);
        stage.send_replace(MachineStage::Running);
        harness.settle().await;
        assert_eq!(unmet(&harness), ["services: kubelet not running"]);
        run(&harness, &["kubelet"]);
        harness.settle().await;
        assert!(harness.get::<MachineStatus>(MachineStatus::ID).unwrap().status.ready);
        assert_eq!(events.kept().len(), 3, "each change is told once");
    }

    #[tokio::test(start_paused = true)]
    async fn a_control_plane_whose_etcd_failed_is_not_ready() {
        let (harness, stage, _) = start(MachineType::ControlPlane);
        run(&harness, &["apid", "containerd", "kubelet", "trustd"]);
        stage.send_replace(MachineStage::Running);
        harness.settle().await;
        assert_eq!(unmet(&harness), ["services: etcd not running", "staticPods: no static pods reported yet"]);
        harness.put("apid", Service { running: true, healthy: false, unknown: false });
        harness.settle().await;
        assert_eq!(unmet(&harness)[0], "services: etcd not running, apid not healthy");
    }
}
