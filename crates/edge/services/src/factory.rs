//! Builds services from their specs: settings that a spec leaves open (privileges, control group, health, dependencies)
//! follow from the service's name.

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use resources::lifecycle::ServiceSpec;
use stdx::Backoff;
use supervisor::Service;

use crate::oci::Mount;
use crate::{
    BootstrapGate, ContainerdService, DaemonService, DaemonSpec, ETCD_DATA, EtcdService, KubeletService,
    KubeletSettings, Runtime, SyslogdService, UdevdService, WITHHELD, WITHHELD_FROM_UDEVD, group, oom,
};

/// Between two tries to fetch an image ahead: at first containerd may not be up yet.
const PREFETCH_PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(15));
/// After so many the start of the service says what is wrong.
const PREFETCH_TRIES: u32 = 20;

/// Why there is no service for a spec.
#[derive(Debug, thiserror::Error)]
pub enum FactoryError {
    #[error("service {0:?} is none that this machine can run")]
    Unknown(String),
}

/// Makes services.
pub trait ServiceFactory: Send + Sync + 'static {
    /// The service `id`, as `spec` says.
    ///
    /// # Errors
    /// [`FactoryError`].
    fn service(&self, id: &str, spec: &ServiceSpec) -> Result<Arc<dyn Service>, FactoryError>;

    /// Brings in what a service that may not start yet will need; none where there is nothing to bring. It ends by itself,
    /// and whether it succeeded shows when the service starts.
    fn prefetch(&self, _spec: &ServiceSpec) -> Option<Prefetch> {
        None
    }
}

/// A task that brings something in.
pub type Prefetch = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The services of a node.
#[derive(Debug, Clone)]
pub struct NodeServices {
    pub runtime: Runtime,
    pub gate: BootstrapGate,
    /// Where containerd listens.
    pub containerd_socket: PathBuf,
}

impl ServiceFactory for NodeServices {
    fn service(&self, id: &str, spec: &ServiceSpec) -> Result<Arc<dyn Service>, FactoryError> {
        let logs = self.runtime.logs.clone();
        let port = |port| Some(SocketAddr::from(([127, 0, 0, 1], port)));
        let volume = PathBuf::from(&spec.volume);
        Ok(match id {
            "containerd" => {
                let daemon = daemon("containerd", spec, oom::CONTAINERD, group::RUNTIME, None);
                Arc::new(ContainerdService::new(daemon, &self.containerd_socket, logs))
            }
            "udevd" => {
                let daemon = daemon("udevd", spec, oom::UDEVD, group::UDEVD, None);
                let daemon = DaemonSpec { withheld: &WITHHELD_FROM_UDEVD, ..daemon };
                Arc::new(UdevdService::new(daemon, logs))
            }
            "syslogd" => Arc::new(SyslogdService::new(logs)),
            "apid" => {
                let daemon = daemon("apid", spec, oom::APID, group::APID, port(50000));
                Arc::new(DaemonService::new(daemon, Vec::new(), logs))
            }
            "trustd" => {
                let daemon = daemon("trustd", spec, oom::TRUSTD, group::TRUSTD, port(50001));
                Arc::new(DaemonService::new(daemon, Vec::new(), logs))
            }
            "etcd" => {
                let (image, args) = (spec.image.clone(), spec.args.clone());
                let data = volume.join(ETCD_DATA);
                let service = EtcdService::new(image, args, data, self.runtime.clone(), self.gate.clone());
                Arc::new(service.with_environment(spec.environment.clone()))
            }
            "kubelet" => {
                let (image, args) = (spec.image.clone(), spec.args.clone());
                let extra_mounts = spec.mounts.iter().map(Mount::from).collect();
                let settings =
                    KubeletSettings { image, args, extra_mounts, environment: spec.environment.clone(), volume };
                Arc::new(KubeletService::new(settings, self.runtime.clone(), Vec::new()))
            }
            other => return Err(FactoryError::Unknown(other.to_owned())),
        })
    }

    fn prefetch(&self, spec: &ServiceSpec) -> Option<Prefetch> {
        if spec.image.is_empty() {
            return None;
        }
        let (runtime, image) = (self.runtime.clone(), spec.image.clone());
        Some(Box::pin(async move {
            let mut backoff = Backoff::new(PREFETCH_PAUSES.0, PREFETCH_PAUSES.1);
            while backoff.attempts() < PREFETCH_TRIES {
                match runtime.pull(&image).await {
                    Ok(()) => return,
                    Err(error) => {
                        tracing::debug!(image, error = stdx::error_chain(&*error), "image is not fetched yet");
                    }
                }
                tokio::time::sleep(backoff.next_delay(stdx::backoff::random_jitter())).await;
            }
        }))
    }
}

fn daemon(
    id: &'static str,
    spec: &ServiceSpec,
    oom_score_adj: i32,
    cgroup: &'static str,
    listens_on: Option<SocketAddr>,
) -> DaemonSpec {
    let environment = spec.environment.iter().filter_map(|variable| variable.split_once('='));
    DaemonSpec {
        id,
        program: PathBuf::from(&spec.program),
        args: spec.args.clone(),
        environment: environment.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        user: (spec.user != 0).then_some(spec.user),
        withheld: &WITHHELD,
        oom_score_adj,
        cgroup,
        depends_on: Vec::new(),
        listens_on,
    }
}
