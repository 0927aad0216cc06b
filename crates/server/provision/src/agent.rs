//! The one process that a cluster leaves on the host: it serves images to the nodes, keeps the discovery server alive, and
//! starts nodes again whose init ended.
//!
//! There is one agent for each cluster, by a lock that ends with it. It can be killed and started again at any time; it
//! ends by itself when the cluster's folder is gone.

mod discovery;
mod nodes;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use crate::command;
use crate::error::ProvisionError;
use crate::process::Identity;
use crate::registry::{self, Layout};
use crate::state::{Folder, State, make_folder, write_private};

/// Where a registry listens unless somebody else does.
const USUAL_PORT: u16 = 5000;
const START_TIMEOUT: Duration = Duration::from_secs(15);
const GRACE: Duration = Duration::from_secs(3);

/// What can go wrong with an agent.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error(transparent)]
    Provision(#[from] ProvisionError),
    #[error("the agent of cluster {0} runs already")]
    AlreadyRunning(String),
    #[error("no cluster {name} in {}", .root.display())]
    NoSuchCluster { name: String, root: PathBuf },
    #[error("listening on {address}")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("starting {}", .program.display())]
    Start { program: PathBuf, source: std::io::Error },
    #[error("the agent of cluster {name} did not start: {last_words} (its log is {})", .log.display())]
    NotStarted { name: String, last_words: String, log: PathBuf },
}

/// What the agent says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Card {
    process: Identity,
    registry_port: u16,
}

/// How to start an agent: the program and the arguments before `--state DIR --name NAME`.
#[derive(Debug, Clone)]
pub struct AgentProgram {
    pub program: PathBuf,
    pub arguments: Vec<String>,
}

/// An agent that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agent {
    pub pid: i32,
    /// The registry's port on the cluster's gateway.
    pub registry_port: u16,
}

/// Is the agent: serves until the cluster's folder is gone.
///
/// # Errors
///
/// When another agent of the cluster runs, or the gateway's address cannot be used (after a reboot it is gone).
pub async fn run(root: &Path, name: &str) -> Result<(), AgentError> {
    // Leaves the terminal and the job of whoever started it; it fails only where that is done already.
    let _ = rustix::process::setsid();
    let folder = Folder::new(root, name)?;
    let missing = || AgentError::NoSuchCluster { name: name.to_owned(), root: root.to_path_buf() };
    let state = State::read(&folder)?.ok_or_else(missing)?;
    let path = folder.agent_lock();
    let lock = std::fs::File::options().create(true).truncate(false).write(true).open(&path);
    let lock = lock.map_err(ProvisionError::io("opening", &path))?;
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Err(AgentError::AlreadyRunning(name.to_owned()));
    }
    let before = read_card(&folder).map(|card| card.registry_port);
    let listener = listen(state.plan.gateway, before).await?;
    let port = listener.local_addr().map(|address| address.port()).unwrap_or_default();
    let _keeper = state.discoveryd.as_ref().map(|program| discovery::Keeper::start(program, &state.plan, &folder));
    let own = i32::try_from(std::process::id()).ok().and_then(Identity::of).ok_or_else(missing)?;
    write_card(&folder, &Card { process: own, registry_port: port })?;
    tracing::info!(cluster = name, gateway = %state.plan.gateway, port, "agent serves");
    let layout = Layout::new(state.bundle.unwrap_or_else(|| folder.path().join("no-bundle")));
    // All are dropped with the select; nothing of them needs an end of its own.
    tokio::select! {
        () = registry::serve(listener, layout) => {}
        () = nodes::keep(root.to_path_buf(), state.plan) => {}
        () = until_gone(&folder) => tracing::info!("the cluster is gone"),
    }
    drop(lock);
    Ok(())
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

async fn until_gone(folder: &Folder) {
    while folder.state_file().exists() {
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}

fn read_card(folder: &Folder) -> Option<Card> {
    serde_json::from_slice(&std::fs::read(folder.agent()).ok()?).ok()
}

fn write_card(folder: &Folder, card: &Card) -> Result<(), ProvisionError> {
    let encode = |source| ProvisionError::Encode { subject: "agent", source };
    write_private(&folder.agent(), &serde_json::to_vec(card).map_err(encode)?)
}

/// The agent of a cluster, if it runs.
#[must_use]
pub fn status(root: &Path, name: &str) -> Option<Agent> {
    let folder = Folder::new(root, name).ok()?;
    let card = read_card(&folder).filter(|card| card.process.is_alive())?;
    Some(Agent { pid: card.process.pid, registry_port: card.registry_port })
}

/// Starts the agent of a cluster as a process of its own and waits until it serves; gives the one that runs, if one does.
///
/// # Errors
///
/// When it does not serve in time.
pub fn start(root: &Path, name: &str, how: &AgentProgram) -> Result<Agent, AgentError> {
    if let Some(agent) = status(root, name) {
        return Ok(agent);
    }
    let folder = Folder::new(root, name)?;
    if State::read(&folder)?.is_none() {
        return Err(AgentError::NoSuchCluster { name: name.to_owned(), root: root.to_path_buf() });
    }
    make_folder(&folder.logs())?;
    let path = folder.log("agent");
    let log = std::fs::File::options().create(true).append(true).open(&path);
    let log = log.map_err(ProvisionError::io("opening", &path))?;
    let root = std::path::absolute(root).map_err(ProvisionError::io("finding", root))?;
    let arguments = how.arguments.iter().map(std::ffi::OsString::from).chain([
        "--state".into(),
        root.clone().into_os_string(),
        "--name".into(),
        name.into(),
    ]);
    let started = command::start(&how.program, arguments, &log);
    let mut child = started.map_err(|source| AgentError::Start { program: how.program.clone(), source })?;
    const STEP: Duration = Duration::from_millis(10);
    for _ in 0..START_TIMEOUT.as_millis() / STEP.as_millis() {
        if let Some(agent) = status(&root, name) {
            return Ok(agent);
        }
        if let Ok(Some(_)) = child.try_wait() {
            break;
        }
        std::thread::park_timeout(STEP);
    }
    // What did not come up in time must not come up later.
    drop(child.kill());
    drop(child.wait());
    let said = std::fs::read_to_string(&path).unwrap_or_default();
    let last_words = said.lines().last().unwrap_or("it said nothing").to_owned();
    Err(AgentError::NotStarted { name: name.to_owned(), last_words, log: path })
}

/// Ends the agent and its discovery server, if they run.
pub(crate) fn stop(folder: &Folder, errors: &mut Vec<ProvisionError>) {
    let agent = read_card(folder).map(|card| card.process);
    // The discovery server ends with the agent; the second look is for one that could not.
    let discoveryd = Identity::read(&folder.discoveryd());
    for (what, identity) in [("agent", agent), ("discovery server", discoveryd)] {
        let Some(identity) = identity else { continue };
        if !identity.end(GRACE) {
            errors.push(ProvisionError::StillRunning {
                name: what.to_owned(),
                processes: vec![identity.pid.unsigned_abs()],
            });
        }
    }
}
