//! The processes of a cluster on the host: the agent serves images to the nodes, keeps the discovery server alive, and starts
//! nodes again whose init ended; its guard starts the agent again.
//!
//! Agent and guard are two processes of one program, and each starts the other when that ends, so either can be killed at
//! any time. There is one of each for a cluster, by locks that end with them. Both end by themselves when the cluster is gone
//! or being destroyed, and together when the agent is asked to stop. Nothing starts them again when both are killed at once.

mod machines;
mod nodes;
mod respawn;
mod role;
mod servers;

use std::ffi::CString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kube_edge::balancer::BindError;
use stdx::tasks::CancellationToken;
use sys::signals::Requests;
use tokio::net::TcpListener;

use crate::agent_record::AgentRecord;
use crate::boot::files::BootFiles;
use crate::driver;
use crate::error::{HostError, ProvisionError};
use crate::folder::{Folder, make_folder, write_private};
use crate::logs;
use crate::plan::KEYS_PORT;
use crate::process::Identity;
use crate::program::Launcher;
use crate::registry::{self, Layout, Site};
use crate::state::{Phase, State};

use self::machines::MachineServices;
use self::respawn::Respawner;
use self::role::{Role, RoleLock};
use self::servers::KeptServer;

pub use crate::program::AgentProgram;

/// Default port of a registry.
const USUAL_PORT: u16 = 5000;
const START_TIMEOUT: Duration = Duration::from_secs(15);
const GRACE: Duration = Duration::from_secs(3);

/// Failure of an agent.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error(transparent)]
    Provision(#[from] ProvisionError),
    #[error(transparent)]
    Host(#[from] HostError),
    #[error("the {role} of cluster {name} runs already")]
    AlreadyRunning { name: String, role: &'static str },
    #[error("no cluster {name} in {}", .root.display())]
    NoSuchCluster { name: String, root: PathBuf },
    #[error("cluster {0} is being destroyed")]
    Destroying(String),
    #[error("cannot read this process's start time from /proc")]
    OwnIdentity,
    #[error("listening for signals")]
    Signals(#[source] std::io::Error),
    #[error("listening on {address}")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error(transparent)]
    Balancer(#[from] BindError),
    #[error("the thread that keeps the agent's guard")]
    Thread(#[source] std::io::Error),
    #[error("starting {}", .program.display())]
    Start { program: PathBuf, source: std::io::Error },
    #[error("the agent of cluster {name} did not start: {last_words} (its log is {})", .log.display())]
    NotStarted { name: String, last_words: String, log: PathBuf },
}

/// An agent that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agent {
    pub pid: i32,
    /// The registry's port on the cluster's gateway.
    pub registry_port: u16,
}

/// A guard that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    pub pid: i32,
    /// Log of agent and guard.
    pub log: PathBuf,
}

/// Is the agent: serves until the cluster is gone or being destroyed, or until it is asked to stop; then its guard ends too.
/// `program` is the program of this process; its path is only the name of the guard.
///
/// # Errors
///
/// When another agent of the cluster runs, or the gateway's address cannot be used (after a reboot it is gone).
pub async fn run(root: &Path, name: &str, program: AgentProgram) -> Result<(), AgentError> {
    settle(&program);
    let mut requests = Requests::listen().map_err(AgentError::Signals)?;
    let own = Arc::new(AgentProcess::become_one(root, name, Role::Server, program)?);
    let folder = &own.folder;
    let state = read_state(folder, root, name)?;
    let before = AgentRecord::read(folder).map(|record| record.registry_port);
    let listener = listen(state.plan.gateway, before).await?;
    let port = listener.local_addr().map(|address| address.port()).unwrap_or_default();
    let driver = driver::open(&state.driver, folder, name, own.launcher.clone());
    driver.open_port(&state.plan, port).await.map_err(ProvisionError::from)?;
    let _discovery = state.discoveryd.as_ref().map(|program| KeptServer::discovery(program, &state.plan, folder));
    let _keys = match &state.kmsd {
        Some(program) => {
            driver.open_port(&state.plan, KEYS_PORT).await.map_err(ProvisionError::from)?;
            Some(KeptServer::keys(program, &state.plan, folder))
        }
        None => None,
    };
    let (layout, boot) = (layout(&state, folder), boot_files(&state, folder));
    let _machines = match state.driver.machines() {
        Some(settings) => {
            driver.open_port(&state.plan, settings.api_port).await.map_err(ProvisionError::from)?;
            Some(MachineServices::start(&state.plan, settings, folder, port).await?)
        }
        None => None,
    };
    AgentRecord { process: own.identity.clone(), registry_port: port }.write(folder)?;
    tracing::info!(cluster = name, gateway = %state.plan.gateway, port, "agent serves");
    let stopping = CancellationToken::new();
    let guard = Respawner::new(Arc::clone(&own), stopping.clone());
    // Not joined: it waits for a lock, and ends with the process.
    let thread = std::thread::Builder::new().name("guard keeper".to_owned()).spawn(move || guard.keep());
    thread.map_err(AgentError::Thread)?;
    // All are dropped with the select; nothing of them needs an end of its own.
    tokio::select! {
        () = registry::serve(listener, Site { layout, boot }) => {}
        () = nodes::keep(folder.clone(), name.to_owned(), driver) => {}
        () = logs::keep_bounded(folder.logs()) => {}
        () = own.until_gone() => tracing::info!("the cluster is gone or being destroyed"),
        _ = requests.next() => {
            tracing::info!("stop requested");
            stopping.cancel();
            // The guard first, while this process still is the agent: it has no reason to start another.
            RoleLock::seize(folder, Role::Guard)?;
        }
    }
    Ok(())
}

/// The images that the cluster's registry has. The installer that the operator named wins over one of the bundle.
fn layout(state: &State, folder: &Folder) -> Layout {
    let installer = state.driver.machines().and_then(|machines| machines.installer.clone());
    let mut roots: Vec<PathBuf> = installer.into_iter().chain(state.bundle.iter().cloned()).collect();
    if roots.is_empty() {
        roots.push(folder.path().join("no-bundle"));
    }
    Layout::of_all(roots)
}

/// The files that machines of the cluster boot with.
fn boot_files(state: &State, folder: &Folder) -> Option<BootFiles> {
    let settings = state.driver.machines()?.clone();
    let known = folder.clone();
    let configuration_of = move |address: IpAddr| {
        let state = State::read(&known).ok().flatten()?;
        let node = state.plan.nodes.iter().find(|node| IpAddr::V4(node.address) == address)?;
        driver::qemu::configuration_url(&known, &node.name)
    };
    Some(BootFiles { folder: folder.clone(), settings, configuration_of: Arc::new(configuration_of) })
}

/// Is the guard of the agent: starts the agent when there is none, until the cluster is gone or being destroyed. Blocks
/// its thread. `program` is as for [`run`].
///
/// # Errors
///
/// When another guard of the cluster's agent runs.
pub fn guard(root: &Path, name: &str, program: AgentProgram) -> Result<(), AgentError> {
    settle(&program);
    let own = AgentProcess::become_one(root, name, Role::Guard, program)?;
    let encode = |source| HostError::Encode { subject: "guard", source };
    write_private(&own.folder.guard(), &serde_json::to_vec(&own.identity).map_err(encode)?)?;
    tracing::info!(cluster = name, "agent is guarded");
    Respawner::new(Arc::new(own), CancellationToken::new()).keep();
    tracing::info!("the cluster is gone or being destroyed");
    Ok(())
}

/// Makes this process one that stays.
fn settle(program: &AgentProgram) {
    // Leaves the terminal and the job of whoever started it; it fails only where that is done already.
    let _ = rustix::process::setsid();
    // One that the other part started would be called `exe`.
    if let Some(name) = program.program.file_name().and_then(|name| CString::new(name.as_bytes()).ok()) {
        let _ = rustix::thread::set_name(&name);
    }
}

/// This process, as one of the two of a cluster's agent.
#[derive(Debug)]
struct AgentProcess {
    folder: Folder,
    role: Role,
    lock: RoleLock,
    identity: Identity,
    launcher: Launcher,
}

impl AgentProcess {
    fn become_one(root: &Path, name: &str, role: Role, program: AgentProgram) -> Result<Self, AgentError> {
        let folder = Folder::new(root, name)?;
        read_state(&folder, root, name)?;
        let lock = RoleLock::take(&folder, role)?;
        let lock = lock.ok_or_else(|| AgentError::AlreadyRunning { name: name.to_owned(), role: role.as_str() })?;
        // Again: until the lock was taken, the cluster could go without waiting for this process.
        read_state(&folder, root, name)?;
        let identity = i32::try_from(std::process::id()).ok().and_then(Identity::of);
        let identity = identity.ok_or(AgentError::OwnIdentity)?;
        let launcher = Launcher::of_this_process(program, root, name);
        Ok(Self { folder, role, lock, identity, launcher })
    }

    /// Whether the cluster is there and stays. One that cannot be read is not gone.
    fn is_wanted(&self) -> bool {
        let stays = |state: Option<State>| state.is_some_and(|state| state.phase != Phase::Destroying);
        self.lock.is_current() && State::read(&self.folder).map_or(true, stays)
    }

    async fn until_gone(&self) {
        while self.is_wanted() {
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    }
}

/// The state of a cluster that is there to stay.
fn read_state(folder: &Folder, root: &Path, name: &str) -> Result<State, AgentError> {
    match State::read(folder)? {
        None => Err(AgentError::NoSuchCluster { name: name.to_owned(), root: root.to_path_buf() }),
        Some(state) if state.phase == Phase::Destroying => Err(AgentError::Destroying(name.to_owned())),
        Some(state) => Ok(state),
    }
}

/// The nodes know the port from their configuration, so an agent that starts again takes the port of the one before.
async fn listen(gateway: Ipv4Addr, before: Option<u16>) -> Result<TcpListener, AgentError> {
    let bind = async |port| {
        let address = SocketAddr::from((gateway, port));
        TcpListener::bind(address).await.map_err(|source| AgentError::Listen { address, source })
    };
    match before {
        Some(port) => bind(port).await,
        None => match bind(USUAL_PORT).await {
            Ok(listener) => Ok(listener),
            Err(_) => bind(0).await,
        },
    }
}

/// The agent of a cluster, if it runs.
#[must_use]
pub fn status(root: &Path, name: &str) -> Option<Agent> {
    let folder = Folder::new(root, name).ok()?;
    let record = AgentRecord::read(&folder).filter(|record| record.process.is_alive())?;
    Some(Agent { pid: record.process.pid, registry_port: record.registry_port })
}

/// The guard of a cluster's agent, if it runs.
#[must_use]
pub fn guarded(root: &Path, name: &str) -> Option<Guard> {
    let folder = Folder::new(root, name).ok()?;
    let process = Role::Guard.process(&folder).filter(Identity::is_alive)?;
    Some(Guard { pid: process.pid, log: folder.log("agent") })
}

/// Starts the agent of a cluster as a process of its own and waits until it serves; gives the one that runs, if one does.
///
/// # Errors
///
/// If it does not serve before the deadline.
pub fn start(root: &Path, name: &str, how: &AgentProgram) -> Result<Agent, AgentError> {
    if let Some(agent) = status(root, name) {
        return Ok(agent);
    }
    let folder = Folder::new(root, name)?;
    read_state(&folder, root, name)?;
    role::make_locks(&folder)?;
    make_folder(&folder.logs())?;
    let path = folder.log("agent");
    let log = std::fs::File::options().create(true).append(true).open(&path);
    let log = log.map_err(HostError::io("opening", &path))?;
    let root = std::path::absolute(root).map_err(HostError::io("finding", root))?;
    let started = Launcher::of_file(how.clone(), &root, name).start(Role::Server.duty(), &log);
    let mut child = started.map_err(|source| AgentError::Start { program: how.program.clone(), source })?;
    const STEP: Duration = Duration::from_millis(10);
    for _ in 0..START_TIMEOUT.as_millis() / STEP.as_millis() {
        if let Some(agent) = status(&root, name) {
            return Ok(agent);
        }
        // One that found another agent leaves it to that one, which may be about to serve.
        if let Ok(Some(_)) = child.try_wait()
            && RoleLock::take(&folder, Role::Server)?.is_some()
        {
            break;
        }
        std::thread::park_timeout(STEP);
    }
    // A process that missed its deadline must not come up later.
    if matches!(child.try_wait(), Ok(None)) {
        drop(child.kill());
        stop(&folder, &mut Vec::new());
    }
    drop(child.wait());
    let last_words = logs::tail(&path, 1, |_| true).pop().unwrap_or_else(|| "it said nothing".to_owned());
    Err(AgentError::NotStarted { name: name.to_owned(), last_words, log: path })
}

/// Keeps an agent from being there while this value lives.
#[derive(Debug)]
pub(crate) struct Stopped {
    _locks: Vec<RoleLock>,
}

/// Ends the agent, its guard and its discovery server, if they run.
pub(crate) fn stop(folder: &Folder, errors: &mut Vec<ProvisionError>) -> Stopped {
    let mut held = Vec::new();
    let locks = role::make_locks(folder);
    // An agent that is asked to stop takes its guard with it. Where it had to be killed, what its guard starts finds the
    // lock taken, and ends.
    if locks.is_ok() {
        for role in [Role::Server, Role::Guard] {
            match RoleLock::seize(folder, role) {
                Ok(lock) => held.push(lock),
                Err(error) => errors.push(error.into()),
            }
        }
    }
    errors.extend(locks.err().map(Into::into));
    // They end with the agent; this look is for one that could not.
    for (owner, record) in [("the discovery server", folder.discoveryd()), ("the key service", folder.kmsd())] {
        if let Some(server) = Identity::read(&record)
            && !server.end(GRACE)
        {
            let processes = vec![server.pid.unsigned_abs()];
            errors.push(HostError::StillRunning { owner: owner.to_owned(), processes }.into());
        }
    }
    Stopped { _locks: held }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::tests::state;

    #[test]
    fn while_an_agent_is_stopped_no_process_can_have_a_role_of_it() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::new(root.path(), "one").unwrap();
        make_folder(folder.path()).unwrap();
        let mut errors = Vec::new();
        let stopped = stop(&folder, &mut errors);
        assert!(errors.is_empty(), "{errors:?}");
        let free = || [Role::Server, Role::Guard].map(|role| RoleLock::take(&folder, role).unwrap().is_some());
        assert_eq!(free(), [false, false]);
        drop(stopped);
        assert_eq!(free(), [true, true]);
    }

    #[test]
    fn the_operators_installer_is_served_alone_and_before_that_of_a_bundle() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::new(root.path(), "one").unwrap();
        let layout_of = |name: &str| {
            let path = root.path().join(name);
            std::fs::create_dir_all(&path).unwrap();
            let index = format!(
                r#"{{"manifests":[{{"mediaType":"m","digest":"{name}","size":1,
                "annotations":{{"org.opencontainers.image.ref.name":"ghcr.io/siderolabs/installer:v1.7.0"}}}}]}}"#
            );
            std::fs::write(path.join("index.json"), index).unwrap();
            path
        };
        let (installer, bundle) = (Some(layout_of("installer")), Some(layout_of("bundle")));
        let machines = crate::machines::MachineSettings { installer, ..Default::default() };
        let driver = crate::spec::DriverSettings::Qemu(Box::new(machines));
        for bundle in [None, bundle] {
            let state = State { bundle, driver: driver.clone(), ..state("one") };
            let found = layout(&state, &folder).find(Some("ghcr.io"), "siderolabs/installer", "v1.7.0").unwrap();
            assert_eq!(found.map(|found| found.digest).as_deref(), Some("installer"));
        }
    }

    #[test]
    fn an_agent_is_wanted_while_its_cluster_is_there_and_not_being_destroyed() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::new(root.path(), "one").unwrap();
        make_folder(folder.path()).unwrap();
        role::make_locks(&folder).unwrap();
        state("one").write(&folder).unwrap();
        let program = AgentProgram { program: PathBuf::from("provision"), arguments: vec![] };
        let own = AgentProcess::become_one(root.path(), "one", Role::Guard, program.clone()).unwrap();
        for (phase, wanted) in [(Phase::Creating, true), (Phase::Created, true), (Phase::Destroying, false)] {
            State { phase, ..state("one") }.write(&folder).unwrap();
            assert_eq!(own.is_wanted(), wanted, "{phase:?}");
        }
        let refused = AgentProcess::become_one(root.path(), "one", Role::Server, program.clone()).unwrap_err();
        assert!(matches!(refused, AgentError::Destroying(_)), "{refused}");
        std::fs::write(folder.state_file(), "{").unwrap();
        assert!(own.is_wanted(), "a state that cannot be read may be read again later");
        std::fs::remove_file(folder.state_file()).unwrap();
        assert!(!own.is_wanted(), "there is no state");
        state("one").write(&folder).unwrap();
        let refused = AgentProcess::become_one(root.path(), "one", Role::Guard, program).unwrap_err();
        assert!(matches!(refused, AgentError::AlreadyRunning { .. }), "{refused}");
        std::fs::remove_file(folder.guard_lock()).unwrap();
        role::make_locks(&folder).unwrap();
        assert!(!own.is_wanted(), "the folder is that of a later cluster");
    }
}
