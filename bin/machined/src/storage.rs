//! Disks of the machine, where they are its own: the controllers that look after them, steps of plans that need more than a
//! volume, and the API's access to META.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use block::luks::Cryptsetup;
use block::slots::BootLoader;
use block::{BlockDevices, KernelBlockDevices, KernelDeviceGroups, KernelFileSystems, ProjectQuota};
use controller::Controller;
use domain_runtime::crash_records::{self, CrashRecordController};
use domain_storage::{
    DevicesController, DiscoveryController, Leave, MetaController, MetaError, MetaHandle, Places, SealEdges,
    TrialEdges, TrialWatchdogs, UniqueMachineTokenController, UpgradeTrialController, UserDiskController, UserDisks,
    VolumeController, VolumeEdges, VolumeKeys, VolumeKeysError, arrays,
};
use kms_client::GrpcKeyService;
use machine::cmdline::{self, Cmdline};
use machine::meta::{self, Assignment, SetError};
use machine_api::{MetaRefused, MetaValues, VolumeKeysRefused, VolumeSlots};
use resources::block::SystemDisk;
use resources::config::MachineConfig;
use sequencer::TaskError;
use state::Store;
use stdx::{Secret, error_chain};

/// The variable with the values of META that the image brings.
pub(crate) const PRESET: &str = "INSTALLER_META_BASE64=";

/// Certificate authorities of key services.
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";
/// Where the start of a signed UKI leaves the key and the signatures of its measurements.
const SIGNED_MEASUREMENTS: &str = "/.extra";

/// How often, and after which time, META is asked again while it was not read yet.
const NOT_LOADED_LOOKS: u32 = 20;
const NOT_LOADED_LOOK: Duration = Duration::from_millis(500);

/// Access to the machine's disks.
#[derive(Debug, Clone)]
pub(crate) struct Storage {
    edges: VolumeEdges,
    user_disks: UserDisks,
    meta: MetaHandle,
    keys: VolumeKeys,
    trial: TrialEdges,
}

/// Empty on a machine whose disks are its host's.
pub(crate) type StorageSlot = Arc<OnceLock<Storage>>;

/// The controllers of the machine's disks, and the access to them.
///
/// # Errors
/// The kernel's events cannot be heard.
pub(crate) fn make(
    loader: Arc<dyn BootLoader>,
    leave: Arc<dyn Leave>,
    watchdogs: Arc<dyn TrialWatchdogs>,
) -> anyhow::Result<(Storage, Vec<Box<dyn Controller>>)> {
    let block = Arc::new(KernelBlockDevices::new().context("looking at the machine's disks")?);
    let edges = VolumeEdges {
        devices: block.clone(),
        filesystems: Arc::new(KernelFileSystems),
        tables: block.clone(),
        groups: Arc::new(KernelDeviceGroups),
    };
    let (controller, meta) = MetaController::new(block.clone(), preset());
    let seal = SealEdges {
        luks: Arc::new(Cryptsetup::default()),
        services: Arc::new(GrpcKeyService::new(AUTHORITIES)),
        tpm: Arc::new(tpm::Device::new(tpm::DEVICE, SIGNED_MEASUREMENTS)),
        meta: meta.clone(),
    };
    let trial = TrialEdges { loader, meta: meta.clone(), leave, watchdogs };
    let (user_disk_controller, user_disks) = UserDiskController::new(edges.clone());
    let (volume_controller, keys) = VolumeController::new(edges.clone(), seal, Places::default());
    let controllers: Vec<Box<dyn Controller>> = vec![
        Box::new(user_disk_controller),
        Box::new(CrashRecordController::new(crash_records::STORE)),
        Box::new(UpgradeTrialController::new(trial.clone())),
        Box::new(DevicesController::new(block.clone())),
        Box::new(DiscoveryController::new(block)),
        Box::new(volume_controller),
        Box::new(controller),
        Box::new(UniqueMachineTokenController),
    ];
    Ok((Storage { edges, user_disks, meta, keys, trial }, controllers))
}

/// Values of META on the kernel's command line; what cannot be read is logged and left out.
fn preset() -> Vec<Assignment> {
    let arguments = std::fs::read_to_string("/proc/cmdline").map(|text| Cmdline::parse(&text)).unwrap_or_default();
    let text = arguments.values(cmdline::ENVIRONMENT).find_map(|value| value.strip_prefix(PRESET));
    text.map_or_else(Vec::new, |text| {
        meta::decode_preset(text).unwrap_or_else(|error| {
            tracing::warn!(error = error_chain(&error), "values of META that the image brings are not used");
            Vec::new()
        })
    })
}

/// The machine's disks and partitions.
///
/// # Errors
/// They are its host's.
pub(crate) fn devices(storage: &StorageSlot) -> Result<Arc<dyn BlockDevices>, TaskError> {
    let storage = storage.get().ok_or("the disks of this machine are its host's")?;
    Ok(Arc::clone(&storage.edges.devices))
}

/// Partitions, formats and mounts the disks of `machine.disks`.
///
/// # Errors
/// A disk is absent, not empty, or too small.
pub(crate) async fn mount_user_disks(store: &Store, storage: &StorageSlot) -> Result<(), TaskError> {
    let Some(storage) = storage.get() else { return Ok(()) };
    let active = store.get_as::<MachineConfig>(MachineConfig::ACTIVE_ID)?;
    let Some(config) = MachineConfig::root_of(active.as_deref())? else { return Ok(()) };
    let system = store.get_as::<SystemDisk>(SystemDisk::ID)?.map(|system| system.disk.clone()).unwrap_or_default();
    let quota = if config.machine().disk_quota_support() { ProjectQuota::On } else { ProjectQuota::Off };
    Ok(storage.user_disks.mount(&config.machine().disks, &system, quota).await?)
}

/// Unmounts the disks of `machine.disks`.
///
/// # Errors
/// Something is in use.
pub(crate) async fn unmount_user_disks(store: &Store, storage: &StorageSlot) -> Result<(), TaskError> {
    let Some(storage) = storage.get() else { return Ok(()) };
    let active = store.get_as::<MachineConfig>(MachineConfig::ACTIVE_ID)?;
    let Some(config) = MachineConfig::root_of(active.as_deref())? else { return Ok(()) };
    Ok(storage.user_disks.unmount(&config.machine().disks).await?)
}

/// Makes the volumes of all LVM groups available.
///
/// # Errors
/// The tool's.
pub(crate) async fn activate_logical_volumes(storage: &StorageSlot) -> Result<(), TaskError> {
    let Some(storage) = storage.get() else { return Ok(()) };
    Ok(storage.edges.groups.activate_volume_groups().await?)
}

/// Starts software RAID that lacks members, once they had their time.
///
/// # Errors
/// The tool's, and an array that has too few members.
pub(crate) async fn start_arrays(storage: &StorageSlot) -> Result<(), TaskError> {
    let Some(storage) = storage.get() else { return Ok(()) };
    Ok(arrays::start(&storage.edges).await?)
}

/// Lets go of the disks of all LVM groups and arrays.
///
/// # Errors
/// The tool's.
pub(crate) async fn release_device_groups(storage: &StorageSlot) -> Result<(), TaskError> {
    let Some(storage) = storage.get() else { return Ok(()) };
    // An array may be below a group. What one of them keeps, the wipe of its disks names.
    let volumes = storage.edges.groups.deactivate_volume_groups().await;
    storage.edges.groups.stop_arrays().await?;
    Ok(volumes?)
}

/// Forgets how STATE is encrypted: it was wiped, and META was not.
///
/// # Errors
/// META cannot be written.
pub(crate) async fn forget_state_encryption(storage: &StorageSlot) -> Result<(), TaskError> {
    let Some(storage) = storage.get() else { return Ok(()) };
    for _ in 0..NOT_LOADED_LOOKS {
        match storage.meta.delete(meta::tag::STATE_ENCRYPTION).await {
            Ok(()) | Err(MetaError::Absent(_)) => return Ok(()),
            // A machine that has just started.
            Err(MetaError::NotLoaded) => tokio::time::sleep(NOT_LOADED_LOOK).await,
            Err(error) => return Err(error.into()),
        }
    }
    Err(MetaError::NotLoaded.into())
}

/// What a new version is put on trial with.
///
/// # Errors
/// The disks are the host's.
pub(crate) fn trial(storage: &StorageSlot) -> Result<&TrialEdges, TaskError> {
    Ok(&storage.get().ok_or("the disks of this machine are its host's")?.trial)
}

/// Keys of encrypted volumes for the API.
#[derive(Debug, Clone)]
pub(crate) struct NodeVolumeKeys(pub(crate) StorageSlot);

impl NodeVolumeKeys {
    fn handle(&self) -> Result<&VolumeKeys, VolumeKeysRefused> {
        let absent = || VolumeKeysRefused::Absent("the disks of this machine are its host's".to_owned());
        self.0.get().map(|storage| &storage.keys).ok_or_else(absent)
    }
}

#[async_trait]
impl machine_api::VolumeKeys for NodeVolumeKeys {
    async fn slots(&self, volume: &str) -> Result<VolumeSlots, VolumeKeysRefused> {
        let found = self.handle()?.slots(volume).await.map_err(|error| refused_keys(&error))?;
        Ok(VolumeSlots { slots: found.slots, is_open: found.is_open, reason: found.reason })
    }

    async fn add_recovery_key(&self, volume: &str) -> Result<(u32, Secret<String>), VolumeKeysRefused> {
        let added = self.handle()?.add_recovery(volume).await.map_err(|error| refused_keys(&error))?;
        Ok((added.slot, added.key))
    }

    async fn unlock(&self, volume: &str, key: Secret<String>) -> Result<(), VolumeKeysRefused> {
        self.handle()?.unlock(volume, key).await.map_err(|error| refused_keys(&error))
    }

    async fn rebind(&self, volume: &str) -> Result<Vec<u32>, VolumeKeysRefused> {
        self.handle()?.rebind(volume).await.map_err(|error| refused_keys(&error))
    }
}

fn refused_keys(error: &VolumeKeysError) -> VolumeKeysRefused {
    let text = error_chain(error).to_string();
    match error {
        VolumeKeysError::NoVolume(_) => VolumeKeysRefused::Absent(text),
        VolumeKeysError::Closed(_)
        | VolumeKeysError::Open(_)
        | VolumeKeysError::NotOpened { .. }
        | VolumeKeysError::NoTpmKey(_)
        | VolumeKeysError::Full(_) => VolumeKeysRefused::NotPossible(text),
        VolumeKeysError::Random(_) | VolumeKeysError::Seal(_) | VolumeKeysError::Gone => {
            VolumeKeysRefused::Unavailable(text)
        }
    }
}

/// META for the API.
#[derive(Debug, Clone)]
pub(crate) struct NodeMeta(pub(crate) StorageSlot);

impl NodeMeta {
    fn handle(&self) -> Result<&MetaHandle, MetaRefused> {
        let storage = self.0.get();
        storage.map(|storage| &storage.meta).ok_or_else(|| {
            MetaRefused::Unavailable("the disks of this machine are its host's: it has no META".to_owned())
        })
    }
}

#[async_trait]
impl MetaValues for NodeMeta {
    async fn set(&self, key: u8, value: Vec<u8>) -> Result<(), MetaRefused> {
        self.handle()?.set(key, value).await.map_err(|error| refused(&error))
    }

    async fn delete(&self, key: u8) -> Result<(), MetaRefused> {
        self.handle()?.delete(key).await.map_err(|error| refused(&error))
    }
}

fn refused(error: &MetaError) -> MetaRefused {
    let text = error_chain(error);
    match error {
        MetaError::Refused(SetError::Reserved) => MetaRefused::Invalid(text),
        MetaError::Refused(SetError::Full { .. }) => MetaRefused::Full(text),
        MetaError::Absent(_) => MetaRefused::Absent(text),
        MetaError::NotLoaded | MetaError::Write(_) | MetaError::Gone => MetaRefused::Unavailable(text),
    }
}
