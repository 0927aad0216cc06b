//! The machine API's dependencies on this machine, and its sockets.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use block::disk::KernelDisks;
use etcd_edge::{LockGuard, NodeEtcd};
use machine_api::{Away, BootstrapRefused, BootstrapSink, BoxError, EtcdMembers, Machine};
use resources::config::MachineType;
use resources::runtime::{MachineStatus, MountStatus};
use sequencer::{Lifecycle, SequenceId, Status};
use services::bootstrap::{BootstrapError, has_member};
use services::{APID_USER, BootstrapGate, ETCD_DATA, TRUSTD_USER};
use state::{StateError, Store};
use stdx::tasks::CancellationToken;
use stdx::{SystemClock, error_chain};
use tokio::sync::watch;

use crate::actions::wipe::NodeResetTargets;
use crate::components::Machine as Node;
use crate::paths::MACHINE_SOCKET;
use crate::storage::{NodeMeta, NodeVolumeKeys};
use crate::versions::NodeVersions;

const APID_STATE_SOCKET: &str = "/system/run/apid/runtime.sock";
const TRUSTD_STATE_SOCKET: &str = "/system/run/trustd/runtime.sock";

/// Opens the sockets; they are served until `stop` fires.
///
/// # Errors
/// When a socket cannot be made.
pub(crate) fn serve(node: &Node, stop: &CancellationToken) -> anyhow::Result<()> {
    let machine = machine(node);
    let store = node.components.store.clone();
    let owner = |user| Some((user, user));
    let until = stop.clone();
    keep_serving("machine api", stop, move || {
        machine_api::serve(machine.clone(), Path::new(MACHINE_SOCKET), 0o600, owner(APID_USER), until.clone())
    })
    .context("opening the machine API")?;
    for (name, types, socket, user) in [
        ("apid state", apid::TYPES, APID_STATE_SOCKET, APID_USER),
        ("trustd state", trustd::TYPES, TRUSTD_STATE_SOCKET, TRUSTD_USER),
    ] {
        let (store, until) = (store.clone(), stop.clone());
        let open = move || {
            machine_api::serve_state(store.clone(), types, Path::new(socket), 0o600, owner(user), until.clone())
        };
        keep_serving(name, stop, open).with_context(|| format!("opening the {name} socket"))?;
    }
    Ok(())
}

/// Serves until `stop` fires: a server that ends earlier, even by a panic, is reopened.
///
/// # Errors
/// When it cannot be opened the first time.
fn keep_serving<F, S, B, E>(name: &'static str, stop: &CancellationToken, open: F) -> Result<(), B>
where
    F: Fn() -> Result<S, B> + Send + Sync + 'static,
    S: Future<Output = Result<(), E>> + Send + 'static,
    B: std::error::Error + Send + 'static,
    E: std::error::Error + Send + 'static,
{
    let mut first = Some(open()?);
    let (open, stop) = (Arc::new(open), stop.clone());
    let serving = stdx::tasks::keep(name, move || {
        let (open, stop, mut server) = (Arc::clone(&open), stop.clone(), first.take());
        async move {
            while !stop.is_cancelled() {
                let ended = match server.take().map_or_else(&*open, Ok) {
                    Ok(server) => server.await.map_err(|error| error_chain(&error)),
                    Err(error) => Err(error_chain(&error)),
                };
                if stop.is_cancelled() {
                    return;
                }
                tracing::error!(name, error = ended.err(), "server ended; it is opened again");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    });
    // It ends with the process.
    serving.detach();
    Ok(())
}

fn machine(node: &Node) -> Machine {
    let components = &node.components;
    Machine {
        store: components.store.clone(),
        controllers: components.controllers.clone(),
        supervisor: components.supervisor.clone(),
        logs: components.logs.clone(),
        events: components.events.clone(),
        lifecycle: Arc::new(node.lifecycle.clone()),
        containers: Arc::new(components.containerd.clone()),
        bootstrap: Arc::new(Bootstrap { store: components.store.clone(), gate: components.gate.clone() }),
        etcd: Arc::new(Etcd {
            store: components.store.clone(),
            node: components.etcd.clone(),
            lifecycle: node.lifecycle.clone(),
        }),
        meta: Arc::new(NodeMeta(Arc::clone(&components.storage))),
        volume_keys: Arc::new(NodeVolumeKeys(Arc::clone(&components.storage))),
        versions: Arc::new(NodeVersions::new(components.store.clone())),
        reset_targets: Arc::new(NodeResetTargets { disks: Arc::new(KernelDisks), store: components.store.clone() }),
        kubernetes: Arc::new(kube_edge::RealConnect),
        time_servers: Arc::new(ntp::KernelAsk::default()),
        clock: Arc::new(SystemClock),
    }
}

#[derive(Debug)]
struct Bootstrap {
    store: Store,
    gate: BootstrapGate,
}

#[async_trait]
impl BootstrapSink for Bootstrap {
    async fn bootstrap(&self) -> Result<(), BootstrapRefused> {
        let kind = self.store.get_as::<MachineType>(MachineType::ID).ok().flatten();
        if !kind.is_some_and(|kind| kind.is_control_plane()) {
            return Err(BootstrapRefused::NotPossible(BootstrapError::NotControlPlane.to_string()));
        }
        let ephemeral = self.store.get_as::<MountStatus>(MountStatus::EPHEMERAL).ok().flatten();
        let ephemeral = ephemeral.ok_or_else(|| {
            let status = self.store.get_as::<MachineStatus>(MachineStatus::ID).ok().flatten();
            let stage = status.map(|status| format!("the machine is {}, and ", status.stage)).unwrap_or_default();
            let reason = format!("{stage}volume EPHEMERAL is not mounted: etcd has no place for its data");
            BootstrapRefused::NotPossible(reason)
        })?;
        let data = Path::new(&ephemeral.target).join(ETCD_DATA);
        let gate = self.gate.clone();
        // Keeping the permission waits for a disk.
        let opened = tokio::task::spawn_blocking(move || gate.open(&data)).await;
        opened
            .map_err(|error| BootstrapRefused::NotPossible(error.to_string()))?
            .map_err(|error| BootstrapRefused::AlreadyDone(error_chain(&error)))
    }
}

#[derive(Debug)]
struct Etcd {
    store: Store,
    node: NodeEtcd,
    lifecycle: Lifecycle,
}

#[async_trait]
impl EtcdMembers for Etcd {
    async fn members(&self) -> Result<Vec<etcd_edge::Member>, BoxError> {
        Ok(self.node.client().await?.members().await?)
    }

    async fn can_leave(&self) -> Result<(), BoxError> {
        if !self.is_member()? {
            return Ok(());
        }
        let etcd = self.node.client().await?;
        Ok(etcd_edge::can_leave(&*etcd).await?)
    }

    async fn go_away(&self, preserve: bool) -> Result<Box<dyn Away>, BoxError> {
        if !self.is_member()? {
            return Ok(Box::new(NotNeeded));
        }
        let lock = self.node.go_away(preserve).await?;
        Ok(Box::new(Permission { lock, status: self.lifecycle.status() }))
    }
}

/// Of a node that is no member of etcd.
#[derive(Debug)]
struct NotNeeded;

#[async_trait]
impl Away for NotNeeded {
    async fn stay(self: Box<Self>) {}

    fn until_the_end_of(self: Box<Self>, _: SequenceId) {}
}

/// The lock of the control plane that is away.
#[derive(Debug)]
struct Permission {
    lock: LockGuard,
    status: watch::Receiver<Status>,
}

impl Permission {
    async fn release(self) {
        if let Err(error) = self.lock.release().await {
            tracing::warn!(error = error_chain(&error), "the lock of upgrades was not released; it ends by itself");
        }
    }
}

#[async_trait]
impl Away for Permission {
    async fn stay(self: Box<Self>) {
        self.release().await;
    }

    fn until_the_end_of(mut self: Box<Self>, sequence: SequenceId) {
        let work = async move {
            // The sender lives as long as this process.
            if self.status.wait_for(|status| runs_on(status, sequence)).await.is_ok() {
                self.release().await;
            }
        };
        stdx::tasks::spawn("upgrade lock", work).detach();
    }
}

/// Whether a sequence has ended, and the machine has not.
fn runs_on(status: &Status, sequence: SequenceId) -> bool {
    let has_ended = status.last.as_ref().is_some_and(|last| last.id >= sequence);
    let runs = status.current.as_ref().is_some_and(|current| current.id == sequence);
    has_ended && !runs && status.outcome.is_none()
}

impl Etcd {
    /// Without data it is no member, also on a control plane that waits for its bootstrap.
    fn is_member(&self) -> Result<bool, StateError> {
        let ephemeral = self.store.get_as::<MountStatus>(MountStatus::EPHEMERAL)?;
        Ok(ephemeral.is_some_and(|volume| has_member(&Path::new(&volume.target).join(ETCD_DATA))))
    }
}
