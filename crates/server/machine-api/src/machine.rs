//! What the API needs of the machine, as handles and small traits.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use containers::{Containerd, ContainerdError, Namespace};
use controller::Runtime;
use resources::machine::PlatformCapabilities;
use sequencer::EventBus;
use state::Store;
use stdx::Clock;
use supervisor::{Supervisor, logs::LogStore};
use tonic::Status;

/// Any error, for traits whose implementations are elsewhere.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Reboots the machine.
pub trait RebootRequests: Debug + Send + Sync {
    /// Asks for a reboot that takes over whatever else the machine is doing. It begins after this call has been answered.
    ///
    /// # Errors
    /// The machine cannot be rebooted now.
    fn request_reboot(&self) -> Result<(), BoxError>;
}

/// Why a node does not start a new etcd cluster.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapRefused {
    /// It has one, or is starting one.
    #[error("{0}")]
    AlreadyDone(String),
    /// It cannot yet, or never can.
    #[error("{0}")]
    NotPossible(String),
}

/// Starts a new etcd cluster on this node, once.
#[async_trait]
pub trait BootstrapSink: Debug + Send + Sync {
    /// Lets etcd start a new cluster.
    ///
    /// # Errors
    /// [`BootstrapRefused`].
    async fn bootstrap(&self) -> Result<(), BootstrapRefused>;
}

/// The members of etcd as this node sees them.
#[async_trait]
pub trait EtcdMembers: Debug + Send + Sync {
    /// All members.
    ///
    /// # Errors
    /// etcd does not answer, or this node has no certificate for it.
    async fn members(&self) -> Result<Vec<etcd_edge::Member>, BoxError>;
}

/// Lists containers.
#[async_trait]
pub trait ContainerList: Debug + Send + Sync {
    /// The containers of a namespace.
    ///
    /// # Errors
    /// containerd does not answer.
    async fn containers(
        &self,
        namespace: Namespace,
    ) -> Result<Vec<containers::containerd::ContainerInfo>, ContainerdError>;
}

#[async_trait]
impl ContainerList for Containerd {
    async fn containers(
        &self,
        namespace: Namespace,
    ) -> Result<Vec<containers::containerd::ContainerInfo>, ContainerdError> {
        self.namespace(namespace).containers().await
    }
}

impl Machine {
    /// What this machine owns.
    ///
    /// # Errors
    /// UNAVAILABLE in the moment before it is known.
    pub(crate) fn capabilities(&self) -> Result<PlatformCapabilities, Status> {
        let found = self.store.get_as::<PlatformCapabilities>(PlatformCapabilities::ID).ok().flatten();
        let found = found.ok_or_else(|| Status::unavailable("the platform of this machine is not known yet"))?;
        Ok(PlatformCapabilities::clone(&found))
    }

    /// Asks for the reboot with which a persisted configuration takes effect.
    ///
    /// # Errors
    /// INTERNAL; the configuration is persisted all the same.
    pub(crate) fn reboot_for_configuration(&self) -> Result<(), Status> {
        self.reboots.request_reboot().map_err(|error| {
            let error = stdx::error_chain(error.as_ref());
            Status::internal(format!("the configuration is persisted, but the machine does not reboot: {error}"))
        })
    }
}

/// The machine behind the API. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Machine {
    /// All resources.
    pub store: Store,
    /// The controllers.
    pub controllers: Runtime,
    /// The services.
    pub supervisor: Supervisor,
    /// What services print.
    pub logs: LogStore,
    /// What happens.
    pub events: EventBus,
    /// Containers.
    pub containers: Arc<dyn ContainerList>,
    /// What a configuration that needs a reboot asks for.
    pub reboots: Arc<dyn RebootRequests>,
    /// The one bootstrap.
    pub bootstrap: Arc<dyn BootstrapSink>,
    /// etcd.
    pub etcd: Arc<dyn EtcdMembers>,
    /// Kubernetes, for health checks.
    pub kubernetes: Arc<dyn kube_edge::Connect>,
    /// Stamps certificates.
    pub clock: Arc<dyn Clock>,
}
