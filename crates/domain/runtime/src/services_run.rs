//! Decides which services run, and with what, from resources.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use resources::config::MachineType;
use resources::etcd::{EtcdSpec, PkiStatus};
use resources::k8s::KubeletSpec;
use resources::secrets::{ApiCertificate, TrustdCertificate};
use resources::time::TimeStatus;
use supervisor::{LogStore, Supervisor};
use tokio::sync::watch;

use crate::bootstrap::BootstrapGate;
use crate::services::oci::Bind;
use crate::services::{
    APID_USER, DaemonService, DaemonSpec, EtcdService, EtcdSettings, KubeletService, KubeletSettings, Runtime,
    TRUSTD_USER, group, oom,
};

/// The kubelet as it is to run.
#[derive(Debug, Clone, PartialEq)]
pub struct WantedKubelet {
    pub spec: KubeletSpec,
    /// Changes when a file changes that the kubelet reads only when it starts.
    pub revision: u64,
}

/// `runtime.ServicesController`: apid, trustd, etcd and kubelet, each once what it needs is there; a service whose
/// settings changed is replaced.
#[derive(Debug)]
pub struct ServicesController {
    supervisor: Supervisor,
    runtime: Runtime,
    gate: BootstrapGate,
    etcd: Option<EtcdSettings>,
    kubelet: Option<(KubeletSettings, u64)>,
    kubelet_wanted: watch::Receiver<Option<WantedKubelet>>,
    watching: bool,
    apid: bool,
    trustd: bool,
}

impl ServicesController {
    /// `kubelet_wanted` is set once the files of the kubelet are in place.
    pub fn new(
        supervisor: Supervisor,
        runtime: Runtime,
        gate: BootstrapGate,
        kubelet_wanted: watch::Receiver<Option<WantedKubelet>>,
    ) -> Self {
        Self {
            supervisor,
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
