//! The API's dependencies on the machine, as handles and small traits.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use containers::{Containerd, ContainerdError, Namespace};
use controller::Runtime;
use resources::MachineType;
use resources::machine::{MaintenanceAccess, MaintenanceClients, PlatformCapabilities};
use sequencer::{ActorId, EventBus, Lifecycle, Refused, Request, ResetParameters, Sequence, SequenceId};
use state::Store;
use stdx::{Clock, Secret};
use supervisor::{Supervisor, logs::LogStore};
use tonic::Status;
use tonic::metadata::MetadataMap;

use crate::access::{has_no_role, is_admin, not_in_maintenance_mode};

/// How long a machine runs on after it took a configuration that needs a reboot (Talos 1.7).
const REBOOT_AFTER_APPLY: Duration = Duration::from_secs(10);

/// Any error, for traits whose implementations are elsewhere.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

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

/// Why a value of META was not changed.
#[derive(Debug, thiserror::Error)]
pub enum MetaRefused {
    /// No value can have this key.
    #[error("{0}")]
    Invalid(String),
    /// There is no room for it.
    #[error("{0}")]
    Full(String),
    /// There is no value to delete.
    #[error("{0}")]
    Absent(String),
    /// META was not read yet, or cannot be written.
    #[error("{0}")]
    Unavailable(String),
}

/// Values of the META partition.
#[async_trait]
pub trait MetaValues: Debug + Send + Sync {
    /// Sets a value.
    ///
    /// # Errors
    /// [`MetaRefused`].
    async fn set(&self, key: u8, value: Vec<u8>) -> Result<(), MetaRefused>;

    /// Deletes a value.
    ///
    /// # Errors
    /// [`MetaRefused`].
    async fn delete(&self, key: u8) -> Result<(), MetaRefused>;
}

/// Why a request about keys of a volume is refused.
#[derive(Debug, thiserror::Error)]
pub enum VolumeKeysRefused {
    /// There is no such encrypted volume.
    #[error("{0}")]
    Absent(String),
    /// It is not possible as the volume is.
    #[error("{0}")]
    NotPossible(String),
    /// Disks, the TPM or a key service do not do their part.
    #[error("{0}")]
    Unavailable(String),
}

/// The slots of a volume.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VolumeSlots {
    /// With the kind of each key; empty for an unknown one.
    pub slots: Vec<(u32, String)>,
    /// Whether the volume is open.
    pub is_open: bool,
    /// What is wrong with it; empty for nothing.
    pub reason: String,
}

/// Keys of encrypted volumes, by the label of the volume.
#[async_trait]
pub trait VolumeKeys: Debug + Send + Sync {
    /// Its slots, also while it is closed.
    ///
    /// # Errors
    /// [`VolumeKeysRefused`].
    async fn slots(&self, volume: &str) -> Result<VolumeSlots, VolumeKeysRefused>;

    /// Adds a recovery key; its slot, and the only copy of it.
    ///
    /// # Errors
    /// [`VolumeKeysRefused`].
    async fn add_recovery_key(&self, volume: &str) -> Result<(u32, Secret<String>), VolumeKeysRefused>;

    /// Opens a closed volume.
    ///
    /// # Errors
    /// [`VolumeKeysRefused`].
    async fn unlock(&self, volume: &str, key: Secret<String>) -> Result<(), VolumeKeysRefused>;

    /// Seals the TPM's keys anew; their slots.
    ///
    /// # Errors
    /// [`VolumeKeysRefused`].
    async fn rebind(&self, volume: &str) -> Result<Vec<u32>, VolumeKeysRefused>;
}

/// Why a reset is not asked for.
#[derive(Debug, thiserror::Error)]
pub enum ResetRefused {
    /// What is named is nothing that this reset could wipe.
    #[error("{0}")]
    Invalid(String),
    /// There is no such disk or partition.
    #[error("{0}")]
    Absent(String),
    /// It cannot be wiped as it is.
    #[error("{0}")]
    NotPossible(String),
}

/// The disks that a reset wipes.
#[async_trait]
pub trait ResetTargets: Debug + Send + Sync {
    /// Whether all of them could be wiped once the machine has stopped all that it runs.
    ///
    /// # Errors
    /// [`ResetRefused`], with the name of the disk or partition.
    async fn check(&self, reset: &ResetParameters) -> Result<(), ResetRefused>;
}

/// Why a machine keeps the version that it has.
#[derive(Debug, thiserror::Error)]
pub enum VersionsError {
    /// The image cannot be pulled, or does not run here.
    #[error("{0}")]
    Image(String),
    /// There is no other version, or none that may be started.
    #[error("{0}")]
    NotPossible(String),
}

/// The versions of the system on this machine.
#[async_trait]
pub trait Versions: Debug + Send + Sync {
    /// Has an installer image ready to run.
    ///
    /// # Errors
    /// [`VersionsError`]; nothing of the machine has changed.
    async fn fetch(&self, image: &str) -> Result<(), VersionsError>;

    /// Drops an image that is ready.
    fn forget(&self);

    /// Has the boot loader start the other version, whose name is returned.
    ///
    /// # Errors
    /// [`VersionsError`].
    async fn roll_back(&self) -> Result<String, VersionsError>;
}

/// The members of etcd as this node sees them.
#[async_trait]
pub trait EtcdMembers: Debug + Send + Sync {
    /// All members.
    ///
    /// # Errors
    /// etcd does not answer, or this node has no certificate for it.
    async fn members(&self) -> Result<Vec<etcd_edge::Member>, BoxError>;

    /// Whether this node could leave etcd now; a node that is no member has nothing to leave.
    ///
    /// # Errors
    /// It is the last member, there is no quorum, or etcd does not answer.
    async fn can_leave(&self) -> Result<(), BoxError>;

    /// Has the cluster do without this node for a while, or for good where its data is not preserved. No other node goes away
    /// meanwhile. A node that is no member is not needed.
    ///
    /// # Errors
    /// There are members that are not healthy, too few without it, or no quorum; another node is away; etcd does not answer.
    async fn go_away(&self, preserve: bool) -> Result<Box<dyn Away>, BoxError>;
}

/// The permission of the cluster to go away. Dropped, it ends within seconds.
#[async_trait]
pub trait Away: Debug + Send {
    /// Ends it: this node stays.
    async fn stay(self: Box<Self>);

    /// Keeps it until the sequence has ended and the machine runs on, or until etcd on this node ends.
    fn until_the_end_of(self: Box<Self>, sequence: SequenceId);
}

/// Asks for sequences of the machine: reboot, reset and others.
pub trait SequenceRequests: Debug + Send + Sync {
    /// Asks for one; it starts after this returned. The caller's actor id is that of all its events.
    ///
    /// # Errors
    /// [`Refused`]; that another sequence runs is an event of the actor as well.
    fn request(&self, request: Request) -> Result<SequenceId, Refused>;

    /// Asks for one when that much time has passed. A refusal is an event of the actor.
    fn request_after(&self, delay: Duration, request: Request);
}

impl SequenceRequests for Lifecycle {
    fn request(&self, request: Request) -> Result<SequenceId, Refused> {
        Self::request(self, request)
    }

    fn request_after(&self, delay: Duration, request: Request) {
        let lifecycle = self.clone();
        let later = async move {
            tokio::time::sleep(delay).await;
            lifecycle.request(request).ok();
        };
        // It ends with its delay.
        stdx::tasks::spawn("delayed sequence", later).detach();
    }
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
    /// Capabilities of this machine.
    ///
    /// # Errors
    /// UNAVAILABLE in the moment before it is known.
    pub(crate) fn capabilities(&self) -> Result<PlatformCapabilities, Status> {
        let found = self.store.get_as::<PlatformCapabilities>(PlatformCapabilities::ID).ok().flatten();
        let found = found.ok_or_else(|| Status::unavailable("the platform of this machine is not known yet"))?;
        Ok(PlatformCapabilities::clone(&found))
    }

    /// Refuses what only a control plane node can answer; `method` is its name for people.
    ///
    /// # Errors
    /// UNIMPLEMENTED on a worker, in the words of Talos 1.7.
    pub(crate) fn only_on_control_planes(&self, method: &str) -> Result<(), Status> {
        let kind = self.store.get_as::<MachineType>(MachineType::ID).ok().flatten();
        match kind.as_deref() {
            Some(MachineType::Worker) => {
                Err(Status::unimplemented(format!("{method} is only available on control plane nodes")))
            }
            Some(MachineType::ControlPlane | MachineType::Init | MachineType::Unknown) | None => Ok(()),
        }
    }

    /// Refuses callers that are no administrators, on a machine that has state: maintenance mode has unauthenticated clients. One
    /// without state of any cluster takes a configuration of anybody, and with it the same changes.
    ///
    /// # Errors
    /// UNIMPLEMENTED, in the words of Talos 1.7, which serves such methods in maintenance mode over SideroLink alone.
    pub(crate) fn only_for_administrators_of_state(&self, metadata: &MetadataMap) -> Result<(), Status> {
        if is_admin(metadata) {
            return Ok(());
        }
        let access = self.store.get_as::<MaintenanceAccess>(MaintenanceAccess::ID).ok().flatten();
        match access.map(|access| access.clients) {
            // Whoever has a role has one of a cluster, and it is not enough.
            Some(MaintenanceClients::Anybody) if has_no_role(metadata) => Ok(()),
            Some(MaintenanceClients::Anybody | MaintenanceClients::Administrators | MaintenanceClients::Nobody)
            | None => Err(not_in_maintenance_mode()),
        }
    }

    /// Refuses callers without the role of an administrator, whatever the machine's state is: clients of maintenance mode.
    ///
    /// # Errors
    /// UNIMPLEMENTED, as [`only_for_administrators_of_state`](Self::only_for_administrators_of_state).
    pub(crate) fn only_for_administrators(metadata: &MetadataMap) -> Result<(), Status> {
        if is_admin(metadata) { Ok(()) } else { Err(not_in_maintenance_mode()) }
    }

    /// Whether the machine waits for a configuration.
    pub(crate) fn is_in_maintenance(&self) -> bool {
        self.store.get_as::<MaintenanceAccess>(MaintenanceAccess::ID).is_ok_and(|access| access.is_some())
    }

    /// Asks for the reboot with which a persisted configuration takes effect. It takes over whatever else runs.
    ///
    /// # Errors
    /// INTERNAL; the configuration is persisted all the same.
    pub(crate) fn reboot_for_configuration(&self) -> Result<(), Status> {
        let actor = sys::host::random_uuid().map_err(|error| {
            Status::internal(format!("the configuration is persisted, but not rebooted for: {error}"))
        })?;
        let reboot = Request::new(Sequence::Reboot, ActorId::new(actor)).taking_over();
        self.lifecycle.request_after(REBOOT_AFTER_APPLY, reboot);
        Ok(())
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
    /// Logs of services.
    pub logs: LogStore,
    /// Events.
    pub events: EventBus,
    /// Sequences of the machine.
    pub lifecycle: Arc<dyn SequenceRequests>,
    /// Containers.
    pub containers: Arc<dyn ContainerList>,
    /// The one bootstrap.
    pub bootstrap: Arc<dyn BootstrapSink>,
    /// etcd.
    pub etcd: Arc<dyn EtcdMembers>,
    /// META.
    pub meta: Arc<dyn MetaValues>,
    /// Keys of encrypted volumes.
    pub volume_keys: Arc<dyn VolumeKeys>,
    /// Versions of the system.
    pub versions: Arc<dyn Versions>,
    /// Disks that a reset wipes.
    pub reset_targets: Arc<dyn ResetTargets>,
    /// Kubernetes, for health checks.
    pub kubernetes: Arc<dyn kube_edge::Connect>,
    /// Asks time servers.
    pub time_servers: Arc<dyn ntp::Ask>,
    /// Stamps certificates.
    pub clock: Arc<dyn Clock>,
}
