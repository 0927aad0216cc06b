//! A node for tests: it keeps in mind what was done, refuses steps whose conditions are not met, and fails or loses power
//! where a test says so.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use sequencer::{ActorId, EventBus, Lifecycle, Outcome, Parameters, Request, ResetParameters, Sequence, TaskError};
use tokio::sync::watch;

use super::super::{Actions, Facts, Job, MachineKind, NodePlanner, Step};

/// Longer than everything that a plan waits for.
const LONG: Duration = Duration::from_secs(4 * 60 * 60);

/// What outlives the power.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Disk {
    pub(super) has_config: bool,
    pub(super) has_system: bool,
    /// Not on the disk: a server that gives the machine its configuration at each boot.
    pub(super) is_served_config: bool,
}

impl Disk {
    pub(super) const fn configured() -> Self {
        Self { has_config: true, has_system: true, is_served_config: false }
    }

    /// A blank disk of a machine that gets its configuration from a server.
    pub(super) const fn blank() -> Self {
        Self { has_config: false, has_system: false, is_served_config: true }
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
    is_off: bool,
}

#[derive(Debug)]
pub(super) struct FakeNode {
    kind: MachineKind,
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
    fn conditions(&self, step: Step) -> Vec<Step> {
        let is_machine = self.kind == MachineKind::Machine;
        match step {
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

    fn act(&mut self, step: Step) -> Result<(), TaskError> {
        match step {
            Step::MountState | Step::MountEphemeral => self.mounted.push(step),
            Step::UnmountState => self.mounted.retain(|mounted| *mounted != Step::MountState),
            Step::CordonAndDrain | Step::StopAllPods | Step::RemoveAllPods | Step::LeaveEtcd if !self.is_serving => {
                return self.refuse(format!("{step:?} after the end of all services"));
            }
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
            Step::ResetSystemDisk => self.disk = Disk { is_served_config: true, ..Disk::default() },
            Step::ForceCleanup => {
                (self.is_serving, self.has_pods) = (false, false);
                self.mounted.clear();
            }
            Step::StartAllServices => (self.is_serving, self.has_pods) = (true, true),
            Step::StopAllServices => self.is_serving = false,
            _ => {}
        }
        Ok(())
    }
}

#[async_trait]
impl Actions for FakeNode {
    fn facts(&self) -> Facts {
        Facts { installed: self.state.lock().disk.has_system, control_plane: true, wipe_asked: false }
    }

    async fn perform(&self, step: Step, job: Job) -> Result<(), TaskError> {
        let sequence = job.request.sequence;
        tokio::task::yield_now().await;
        let (is_off, has_state) = {
            let state = self.state.lock();
            (state.is_off, state.mounted.contains(&Step::MountState))
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
        if let Some(missing) = self.conditions(step).into_iter().find(|wanted| !has(&state, *wanted)) {
            return state.refuse(format!("{step:?} before {missing:?}"));
        }
        state.act(step)?;
        state.done.push((sequence, step));
        if let Scripted::CutAfter(at, last) = self.script
            && (at, last) == (sequence, step)
        {
            state.is_off = true;
        }
        Ok(())
    }
}

/// A request with all that its sequence can do.
fn whole(sequence: Sequence) -> Request {
    let request = Request::new(sequence, ActorId::new("test"));
    match sequence {
        Sequence::Reset => {
            request.with(Parameters::Reset(ResetParameters { graceful: true, ..ResetParameters::default() }))
        }
        _ => request,
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
        let state = Mutex::new(State { disk, ..State::default() });
        let node = Arc::new(FakeNode { kind, script, state });
        let actions = Arc::new(OnceLock::<Arc<dyn Actions>>::new());
        actions.set(Arc::clone(&node) as _).unwrap();
        let (config, revisions) = watch::channel(0);
        let planner = || NodePlanner { kind, actions: Arc::clone(&actions) };
        let lifecycle = Lifecycle::new(planner(), EventBus::new(Arc::new(stdx::SystemClock)), revisions);
        Self { node, planner: planner(), lifecycle, _config: config }
    }

    /// Powers it on, and has it end by `end` once it runs. Returns how it ended; none when it runs, or has no power.
    pub(super) async fn run(&self, end: Option<Sequence>) -> Option<Outcome> {
        self.lifecycle.request(Request::new(Sequence::Initialize, ActorId::machine())).unwrap();
        let outcome = self.until_quiet().await;
        let (None, Some(end), false) = (outcome, end, self.node.state.lock().is_off) else { return outcome };
        self.lifecycle.request(whole(end)).unwrap();
        self.until_quiet().await
    }

    /// Until the machine ends, runs, or loses power.
    async fn until_quiet(&self) -> Option<Outcome> {
        let mut status = self.lifecycle.status();
        let quiet = async {
            loop {
                let is_off = self.node.state.lock().is_off;
                if is_off {
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
