//! What the machine API needs of this machine, and the sockets that it is served on.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use etcd_edge::{Connector as _, EtcdConnector, Tls};
use machine_api::{BootstrapRefused, BootstrapSink, BoxError, EtcdMembers, Machine, RebootRequests};
use resources::config::MachineType;
use resources::runtime::MountStatus;
use resources::secrets::{EtcdRootSecret, EtcdSecrets};
use services::bootstrap::BootstrapError;
use services::{APID_USER, BootstrapGate, TRUSTD_USER};
use state::Store;
use stdx::tasks::CancellationToken;
use stdx::{Secret, SystemClock, error_chain};
use tokio::sync::Notify;

use crate::machine::Parts;

/// Where the machine API listens: for apid alone.
pub(crate) const MACHINE_SOCKET: &str = "/system/run/machined/machine.sock";
/// Where etcd keeps its data, below the volume EPHEMERAL.
const ETCD_DATA: &str = "lib/etcd";
const APID_STATE_SOCKET: &str = "/system/run/apid/runtime.sock";
const TRUSTD_STATE_SOCKET: &str = "/system/run/trustd/runtime.sock";

/// Opens the sockets; they are served until `stop` fires.
///
/// # Errors
/// When a socket cannot be made.
pub(crate) fn serve(parts: &Parts, stop: &CancellationToken) -> anyhow::Result<()> {
    let machine = machine(parts);
    let owner = |user| Some((user, user));
    let api = machine_api::serve(machine, Path::new(MACHINE_SOCKET), 0o600, owner(APID_USER), stop.clone());
    serving("machine api", api.context("opening the machine API")?);
    for (name, types, socket, user) in [
        ("apid state", apid::TYPES, APID_STATE_SOCKET, APID_USER),
        ("trustd state", trustd::TYPES, TRUSTD_STATE_SOCKET, TRUSTD_USER),
    ] {
        let state =
            machine_api::serve_state(parts.store.clone(), types, Path::new(socket), 0o600, owner(user), stop.clone());
        serving(name, state.with_context(|| format!("opening the {name} socket"))?);
    }
    Ok(())
}

/// Runs to its end, which is that of the machine.
fn serving<E: std::error::Error + 'static>(
    name: &'static str,
    server: impl Future<Output = Result<(), E>> + Send + 'static,
) {
    let task = async move {
        if let Err(error) = server.await {
            tracing::error!(name, error = error_chain(&error), "server ended");
        }
    };
    stdx::tasks::spawn(name, task).detach();
}

fn machine(parts: &Parts) -> Machine {
    Machine {
        store: parts.store.clone(),
        controllers: parts.controllers.clone(),
        supervisor: parts.supervisor.clone(),
        logs: parts.logs.clone(),
        events: parts.events.clone(),
        containers: Arc::new(parts.containerd.clone()),
        reboots: Arc::new(Reboots(Arc::clone(&parts.reboot))),
        bootstrap: Arc::new(Bootstrap { store: parts.store.clone(), gate: parts.gate.clone() }),
        etcd: Arc::new(Etcd { store: parts.store.clone() }),
        kubernetes: Arc::new(kube_edge::RealConnect),
        clock: Arc::new(SystemClock),
    }
}

/// Passes on what the API asks for, once the answer had time to reach its client.
#[derive(Debug)]
struct Reboots(Arc<Notify>);

impl RebootRequests for Reboots {
    fn request_reboot(&self) -> Result<(), BoxError> {
        let asked = Arc::clone(&self.0);
        let later = async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            asked.notify_one();
        };
        stdx::tasks::spawn("reboot", later).detach();
        Ok(())
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
            BootstrapRefused::NotPossible("volume EPHEMERAL is not mounted: etcd has no place for its data".to_owned())
        })?;
        let data = Path::new(&ephemeral.target).join(ETCD_DATA);
        self.gate.open(&data).map_err(|error| BootstrapRefused::AlreadyDone(error.to_string()))
    }
}

#[derive(Debug)]
struct Etcd {
    store: Store,
}

#[async_trait]
impl EtcdMembers for Etcd {
    async fn members(&self) -> Result<Vec<etcd_edge::Member>, BoxError> {
        Ok(etcd_client(&self.store).await?.members().await?)
    }
}

/// Why etcd cannot be asked from here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EtcdAccessError {
    #[error("this node has no certificate for etcd: it is not a control plane, or not configured yet")]
    NoCertificate,
    #[error(transparent)]
    Etcd(#[from] etcd_edge::EtcdError),
    #[error(transparent)]
    State(#[from] state::StateError),
}

/// A client of the member on this node.
pub(crate) async fn etcd_client(store: &Store) -> Result<Arc<dyn etcd_edge::Etcd>, EtcdAccessError> {
    let root = store.get_as::<EtcdRootSecret>(EtcdRootSecret::ID)?;
    let ca = root.and_then(|root| root.etcd_ca.clone());
    let secrets = store.get_as::<EtcdSecrets>(EtcdSecrets::ID)?;
    let admin = secrets.and_then(|secrets| secrets.etcd_admin.clone());
    let (Some(ca), Some(admin)) = (ca, admin) else { return Err(EtcdAccessError::NoCertificate) };
    let tls = Tls { ca: ca.crt.0, crt: admin.crt.0, key: Secret::new(admin.key.0) };
    Ok(EtcdConnector.connect(&["https://127.0.0.1:2379".to_owned()], &tls).await?)
}
