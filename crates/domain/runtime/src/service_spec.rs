//! Decides which services run, and with what, from resources.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use resources::config::MachineType;
use resources::etcd::{EtcdSpec, PkiStatus};
use resources::files::EtcFileStatus;
use resources::k8s::KubeletSpec;
use resources::secrets::{ApiCertificate, TrustdCertificate};
use resources::time::TimeStatus;
use supervisor::{LogStore, Service, Supervisor};
use tokio::sync::watch;

use crate::cri_parts::{CONTAINERD_FILE, FIRST_VERSION};
use services::oci::Bind;
use services::{
    APID_USER, BootstrapGate, DaemonService, DaemonSpec, EtcdService, EtcdSettings, KubeletService, KubeletSettings,
    Runtime, TRUSTD_USER, group, oom,
};

/// The kubelet as it is to run.
#[derive(Debug, Clone, PartialEq)]
pub struct WantedKubelet {
    pub spec: KubeletSpec,
    /// Changes when a file changes that the kubelet reads only when it starts.
    pub revision: u64,
}

/// `runtime.ServicesController`: apid, trustd, etcd and kubelet, each once what it needs is there; a service whose
/// settings changed is replaced. containerd, which the boot sequence starts, is replaced with its configuration file.
pub struct ServicesController {
    supervisor: Supervisor,
    containerd: Arc<dyn Service>,
    /// The version of the file that it was started with.
    containerd_file: String,
    runtime: Runtime,
    gate: BootstrapGate,
    etcd: Option<EtcdSettings>,
    kubelet: Option<(KubeletSettings, u64)>,
    kubelet_wanted: watch::Receiver<Option<WantedKubelet>>,
    watching: bool,
    apid: bool,
    trustd: bool,
}

impl std::fmt::Debug for ServicesController {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServicesController").finish_non_exhaustive()
    }
}

impl ServicesController {
    /// `containerd` is what the boot sequence starts; `kubelet_wanted` is set once the files of the kubelet are in place.
    pub fn new(
        supervisor: Supervisor,
        containerd: Arc<dyn Service>,
        runtime: Runtime,
        gate: BootstrapGate,
        kubelet_wanted: watch::Receiver<Option<WantedKubelet>>,
    ) -> Self {
        Self {
            supervisor,
            containerd,
            containerd_file: FIRST_VERSION.to_owned(),
            runtime,
            gate,
            etcd: None,
            kubelet: None,
            kubelet_wanted,
            watching: false,
            apid: false,
            trustd: false,
        }
    }
}

#[async_trait]
impl Controller for ServicesController {
    fn name(&self) -> &'static str {
        "runtime.ServicesController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![
            Input::weak::<EtcFileStatus>().id(CONTAINERD_FILE),
            Input::weak::<MachineType>(),
            Input::weak::<TimeStatus>(),
            Input::weak::<ApiCertificate>(),
            Input::weak::<TrustdCertificate>(),
            Input::weak::<EtcdSpec>(),
            Input::weak::<PkiStatus>(),
        ]
    }

    fn outputs(&self) -> Vec<Output> {
        Vec::new()
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        if !self.watching {
            let (waker, mut wanted) = (ctx.waker(), self.kubelet_wanted.clone());
            ctx.spawn("kubelet changes", async move {
                while wanted.changed().await.is_ok() {
                    waker.wake();
                }
            });
            self.watching = true;
        }
        self.containerd(ctx).await?;
        if !self.apid && ctx.get::<ApiCertificate>(ApiCertificate::ID)?.is_some() {
            self.supervisor.ensure(Arc::new(apid(&self.runtime.logs)));
            self.apid = true;
        }
        let is_control_plane = ctx.get::<MachineType>(MachineType::ID)?.is_some_and(|kind| kind.is_control_plane());
        if is_control_plane && !self.trustd && ctx.get::<TrustdCertificate>(TrustdCertificate::ID)?.is_some() {
            self.supervisor.ensure(Arc::new(trustd(&self.runtime.logs)));
            self.trustd = true;
        }
        if !ctx.get::<TimeStatus>(TimeStatus::ID)?.is_some_and(|time| time.synced) {
            // etcd and the kubelet rely on the clock.
            return Ok(());
        }
        if is_control_plane {
            self.etcd(ctx).await?;
        }
        self.kubelet().await;
        Ok(())
    }
}

impl ServicesController {
    /// Containers go on while their containerd is replaced.
    async fn containerd(&mut self, ctx: &Ctx) -> Result<(), ReconcileError> {
        let Some(file) = ctx.get::<EtcFileStatus>(CONTAINERD_FILE)? else { return Ok(()) };
        if self.containerd_file != file.spec_version {
            tracing::info!("containerd starts anew for its changed configuration");
            self.supervisor.replace(Arc::clone(&self.containerd)).await;
            self.containerd_file.clone_from(&file.spec_version);
        }
        Ok(())
    }

    async fn etcd(&mut self, ctx: &Ctx) -> Result<(), ReconcileError> {
        let Some(spec) = ctx.get::<EtcdSpec>(EtcdSpec::ID)? else { return Ok(()) };
        if !ctx.get::<PkiStatus>(PkiStatus::ID)?.is_some_and(|pki| pki.ready) {
            return Ok(());
        }
        let settings = EtcdSettings {
            image: spec.image.clone(),
            name: spec.name.clone(),
            advertised: spec.advertised_addresses.clone(),
            listen_peer: spec.listen_peer_addresses.clone(),
            listen_client: spec.listen_client_addresses.clone(),
            extra_args: spec.extra_args.clone().into_iter().collect(),
            data_directory: PathBuf::from("/var/lib/etcd"),
        };
        if self.etcd.as_ref() != Some(&settings) {
            let service = EtcdService::new(settings.clone(), self.runtime.clone(), self.gate.clone());
            self.supervisor.replace(Arc::new(service)).await;
            self.etcd = Some(settings);
        }
        Ok(())
    }

    async fn kubelet(&mut self) {
        let Some(WantedKubelet { spec, revision }) = self.kubelet_wanted.borrow_and_update().clone() else { return };
        let binds = spec.extra_mounts.into_iter().map(|mount| Bind {
            source: mount.source,
            destination: mount.destination,
            options: mount.options,
        });
        let settings = KubeletSettings { image: spec.image, args: spec.args, extra_binds: binds.collect() };
        let wanted = (settings, revision);
        if self.kubelet.as_ref() != Some(&wanted) {
            let service = KubeletService::new(wanted.0.clone(), self.runtime.clone(), Vec::new());
            self.supervisor.replace(Arc::new(service)).await;
            self.kubelet = Some(wanted);
        }
    }
}

fn apid(logs: &LogStore) -> DaemonService {
    let spec = DaemonSpec {
        id: "apid",
        program: "/usr/bin/apid".into(),
        args: Vec::new(),
        environment: Vec::new(),
        user: Some(APID_USER),
        oom_score_adj: oom::APID,
        cgroup: group::APID,
        depends_on: Vec::new(),
        listens_on: Some(SocketAddr::from(([127, 0, 0, 1], 50000))),
    };
    DaemonService::new(spec, Vec::new(), logs.clone())
}

fn trustd(logs: &LogStore) -> DaemonService {
    let spec = DaemonSpec {
        id: "trustd",
        program: "/usr/bin/trustd".into(),
        args: Vec::new(),
        environment: Vec::new(),
        user: Some(TRUSTD_USER),
        oom_score_adj: oom::TRUSTD,
        cgroup: group::TRUSTD,
        depends_on: Vec::new(),
        listens_on: Some(SocketAddr::from(([127, 0, 0, 1], 50001))),
    };
    DaemonService::new(spec, Vec::new(), logs.clone())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use containers::{Containerd, Namespace, Registries};
    use controller::testing::Harness;
    use parking_lot::Mutex;
    use stdx::SystemClock;
    use supervisor::{RunContext, ServiceError};

    use super::*;

    /// Counts how often it is started.
    #[derive(Default)]
    struct Fake(Arc<Mutex<usize>>);

    #[async_trait]
    impl Service for Fake {
        fn id(&self) -> &str {
            "containerd"
        }

        async fn run(&self, run: RunContext) -> Result<(), ServiceError> {
            *self.0.lock() += 1;
            run.running("up");
            run.cancel.cancelled().await;
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn containerd_starts_anew_when_its_file_is_another() {
        let starts = Arc::new(Mutex::new(0));
        let containerd: Arc<dyn Service> = Arc::new(Fake(Arc::clone(&starts)));
        let supervisor = Supervisor::new(Arc::new(SystemClock));
        supervisor.ensure(Arc::clone(&containerd));
        let runtime = Runtime {
            containerd: Containerd::new(Path::new("/nowhere"), Namespace::System),
            registries: Arc::new(Registries::default),
            logs: LogStore::default(),
            pipes: PathBuf::new(),
        };
        let (_kubelet, wanted) = watch::channel(None);
        let gate = BootstrapGate::default();
        let harness = Harness::with(ServicesController::new(supervisor.clone(), containerd, runtime, gate, wanted));
        for (version, expected) in [(FIRST_VERSION, 1), ("1", 2), ("1", 2), ("2", 3)] {
            harness.put(CONTAINERD_FILE, EtcFileStatus { spec_version: version.to_owned() });
            harness.settle().await;
            assert_eq!(*starts.lock(), expected, "version {version}");
        }
        assert!(supervisor.get("containerd").unwrap().is_up());
    }
}
