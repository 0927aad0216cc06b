//! The machine as a whole: its parts are made here, handed to each other, and run until the machine ends.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use containers::{Containerd, Namespace};
use controller::Runtime;
use platform::{Environment, Platform};
use resources::config::{MachineConfig, MachineType};
use resources::enums::MachineStage;
use resources::runtime::MaintenanceServiceRequest;
use sequencer::{EventBus, Payload, Sequencer, Task};
use services::{BootstrapGate, Runtime as ContainerRuntime};
use state::{Kind, Store, WatchOptions};
use stdx::tasks::CancellationToken;
use stdx::{Clock, SystemClock, error_chain};
use supervisor::{LogStore, Supervisor};
use sys::signals::{Request, Requests};
use tokio::sync::{Notify, watch};

use crate::{api, boot, wiring};

/// Where machined renders files of `/etc`.
pub(crate) const RENDERED_ETC: &str = "/system/etc";
/// Where programs look for them.
pub(crate) const ETC: &str = "/etc";
/// Where containerd listens.
pub(crate) const CONTAINERD_SOCKET: &str = "/run/containerd/containerd.sock";

/// The parts of the machine that others get handles of.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    pub(crate) platform: Arc<dyn Platform>,
    pub(crate) store: Store,
    pub(crate) controllers: Runtime,
    pub(crate) supervisor: Supervisor,
    pub(crate) logs: LogStore,
    pub(crate) events: EventBus,
    pub(crate) sequencer: Arc<Sequencer>,
    /// Notified when the machine API asks for a reboot.
    pub(crate) reboot: Arc<Notify>,
    pub(crate) gate: BootstrapGate,
    pub(crate) stage: Arc<watch::Sender<MachineStage>>,
    pub(crate) containerd: Containerd,
}

impl Parts {
    fn new(platform: Arc<dyn Platform>, logs: LogStore) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let store = Store::new();
        for definition in resources::definitions() {
            store.register(definition);
        }
        for namespace in resources::NAMESPACES {
            store.register_namespace(namespace);
        }
        let events = EventBus::new(Arc::clone(&clock));
        Self {
            platform,
            controllers: Runtime::new(store.clone()),
            store,
            supervisor: Supervisor::new(clock),
            logs,
            sequencer: Arc::new(Sequencer::new(events.clone())),
            events,
            reboot: Arc::default(),
            gate: BootstrapGate::default(),
            stage: Arc::new(watch::Sender::new(MachineStage::Booting)),
            containerd: Containerd::new(Path::new(CONTAINERD_SOCKET), Namespace::System),
        }
    }

    /// What the services that are containers need.
    pub(crate) fn container_runtime(&self) -> ContainerRuntime {
        let store = self.store.clone();
        ContainerRuntime {
            containerd: self.containerd.clone(),
            registries: Arc::new(move || {
                let active = store.get_as::<MachineConfig>(MachineConfig::ACTIVE_ID).ok().flatten();
                domain_runtime::cri_config::pull_registries(active.as_deref())
            }),
            logs: self.logs.clone(),
            pipes: PathBuf::from("/run/pipes"),
        }
    }
}

/// Runs the machine to its end.
///
/// # Errors
/// When it cannot even be brought to where it could be managed.
pub(crate) async fn run(environment: Environment, logs: LogStore) -> anyhow::Result<()> {
    tracing::info!(version = stdx::version::TAG, kernel = sys::host::kernel_release(), "machined starts");
    let mut requests = Requests::listen().context("listening to signals")?;
    let platform = platform::detect(environment)?;
    let _reaper = stdx::tasks::spawn("reaper", async {
        if let Err(error) = sys::process::reap_orphans().await {
            tracing::error!(error = error_chain(&error), "orphans are not reaped");
        }
    });
    let parts = Parts::new(platform, logs);
    let _announcer = stdx::tasks::spawn("service events", announce_services(parts.clone()));
    let life = {
        let parts = parts.clone();
        stdx::tasks::spawn("machine", async move {
            if let Err(error) = live(&parts).await {
                tracing::error!(error = error_chain(&*error), "the boot sequence failed; the API stays up if it was");
            }
        })
    };
    // Both arms are cancel-safe: a notification that nobody waited for is kept.
    let request = tokio::select! {
        request = requests.next() => request,
        () = parts.reboot.notified() => Request::Reboot,
    };
    tracing::info!(?request, "the machine ends");
    parts.stage.send_replace(match request {
        Request::Shutdown => MachineStage::ShuttingDown,
        Request::Reboot => MachineStage::Rebooting,
    });
    // A machine that is still booting is told to end as well: its sequence has to be gone before the last one starts.
    life.abort();
    life.join().await.ok();
    if let Err(error) = parts.sequencer.run(boot::shutdown(&parts)).await {
        tracing::error!(error = error_chain(&error), "services may not have ended well");
    }
    parts.controllers.stop(Duration::from_secs(5)).await.ok();
    Ok(())
}

/// From power-on to running.
async fn live(parts: &Parts) -> anyhow::Result<()> {
    wiring::register(parts)?;
    let start_api = {
        let (parts, stop) = (parts.clone(), CancellationToken::new());
        Task::new("startMachined", Duration::from_secs(30), async move {
            parts.controllers.start();
            Ok(api::serve(&parts, &stop)?)
        })
    };
    let containerd = boot::containerd(parts.logs.clone());
    parts.sequencer.run(boot::initialize(start_api, parts, containerd)).await?;
    let kind = configured(parts).await?;
    parts.stage.send_replace(MachineStage::Booting);
    let mut expected = vec!["containerd", "apid", "kubelet"];
    if kind.is_control_plane() {
        expected.extend(["trustd", "etcd"]);
    }
    // A control plane waits for its bootstrap longer than any deadline when nobody comes; it must still boot when they do.
    while let Err(error) = parts.sequencer.run(boot::boot(&parts.supervisor, expected.clone())).await {
        tracing::error!(error = error_chain(&error), "services are not up yet; going on waiting");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    parts.stage.send_replace(MachineStage::Running);
    Ok(())
}

/// Waits for the type of the machine, which a configuration gives it; meanwhile it may be in maintenance mode.
async fn configured(parts: &Parts) -> anyhow::Result<MachineType> {
    let mut watch = parts.store.watch_kind(&Kind::of::<MachineType>(), WatchOptions::default())?;
    loop {
        let kind = parts.store.get_as::<MachineType>(MachineType::ID)?.map_or(MachineType::Unknown, |kind| *kind);
        if kind != MachineType::Unknown {
            boot::end_acquisition(&parts.store)?;
            return Ok(kind);
        }
        let asks = !parts.store.list_as::<MaintenanceServiceRequest>()?.is_empty();
        if asks && *parts.stage.borrow() != MachineStage::Maintenance {
            parts.stage.send_replace(MachineStage::Maintenance);
        }
        // Polled besides, for the request for maintenance; an event that is missed by it shows at the next look.
        if let Ok(event) = tokio::time::timeout(Duration::from_millis(200), watch.next()).await {
            event?;
        }
    }
}

async fn announce_services(parts: Parts) {
    let mut changes = parts.supervisor.changes();
    loop {
        match changes.recv().await {
            Ok(change) => parts.events.publish(Payload::ServiceState {
                service: change.id,
                state: change.state.to_string(),
                message: change.message,
                health: Some(sequencer::events::ServiceHealth {
                    unknown: change.health.unknown,
                    healthy: change.health.healthy,
                    message: change.health.last_message,
                }),
            }),
            Err(tokio::sync::broadcast::error::RecvError::Lagged(missed)) => {
                tracing::warn!(missed, "service events were missed");
            }
            Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
        }
    }
}
