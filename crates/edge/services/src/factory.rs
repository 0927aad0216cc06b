//! Makes services from their specs: what a spec leaves open (privileges, control group, health, dependencies) follows from
//! the service's name.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use resources::lifecycle::ServiceSpec;
use supervisor::Service;

use crate::oci::Bind;
use crate::{
    BootstrapGate, ContainerdService, DaemonService, DaemonSpec, EtcdService, KubeletService, KubeletSettings, Runtime,
    group, oom,
};

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
}

/// The services of a node.
#[derive(Debug, Clone)]
pub struct NodeServices {
    pub runtime: Runtime,
    pub gate: BootstrapGate,
    /// Where containerd listens.
    pub containerd_socket: PathBuf,
    /// Where etcd keeps its data.
    pub etcd_data: PathBuf,
}

impl ServiceFactory for NodeServices {
    fn service(&self, id: &str, spec: &ServiceSpec) -> Result<Arc<dyn Service>, FactoryError> {
        let logs = self.runtime.logs.clone();
        let port = |port| Some(SocketAddr::from(([127, 0, 0, 1], port)));
        Ok(match id {
            "containerd" => {
                let daemon = daemon("containerd", spec, oom::CONTAINERD, group::RUNTIME, None);
                Arc::new(ContainerdService::new(daemon, &self.containerd_socket, logs))
            }
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
                Arc::new(EtcdService::new(image, args, self.etcd_data.clone(), self.runtime.clone(), self.gate.clone()))
            }
            "kubelet" => {
                let binds = spec.mounts.iter().map(|mount| Bind {
                    source: mount.source.clone(),
                    destination: mount.destination.clone(),
                    options: mount.options.clone(),
                });
                let (image, args) = (spec.image.clone(), spec.args.clone());
                let settings = KubeletSettings { image, args, extra_binds: binds.collect() };
                Arc::new(KubeletService::new(settings, self.runtime.clone(), Vec::new()))
            }
            other => return Err(FactoryError::Unknown(other.to_owned())),
        })
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
        oom_score_adj,
        cgroup,
        depends_on: Vec::new(),
        listens_on,
    }
}
