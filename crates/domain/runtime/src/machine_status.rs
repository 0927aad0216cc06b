//! The stage that the machine is in, and whether it is ready.

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use resources::config::MachineType;
use resources::enums::MachineStage;
use resources::k8s::{NodeStatus, Nodename, StaticPodStatus};
use resources::lifecycle::{MachineOutcome, SequenceName, SequenceState, SequenceStatus, ServiceSpec};
use resources::network::NetworkStatus;
use resources::runtime::{MachineStatus, MachineStatusStatus, MaintenanceServiceRequest, UnmetCondition};
use resources::time::TimeStatus;
use resources::v1alpha1::Service;
use sequencer::{EventBus, Payload};

/// `runtime.MachineStatusController`.
#[derive(Debug)]
pub struct MachineStatusController {
    events: EventBus,
    announced: Option<(MachineStage, bool)>,
}

impl MachineStatusController {
    /// Changes are announced on `events`.
    #[must_use]
    pub const fn new(events: EventBus) -> Self {
        Self { events, announced: None }
    }
}

#[async_trait]
impl Controller for MachineStatusController {
    fn name(&self) -> &'static str {
        "runtime.MachineStatusController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![
            Input::weak::<SequenceStatus>().id(SequenceStatus::ID),
            Input::weak::<MaintenanceServiceRequest>(),
            Input::weak::<ServiceSpec>(),
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
        let sequence = ctx.get::<SequenceStatus>(SequenceStatus::ID)?;
        let sequence = sequence.map(|status| (*status.spec).clone()).unwrap_or_default();
        let asks_for_config = !ctx.list::<MaintenanceServiceRequest>()?.is_empty();
        let stage = stage(&sequence, asks_for_config);
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

/// The stage of a machine that runs, or ran last, this sequence; `asks_for_config` in maintenance mode.
fn stage(status: &SequenceStatus, asks_for_config: bool) -> MachineStage {
    match (status.sequence, status.state) {
        (SequenceName::Initialize, _) if asks_for_config => MachineStage::Maintenance,
        (SequenceName::Boot, SequenceState::Done) if status.outcome == MachineOutcome::None => MachineStage::Running,
        (SequenceName::None | SequenceName::Initialize | SequenceName::Boot, _) => MachineStage::Booting,
        (SequenceName::Install, _) => MachineStage::Installing,
        (SequenceName::Reboot, _) => MachineStage::Rebooting,
        (SequenceName::Shutdown, _) => MachineStage::ShuttingDown,
        (SequenceName::Reset, _) => MachineStage::Resetting,
        (SequenceName::Upgrade | SequenceName::StageUpgrade | SequenceName::MaintenanceUpgrade, _) => {
            MachineStage::Upgrading
        }
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
    require("services", services(ctx)?);
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

/// Required services are listed by name: a failed service has no resource.
fn services(ctx: &Ctx) -> Result<Option<String>, ReconcileError> {
    let specs = ctx.list::<ServiceSpec>()?;
    let required = specs.iter().filter(|spec| spec.required);
    let mut problems = Vec::new();
    for spec in required {
        if !ctx.get::<Service>(spec.id())?.is_some_and(|service| service.running) {
            problems.push(format!("{} not running", spec.id()));
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

    fn start(machine_type: MachineType, required: &[&str]) -> (Harness, EventBus) {
        let events = EventBus::new(std::sync::Arc::new(stdx::SystemClock));
        let harness = Harness::with(MachineStatusController::new(events.clone()));
        sequence(&harness, SequenceName::Boot, SequenceState::Running);
        for id in required {
            harness.put(id, ServiceSpec { required: true, ..ServiceSpec::default() });
        }
        harness.put("extra", ServiceSpec::default());
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
        (harness, events)
    }

    fn sequence(harness: &Harness, sequence: SequenceName, state: SequenceState) {
        harness.put(SequenceStatus::ID, SequenceStatus { sequence, state, ..SequenceStatus::default() });
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
        let (harness, events) = start(MachineType::Worker, &["apid", "containerd", "kubelet"]);
        run(&harness, &["apid", "containerd"]);
        harness.settle().await;
        assert!(unmet(&harness).is_empty(), "nothing is asked for while it boots");
        assert!(!harness.get::<MachineStatus>(MachineStatus::ID).unwrap().status.ready);
        sequence(&harness, SequenceName::Boot, SequenceState::Done);
        harness.settle().await;
        assert_eq!(unmet(&harness), ["services: kubelet not running"]);
        run(&harness, &["kubelet"]);
        harness.settle().await;
        assert!(harness.get::<MachineStatus>(MachineStatus::ID).unwrap().status.ready);
        assert_eq!(events.kept().len(), 3, "each change is published once");
    }

    #[tokio::test(start_paused = true)]
    async fn a_control_plane_whose_etcd_failed_is_not_ready() {
        let required = ["apid", "containerd", "etcd", "kubelet", "trustd"];
        let (harness, _) = start(MachineType::ControlPlane, &required);
        run(&harness, &["apid", "containerd", "kubelet", "trustd"]);
        sequence(&harness, SequenceName::Boot, SequenceState::Done);
        harness.settle().await;
        assert_eq!(unmet(&harness), ["services: etcd not running", "staticPods: no static pods reported yet"]);
        harness.put("apid", Service { running: true, healthy: false, unknown: false });
        harness.settle().await;
        assert_eq!(unmet(&harness)[0], "services: etcd not running, apid not healthy");
    }

    #[test]
    fn the_stage_follows_from_what_runs_or_ran_last() {
        use SequenceName as Name;
        use SequenceState as State;
        let stage_of = |sequence, state| stage(&SequenceStatus { sequence, state, ..SequenceStatus::default() }, false);
        assert_eq!(stage_of(Name::None, State::None), MachineStage::Booting);
        assert_eq!(stage_of(Name::Initialize, State::Running), MachineStage::Booting);
        assert_eq!(stage_of(Name::Boot, State::Running), MachineStage::Booting);
        assert_eq!(stage_of(Name::Boot, State::Done), MachineStage::Running);
        assert_eq!(stage_of(Name::Boot, State::Failed), MachineStage::Booting);
        assert_eq!(stage_of(Name::Shutdown, State::Running), MachineStage::ShuttingDown);
        assert_eq!(stage_of(Name::Reboot, State::Done), MachineStage::Rebooting);
        assert_eq!(stage_of(Name::Reset, State::Failed), MachineStage::Resetting);
        assert_eq!(stage_of(Name::StageUpgrade, State::Canceling), MachineStage::Upgrading);
        let initialize = SequenceStatus { sequence: Name::Initialize, ..SequenceStatus::default() };
        assert_eq!(stage(&initialize, true), MachineStage::Maintenance);
        let boot = SequenceStatus { sequence: Name::Boot, ..SequenceStatus::default() };
        assert_eq!(stage(&boot, true), MachineStage::Booting);
    }
}
