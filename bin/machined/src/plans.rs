//! The plans of this machine's sequences.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use domain_runtime::user_files;
use resources::config::MachineType;
use resources::lifecycle::ServiceSpec;
use resources::runtime::MountStatus;
use sequencer::{
    CONFIG_PAUSE, OnFailure, Outcome, Plan, Planner, Request, Sequence, Task, TaskContext, TaskError, Then,
};
use services::MachinedService;
use state::{Kind, Store, WatchOptions};
use stdx::tasks::CancellationToken;
use supervisor::Supervisor;

use crate::boot::QUICK;
use crate::components::Machine;
use crate::paths::MACHINE_SOCKET;
use crate::{api, boot};

/// How long a machine may take to bring all services up (Talos 1.7: 70 minutes; a control plane waits for bootstrap).
const BOOT: Duration = Duration::from_secs(70 * 60);
/// How long services may take to end: more than the supervisor gives them.
const STOP: Duration = Duration::from_secs(90);
/// How often it is said which services have not started.
const REMIND: Duration = Duration::from_secs(30);

/// Plans of a machine that is a container: its disks, its network and its kernel are its host's.
pub(crate) struct ContainerPlanner {
    /// Set before the first sequence is asked for; the machine holds the lifecycle, which holds this planner.
    pub(crate) machine: Arc<OnceLock<Machine>>,
}

impl Planner for ContainerPlanner {
    fn plan(&self, request: &Request) -> Option<Plan> {
        let machine = self.machine.get()?;
        match request.sequence {
            Sequence::Initialize => Some(initialize(machine)),
            Sequence::Boot => Some(boot(machine)),
            Sequence::Reboot => Some(stop(machine, Outcome::Reboot)),
            Sequence::Shutdown | Sequence::Reset => Some(stop(machine, Outcome::PowerOff)),
            Sequence::Install | Sequence::Upgrade | Sequence::StageUpgrade | Sequence::MaintenanceUpgrade => None,
        }
    }
}

/// From power-on to a configuration.
fn initialize(machine: &Machine) -> Plan {
    let start = {
        let machine = machine.clone();
        Task::new("startMachined", QUICK, move |_| {
            let machine = machine.clone();
            async move {
                machine.components.controllers.start();
                // They serve until the process ends: while services stop, and as long as operators may ask for the
                // reason.
                api::serve(&machine, &CancellationToken::new())?;
                machine.components.supervisor.ensure(Arc::new(MachinedService::new(MACHINE_SOCKET)));
                Ok(())
            }
        })
    };
    let containerd = {
        let supervisor = machine.components.supervisor.clone();
        Task::new("startContainerd", QUICK, move |context| is_started(supervisor.clone(), "containerd", context))
    };
    let store = &machine.components.store;
    let var = {
        let store = store.clone();
        Task::new("setupVarDirectory", QUICK, move |_| boot::var(store.clone()))
    };
    let load_config = {
        let store = store.clone();
        Task::waiting("loadConfig", move |context| configured(store.clone(), context))
    };
    Plan::new(Then::Follow(Sequence::Boot))
        .phase(
            "systemRequirements",
            vec![
                Task::new("setupSystemDirectory", QUICK, |_| async { Ok(boot::directories()?) }),
                Task::new("mountPseudoFilesystems", QUICK, |_| async { boot::mounts() }),
                Task::new("setRLimit", QUICK, |_| async { boot::limits() }),
            ],
        )
        .phase("etc", vec![Task::new("createEtcFiles", QUICK, |_| async { boot::etc() })])
        .phase("earlyServices", vec![start])
        .phase(
            "mountSystem",
            vec![
                boot::mount_state("mountState", store, &machine.components.gate),
                boot::mount("ephemeral", store, MountStatus::EPHEMERAL),
            ],
        )
        .phase("var", vec![var])
        // Its images and containers are below /var.
        .phase("containerd", vec![containerd])
        .phase("config", vec![load_config])
}

/// Writes the files of the configuration, and waits for all that a configured machine runs.
fn boot(machine: &Machine) -> Plan {
    let (store, supervisor) = (machine.components.store.clone(), machine.components.supervisor.clone());
    let up = Task::new("startAllServices", BOOT, move |context| all_up(store.clone(), supervisor.clone(), context));
    let files = {
        let store = machine.components.store.clone();
        Task::new(user_files::TASK, QUICK, move |_| boot::user_files(store.clone()))
    };
    let files = files.on_failure(OnFailure::PauseForConfig { at_most: CONFIG_PAUSE });
    Plan::new(Then::Idle).phase("userSetup", vec![files]).phase("startEverything", vec![up])
}

/// Ends all services, withdraws the volumes from their writers, and ends the machine.
fn stop(machine: &Machine, outcome: Outcome) -> Plan {
    let supervisor = machine.components.supervisor.clone();
    let stop = Task::new("stopAllServices", STOP, move |_| {
        let supervisor = supervisor.clone();
        async move { Ok(supervisor.shutdown().await?) }
    });
    // A service that does not end keeps no machine from ending.
    let store = &machine.components.store;
    Plan::new(Then::End(outcome)).phase("stopEverything", vec![stop.on_failure(OnFailure::Ignore)]).phase(
        "unmountSystem",
        vec![
            boot::unmount("unmountEphemeralPartition", store, MountStatus::EPHEMERAL),
            boot::unmount("unmountStatePartition", store, MountStatus::STATE),
        ],
    )
}

/// Waits until a service is started; its own state shows its unmet condition.
async fn is_started(supervisor: Supervisor, id: &'static str, context: TaskContext) -> Result<(), TaskError> {
    let mut revision = supervisor.revision();
    loop {
        revision.borrow_and_update();
        if supervisor.get(id).is_some() {
            return Ok(());
        }
        // Both arms are cancel-safe.
        tokio::select! {
            changed = revision.changed() => changed?,
            () = context.cancel.cancelled() => return Err(format!("{id} is not started").into()),
        }
    }
}

/// Has the configuration acquired and waits for the type of the machine, which it gives; meanwhile the machine may be in
/// maintenance mode.
async fn configured(store: Store, context: TaskContext) -> Result<(), TaskError> {
    boot::begin_acquisition(&store)?;
    loop {
        // The watch first: a change after the look is an event.
        let mut changes = store.watch_kind(&Kind::of::<MachineType>(), WatchOptions::default())?;
        if store.get_as::<MachineType>(MachineType::ID)?.is_some_and(|kind| *kind != MachineType::Unknown) {
            return Ok(boot::end_acquisition(&store)?);
        }
        // Both arms are cancel-safe: a watch that missed something is begun anew, and the state looked at.
        tokio::select! {
            event = changes.next() => drop(event),
            () = context.cancel.cancelled() => return Err("no configuration came".into()),
        }
    }
}

/// Waits until every service that a spec requires is up.
///
/// Specs of required services are written before what they describe may start, so that a machine whose known services are all
/// up has no other that it needs; see `runtime.ServiceSpecController`.
async fn all_up(store: Store, supervisor: Supervisor, context: TaskContext) -> Result<(), TaskError> {
    let mut revision = supervisor.revision();
    let mut remind = tokio::time::interval(REMIND);
    remind.tick().await;
    loop {
        revision.borrow_and_update();
        let mut changes = store.watch_kind(&Kind::of::<ServiceSpec>(), WatchOptions::default())?;
        let missing = missing(&store, &supervisor)?;
        if missing.is_empty() {
            return Ok(());
        }
        // All arms are cancel-safe: a missed change is seen at the next check.
        tokio::select! {
            changed = revision.changed() => changed?,
            event = changes.next() => drop(event),
            _ = remind.tick() => tracing::info!(services = missing.join(", "), "services still starting; waiting"),
            () = context.cancel.cancelled() => return Err(missing.join(", ").into()),
        }
    }
}

/// Required services that are not up, each with its reason.
fn missing(store: &Store, supervisor: &Supervisor) -> Result<Vec<String>, TaskError> {
    let specs = store.list_as::<ServiceSpec>()?;
    if specs.is_empty() {
        return Ok(vec!["no service is known".to_owned()]);
    }
    let required = specs.iter().filter(|spec| spec.required);
    Ok(required
        .filter_map(|spec| {
            let id = spec.id();
            match supervisor.get(id) {
                Some(status) if status.is_up() => None,
                Some(status) => Some(format!("{id} ({})", status.reason())),
                None => Some(format!("{id} (waiting for {})", spec.waits_for)),
            }
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use platform::Container;
    use sequencer::{ActorId, Lifecycle};
    use supervisor::LogStore;
    use tokio::sync::watch;

    use super::*;
    use crate::components::Components;

    fn planner() -> ContainerPlanner {
        let slot = Arc::new(OnceLock::new());
        let components = Components::new(Arc::new(Container::new(None, None)), LogStore::default());
        let planner = ContainerPlanner { machine: Arc::clone(&slot) };
        let lifecycle = Lifecycle::new(planner, components.events.clone(), watch::channel(0).1);
        slot.set(Machine { components, lifecycle }).unwrap();
        ContainerPlanner { machine: slot }
    }

    fn outline(sequence: Sequence) -> Option<(String, Then)> {
        let plan = planner().plan(&Request::new(sequence, ActorId::machine()))?;
        let phases: Vec<_> = plan.outline().map(|(phase, tasks)| format!("{phase}: {}", tasks.join(" "))).collect();
        Some((phases.join("; "), plan.then()))
    }

    #[tokio::test]
    async fn phases_and_tasks_have_the_names_that_clients_wait_for() {
        let initialize = "systemRequirements: setupSystemDirectory mountPseudoFilesystems setRLimit; etc: createEtcFiles; \
                          earlyServices: startMachined; mountSystem: mountState ephemeral; var: setupVarDirectory; \
                          containerd: startContainerd; config: loadConfig";
        assert_eq!(outline(Sequence::Initialize), Some((initialize.into(), Then::Follow(Sequence::Boot))));
        let boot = "userSetup: writeUserFiles; startEverything: startAllServices";
        assert_eq!(outline(Sequence::Boot), Some((boot.into(), Then::Idle)));
        let stop = || {
            let unmount = "unmountSystem: unmountEphemeralPartition unmountStatePartition";
            format!("stopEverything: stopAllServices; {unmount}")
        };
        assert_eq!(outline(Sequence::Shutdown), Some((stop(), Then::End(Outcome::PowerOff))));
        assert_eq!(outline(Sequence::Reset), Some((stop(), Then::End(Outcome::PowerOff))));
        assert_eq!(outline(Sequence::Reboot), Some((stop(), Then::End(Outcome::Reboot))));
        assert_eq!(outline(Sequence::Upgrade), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_boot_waits_for_required_services_alone_and_says_for_which() {
        let planner = planner();
        let machine = planner.machine.get().unwrap();
        let (store, supervisor) = (&machine.components.store, &machine.components.supervisor);
        assert_eq!(missing(store, supervisor).unwrap(), ["no service is known"]);
        let spec =
            |required, waits_for: &str| ServiceSpec { required, waits_for: waits_for.into(), ..ServiceSpec::default() };
        store.put("extra", spec(false, "nothing"), "").unwrap();
        assert_eq!(missing(store, supervisor).unwrap(), [""; 0]);
        store.put("kubelet", spec(true, "time sync"), "").unwrap();
        assert_eq!(missing(store, supervisor).unwrap(), ["kubelet (waiting for time sync)"]);
        let context = TaskContext { cancel: CancellationToken::new(), actor: ActorId::machine() };
        context.cancel.cancel();
        let error = all_up(store.clone(), supervisor.clone(), context).await.unwrap_err();
        assert_eq!(error.to_string(), "kubelet (waiting for time sync)");
    }
}
