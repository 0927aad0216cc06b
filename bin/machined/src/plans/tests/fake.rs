//! A node for tests: it keeps in mind what was done, refuses steps whose conditions are not met, and fails or loses power
//! where a test says so.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use sequencer::{
    ActorId, EventBus, Lifecycle, Outcome, Parameters, Request, ResetParameters, Sequence, TaskError,
    UpgradeParameters, WipeMode,
};
use tokio::sync::watch;

use super::super::{Actions, Data, Facts, Job, MachineKind, NodePlanner, Step};

/// Longer than everything that a plan waits for.
const LONG: Duration = Duration::from_secs(4 * 60 * 60);

/// What outlives the power.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Disk {
    /// On STATE.
    pub(super) has_config: bool,
    pub(super) has_system: bool,
    /// EPHEMERAL has what the node keeps there.
    pub(super) has_data: bool,
    /// A disk that is not the system disk has content.
    pub(super) has_user_data: bool,
    /// That content is on logical volumes.
    pub(super) has_volumes: bool,
    /// Not on the disk either: its cluster counts on this node.
    pub(super) is_member: bool,
    /// A version beside the one that runs, and whether it is started the next time.
    pub(super) has_other: bool,
    pub(super) is_on_trial: bool,
    /// META has an upgrade for the next start.
    pub(super) staged: Option<Data>,
    /// Not on the disk: a server that gives the machine its configuration at each boot.
    pub(super) is_served_config: bool,
}

impl Disk {
    pub(super) const fn configured() -> Self {
        Self {
            has_config: true,
            has_system: true,
            has_data: true,
            has_user_data: true,
            has_volumes: false,
            is_member: true,
            has_other: false,
            is_on_trial: false,
            staged: None,
            is_served_config: false,
        }
    }

    /// A blank disk of a machine that gets its configuration from a server.
    pub(super) const fn blank() -> Self {
        let empty = Self::configured();
        Self {
            has_config: false,
            has_system: false,
            has_data: false,
            is_member: false,
            is_served_config: true,
            ..empty
        }
    }

    /// Wipes partitions of the system disk, or all of it. The machine gets its configuration from a server then.
    pub(super) fn wipe<S: AsRef<str>>(&mut self, labels: &[S]) {
        let is_wiped = |label: &str| labels.is_empty() || labels.iter().any(|wiped| wiped.as_ref() == label);
        self.has_config &= !is_wiped("STATE");
        self.has_data &= !is_wiped("EPHEMERAL");
        self.has_system &= !labels.is_empty();
        self.has_other &= !labels.is_empty();
        self.is_on_trial &= !labels.is_empty();
        if is_wiped("META") {
            self.staged = None;
        }
        self.is_served_config = true;
    }
}

/// A machine, and what is asked of it.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) kind: MachineKind,
    pub(super) control_plane: bool,
    /// Labels of the kernel's argument for a wipe; without any it is the whole disk.
    pub(super) wipe: Option<&'static [&'static str]>,
    /// Other disks have logical volumes.
    pub(super) has_volumes: bool,
    /// An upgrade was staged before.
    pub(super) staged: Option<Data>,
    /// It has the system and nothing else, and waits for its first configuration.
    pub(super) is_new: bool,
    /// Asked for once it runs.
    pub(super) end: Option<Request>,
}

impl Case {
    pub(super) const fn new(kind: MachineKind) -> Self {
        Self { kind, control_plane: true, wipe: None, has_volumes: false, staged: None, is_new: false, end: None }
    }

    pub(super) fn ending(mut self, end: Request) -> Self {
        self.end = Some(end);
        self
    }

    pub(super) const fn worker(mut self) -> Self {
        self.control_plane = false;
        self
    }

    pub(super) const fn with_volumes(mut self) -> Self {
        self.has_volumes = true;
        self
    }

    pub(super) const fn staged(mut self, data: Data) -> Self {
        self.staged = Some(data);
        self
    }

    pub(super) const fn new_machine() -> Self {
        let mut case = Self::new(MachineKind::Machine);
        (case.is_new, case.control_plane) = (true, false);
        case
    }

    pub(super) const fn wiping(mut self, labels: &'static [&'static str]) -> Self {
        self.wipe = Some(labels);
        self
    }

    /// What the machine starts with.
    pub(super) fn before(&self) -> Disk {
        let configured = Disk::configured();
        let disk = Disk { is_member: self.control_plane, has_volumes: self.has_volumes, ..configured };
        let is_configured = !self.is_new;
        // One whose data is wiped has left etcd when it was staged.
        let is_member = disk.is_member && self.staged != Some(Data::Wiped);
        Disk { has_config: is_configured, has_data: is_configured, staged: self.staged, is_member, ..disk }
    }

    /// What is left when it went well.
    pub(super) fn after(&self) -> Disk {
        let mut disk = self.before();
        if let Some(labels) = self.wipe {
            disk.wipe(labels);
            // It is installed and configured again, and runs or will.
            (disk.has_config, disk.has_system) = (true, true);
            disk.has_data = !labels.is_empty();
        }
        if let Some(data) = self.staged {
            (disk.has_other, disk.is_on_trial, disk.staged) = (true, true, None);
            disk.has_data = data == Data::Preserved;
        }
        if let Some(staged) = self.upgrade_by(Sequence::StageUpgrade) {
            disk.staged = Some(Data::of(staged.preserve));
            disk.is_member &= staged.preserve;
        }
        let upgrade = self.upgrade_by(Sequence::Upgrade).or_else(|| self.upgrade_by(Sequence::MaintenanceUpgrade));
        if let Some(upgrade) = upgrade {
            (disk.has_other, disk.is_on_trial) = (true, true);
            (disk.has_data, disk.is_member) = (disk.has_data && upgrade.preserve, disk.is_member && upgrade.preserve);
        }
        if let Some(reset) = self.reset() {
            disk.is_member &= !reset.graceful;
            if self.kind == MachineKind::Machine {
                if reset.mode != WipeMode::UserDisks {
                    disk.wipe(&reset.labels);
                }
                disk.has_user_data &= reset.user_disks.is_empty();
            }
        }
        disk
    }

    fn upgrade_by(&self, sequence: Sequence) -> Option<UpgradeParameters> {
        let end = self.end.as_ref().filter(|end| end.sequence == sequence)?;
        match &end.options.parameters {
            Parameters::Upgrade(upgrade) => Some(upgrade.clone()),
            _ => None,
        }
    }

    fn reset(&self) -> Option<ResetParameters> {
        self.end.as_ref().filter(|end| end.sequence == Sequence::Reset).map(parameters)
    }
}

fn parameters(request: &Request) -> ResetParameters {
    match &request.options.parameters {
        Parameters::Reset(reset) => reset.clone(),
        _ => ResetParameters::default(),
    }
}

/// What happens to the machine.
#[derive(Debug, Clone, Copy)]
pub(super) enum Scripted {
    Nothing,
    /// This step always fails, and does nothing.
    Fails(Sequence, Step),
    /// The power goes right after this step.
    CutAfter(Sequence, Step),
}

#[derive(Debug, Default)]
struct State {
    disk: Disk,
    done: Vec<(Sequence, Step)>,
    refusals: Vec<String>,
    mounted: Vec<Step>,
    is_configured: bool,
    is_serving: bool,
    /// Pods run, and write to EPHEMERAL, until they are stopped or the machine ends.
    has_pods: bool,
    are_volumes_active: bool,
    /// What this start took out of META.
    staged: Option<Data>,
    /// It waits for a configuration that an operator gives.
    waits_for_config: bool,
    is_off: bool,
}

#[derive(Debug)]
pub(super) struct FakeNode {
    kind: MachineKind,
    control_plane: bool,
    wipe: Option<&'static [&'static str]>,
    script: Scripted,
    state: Mutex<State>,
}

impl FakeNode {
    pub(super) fn journal(&self) -> Vec<(Sequence, Step)> {
        self.state.lock().done.clone()
    }

    pub(super) fn refusals(&self) -> Vec<String> {
        self.state.lock().refusals.clone()
    }

    pub(super) fn disk(&self) -> Disk {
        self.state.lock().disk.clone()
    }

    pub(super) fn is_serving(&self) -> bool {
        self.state.lock().is_serving
    }

    /// What has to be done before a step.
    fn conditions(&self, sequence: Sequence, step: Step) -> Vec<Step> {
        let is_machine = self.kind == MachineKind::Machine;
        if is_machine && sequence == Sequence::Reset {
            return if step == Step::VerifyDisksToWipe { Vec::new() } else { vec![Step::VerifyDisksToWipe] };
        }
        match step {
            Step::WipeDisks => vec![Step::StartMachined, Step::StartUdevd],
            Step::CreateSystemCgroups => vec![Step::MountCgroups],
            Step::WriteImaPolicy => vec![Step::MountPseudoFilesystems],
            Step::CreateOsReleaseFile | Step::CreateEtcFiles => vec![Step::SetupSystemDirectory],
            Step::StartMachined if is_machine => {
                vec![Step::EnforceKsppRequirements, Step::MountPseudoFilesystems, Step::CreateSystemCgroups]
            }
            Step::StartMachined => vec![Step::CreateEtcFiles, Step::SetRlimit, Step::MountPseudoFilesystems],
            Step::WaitForDevices => vec![Step::StartUdevd],
            Step::MountState | Step::MountEphemeral if is_machine => vec![Step::StartMachined, Step::StartUdevd],
            Step::MountState | Step::MountEphemeral => vec![Step::StartMachined],
            Step::Install => vec![Step::LoadConfig],
            Step::SaveConfig => vec![Step::LoadConfig, Step::MountState],
            Step::SetupVarDirectory | Step::StartContainerd => vec![Step::MountEphemeral],
            // A machine goes on without a STATE that is damaged, and waits.
            Step::LoadConfig if is_machine => vec![Step::StartMachined],
            Step::LoadConfig => vec![Step::StartMachined, Step::MountState],
            Step::MountUserDisks | Step::WriteUserFiles => vec![Step::LoadConfig, Step::MountEphemeral],
            Step::StartAllServices => vec![Step::LoadConfig, Step::MountEphemeral, Step::MountState],
            _ => Vec::new(),
        }
    }
}

impl State {
    fn refuse(&mut self, reason: String) -> Result<(), TaskError> {
        self.refusals.push(reason.clone());
        Err(reason.into())
    }

    fn act(&mut self, node: &FakeNode, step: Step, request: &Request) -> Result<(), TaskError> {
        let reset = parameters(request);
        match step {
            Step::CordonAndDrain | Step::StopAllPods | Step::RemoveAllPods | Step::LeaveEtcd if !self.is_serving => {
                return self.refuse(format!("{step:?} after the end of all services"));
            }
            Step::MountState | Step::MountEphemeral | Step::MountUserDisks => self.mounted.push(step),
            Step::UnmountUserDisks => self.mounted.retain(|mounted| *mounted != Step::MountUserDisks),
            Step::VerifyDisksToWipe if !self.is_serving || !self.has_pods || self.mounted.len() < 3 => {
                return self.refuse("disks are looked at when the machine has begun to end".into());
            }
            Step::WipeDisks if !self.mounted.is_empty() => return self.refuse("the system disk is in use".into()),
            Step::WipeDisks => self.disk.wipe(node.wipe.unwrap_or_default()),
            Step::ActivateLogicalVolumes => self.are_volumes_active = self.disk.has_volumes,
            Step::ReleaseDeviceGroups if self.mounted.contains(&Step::MountUserDisks) => {
                return self.refuse("logical volumes are in use".into());
            }
            Step::ReleaseDeviceGroups => self.are_volumes_active = false,
            Step::LeaveEtcd => self.disk.is_member = false,
            Step::UnmountState => self.mounted.retain(|mounted| *mounted != Step::MountState),
            // An API server on this machine is a pod of it.
            Step::CordonAndDrain if !self.has_pods => return self.refuse("a drain after the end of all pods".into()),
            Step::StopAllPods | Step::RemoveAllPods => self.has_pods = false,
            Step::UnmountEphemeral if self.is_serving || self.has_pods => {
                return self.refuse("EPHEMERAL is busy".into());
            }
            Step::UnmountEphemeral => self.mounted.retain(|mounted| *mounted != Step::MountEphemeral),
            Step::LoadConfig if !self.disk.has_config && !self.disk.is_served_config => {
                return self.refuse("no configuration".into());
            }
            Step::LoadConfig => self.is_configured = true,
            Step::Install => self.disk.has_system = true,
            Step::SaveConfig if !self.disk.has_system => return self.refuse("no disk has STATE".into()),
            Step::SaveConfig => self.disk.has_config = true,
            Step::ResetSystemDisk | Step::ResetSystemPartitions if self.is_serving || !self.mounted.is_empty() => {
                return self.refuse("the system disk is in use".into());
            }
            Step::ResetSystemDisk if !reset.labels.is_empty() => return self.refuse("all is wiped, not labels".into()),
            Step::ResetSystemPartitions if reset.labels.is_empty() => return self.refuse("there are no labels".into()),
            Step::ResetSystemDisk | Step::ResetSystemPartitions => self.disk.wipe(&reset.labels),
            Step::ResetUserDisks if self.are_volumes_active || self.mounted.contains(&Step::MountUserDisks) => {
                return Err("a user disk is in use".into());
            }
            Step::TakeStagedUpgrade => self.staged = self.disk.staged.take(),
            Step::StageUpgrade => match &request.options.parameters {
                Parameters::Upgrade(upgrade) if upgrade.preserve || !self.disk.is_member => {
                    self.disk.staged = Some(Data::of(upgrade.preserve));
                }
                _ => return self.refuse("data is to be wiped that etcd counts on".into()),
            },
            Step::NoteWhatHolds if !self.is_serving => return self.refuse("nothing holds any more".into()),
            Step::Upgrade | Step::WipeEphemeral if self.is_serving || !self.mounted.is_empty() => {
                return self.refuse("the system disk is in use".into());
            }
            Step::Upgrade => self.disk.has_other = true,
            Step::WipeEphemeral => self.disk.has_data = false,
            Step::PrepareTrial if !self.disk.has_other => return self.refuse("there is no other version".into()),
            Step::PrepareTrial => self.disk.is_on_trial = true,
            Step::ResetUserDisks => self.disk.has_user_data = false,
            Step::ForceCleanup => {
                (self.is_serving, self.has_pods) = (false, false);
                self.mounted.clear();
            }
            Step::StartAllServices => {
                (self.is_serving, self.has_pods) = (true, true);
                (self.disk.has_data, self.disk.is_member) = (true, node.control_plane);
            }
            Step::StopAllServices => self.is_serving = false,
            _ => {}
        }
        Ok(())
    }
}

#[async_trait]
impl Actions for FakeNode {
    fn facts(&self) -> Facts {
        let state = self.state.lock();
        let (installed, staged) = (state.disk.has_system, state.staged);
        Facts { installed, control_plane: self.control_plane, wipe_asked: self.wipe.is_some(), staged }
    }

    async fn perform(&self, step: Step, job: Job) -> Result<(), TaskError> {
        let sequence = job.request.sequence;
        tokio::task::yield_now().await;
        let (is_off, has_state) = {
            let mut state = self.state.lock();
            // An operator has given none yet.
            let disk = &state.disk;
            state.waits_for_config =
                step == Step::LoadConfig && disk.has_system && !disk.has_config && !disk.is_served_config;
            (state.is_off || state.waits_for_config, state.mounted.contains(&Step::MountState))
        };
        // Nothing happens any more; or the machine takes no configuration, as STATE may have one.
        if is_off || (self.kind == MachineKind::Machine && step == Step::LoadConfig && !has_state) {
            std::future::pending::<()>().await;
        }
        if let Scripted::Fails(at, failing) = self.script
            && (at, failing) == (sequence, step)
        {
            return Err("made to fail".into());
        }
        let mut state = self.state.lock();
        let has = |state: &State, wanted: Step| match wanted {
            Step::MountState | Step::MountEphemeral => state.mounted.contains(&wanted),
            wanted => state.done.iter().any(|(_, done)| *done == wanted),
        };
        if let Some(missing) = self.conditions(sequence, step).into_iter().find(|wanted| !has(&state, *wanted)) {
            return state.refuse(format!("{step:?} before {missing:?}"));
        }
        state.act(self, step, &job.request)?;
        state.done.push((sequence, step));
        if let Scripted::CutAfter(at, last) = self.script
            && (at, last) == (sequence, step)
        {
            state.is_off = true;
        }
        Ok(())
    }
}

/// One life of a machine, from power-on.
pub(super) struct Life {
    pub(super) node: Arc<FakeNode>,
    pub(super) planner: NodePlanner,
    pub(super) lifecycle: Lifecycle,
    _config: watch::Sender<u64>,
}

impl Life {
    pub(super) fn new(kind: MachineKind, disk: Disk, script: Scripted) -> Self {
        Self::of(&Case::new(kind), disk, script)
    }

    pub(super) fn of(case: &Case, disk: Disk, script: Scripted) -> Self {
        let &Case { kind, control_plane, wipe, .. } = case;
        let state = Mutex::new(State { disk, ..State::default() });
        let node = Arc::new(FakeNode { kind, control_plane, wipe, script, state });
        let actions = Arc::new(OnceLock::<Arc<dyn Actions>>::new());
        actions.set(Arc::clone(&node) as _).unwrap();
        let (config, revisions) = watch::channel(0);
        let planner = || NodePlanner { kind, actions: Arc::clone(&actions) };
        let lifecycle = Lifecycle::new(planner(), EventBus::new(Arc::new(stdx::SystemClock)), revisions);
        Self { node, planner: planner(), lifecycle, _config: config }
    }

    /// Powers it on, and has it end by `end` once it runs. Returns how it ended; none when it runs, or has no power.
    pub(super) async fn run(&self, end: Option<&Request>) -> Option<Outcome> {
        self.lifecycle.request(Request::new(Sequence::Initialize, ActorId::machine())).unwrap();
        let outcome = self.until_quiet().await;
        let (None, Some(end), false) = (outcome, end, self.node.state.lock().is_off) else { return outcome };
        self.node.state.lock().waits_for_config = false;
        self.lifecycle.request(end.clone()).unwrap();
        self.until_quiet().await
    }

    /// Until the machine ends, runs, or loses power.
    async fn until_quiet(&self) -> Option<Outcome> {
        let mut status = self.lifecycle.status();
        let quiet = async {
            loop {
                let is_off = self.node.state.lock().is_off;
                if is_off || self.node.state.lock().waits_for_config {
                    return;
                }
                {
                    let status = status.borrow_and_update();
                    if let (None, Some(last)) = (&status.current, &status.last)
                        && last.result == sequencer::LastResult::Done
                        && last.sequence == Sequence::Boot
                    {
                        return;
                    }
                }
                tokio::select! {
                    changed = status.changed() => changed.unwrap(),
                    () = tokio::time::sleep(Duration::from_secs(1)) => {}
                }
            }
        };
        // Both arms are cancel-safe: neither carries data.
        tokio::select! {
            outcome = self.lifecycle.outcome() => Some(outcome),
            () = quiet => None,
            () = tokio::time::sleep(LONG) => panic!("it neither runs nor ends: {:?}", self.lifecycle.status().borrow()),
        }
    }
}
