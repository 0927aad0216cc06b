//! Volumes on partitions of the system disk: found by name, formatted where they are blank, checked, grown, mounted while
//! they are asked for.

mod keys;
mod place;
mod prepare;
mod seal;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use block::luks::Passphrase;
use block::{
    BlockDevices, BlockError, DeviceGroups, FileSystemError, FileSystems, PartitionTables, ProjectQuota, TableError,
};
use controller::{Controller, Ctx, Destroyed, Held, Input, Output, ReconcileError};
use machine::encryption::Encryption;
use machine::layout::Label;
use machine::meta;
use resources::block::{DiscoveredVolume, SystemDisk, VolumePhase, VolumeStatus};
use resources::config::MachineConfig;
use resources::hardware::SystemInformation;
use resources::machine::VolumeRequest;
use resources::runtime::{MetaKey, MetaLoad, MountStatus};
use tokio::time::Instant;

use crate::requests::Requests;

use keys::KeyRequest;
pub use keys::{RecoveryKey, VolumeKeys, VolumeKeysError, VolumeSlots};
use place::Place;
pub use place::{OVERLAYS, Places};
pub(crate) use prepare::mount_or_repair;
pub use seal::{KeyError, SealEdges, SealError};
use seal::{Sealed, TpmKeys, Wanted};

/// Pause before another attempt to mount.
const RETRY: Duration = Duration::from_secs(5);
/// While a key cannot be had, the volume is not given up for this long (Talos 1.7).
const AWAY: Duration = Duration::from_secs(5 * 60);
/// Pause before keys that could not be changed are changed.
const SYNC_AGAIN: Duration = Duration::from_secs(60);
/// A pass may repair a large file system.
const PASS: Duration = Duration::from_secs(40 * 60);

/// A volume cannot be mounted.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    #[error("partition {} holds {found}, not {expected}: wipe it or reset the machine", device.display())]
    Foreign { device: PathBuf, found: &'static str, expected: &'static str },
    #[error(transparent)]
    Device(#[from] BlockError),
    #[error(transparent)]
    FileSystem(#[from] FileSystemError),
    #[error(transparent)]
    Table(#[from] TableError),
    #[error(transparent)]
    Directory(#[from] sys::files::FileError),
    #[error(transparent)]
    Mounts(#[from] sys::mounts::MountError),
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// The edges that volumes need.
#[derive(Debug, Clone)]
pub struct VolumeEdges {
    pub devices: Arc<dyn BlockDevices>,
    pub filesystems: Arc<dyn FileSystems>,
    pub tables: Arc<dyn PartitionTables>,
    pub groups: Arc<dyn DeviceGroups>,
}

#[cfg(test)]
impl VolumeEdges {
    /// All of one fake.
    pub(crate) fn of(fake: &block::FakeBlock) -> Self {
        Self {
            devices: Arc::new(fake.clone()),
            filesystems: Arc::new(fake.clone()),
            tables: Arc::new(fake.clone()),
            groups: Arc::new(fake.clone()),
        }
    }
}

/// `block.VolumeController`: answers `VolumeRequest` with `MountStatus`; `VolumeStatus` says how far each is.
#[derive(Debug)]
pub struct VolumeController {
    edges: VolumeEdges,
    seal: SealEdges,
    places: Places,
    /// Volumes that are mounted, with their status.
    mounted: BTreeMap<String, MountStatus>,
    /// Those of them that are encrypted.
    sealed: BTreeMap<String, Sealed>,
    /// Since when a key of a volume cannot be had.
    away: BTreeMap<String, Instant>,
    /// Keys that an administrator has given for volumes that do not open by themselves.
    given: BTreeMap<String, Passphrase>,
    requests: Requests<KeyRequest>,
}

/// How a volume is to be opened.
enum Opening {
    /// Its partition is its file system.
    Plain,
    Sealed(Box<Wanted>),
    /// It is not known yet.
    Unknown(&'static str),
}

impl VolumeController {
    /// Mounts at `places`.
    pub fn new(edges: VolumeEdges, seal: SealEdges, places: Places) -> (Self, VolumeKeys) {
        let (requests, sender) = Requests::new();
        let controller = Self {
            edges,
            seal,
            places,
            mounted: BTreeMap::new(),
            sealed: BTreeMap::new(),
            away: BTreeMap::new(),
            given: BTreeMap::new(),
            requests,
        };
        (controller, VolumeKeys(sender))
    }

    /// Mounts a requested volume unless it is mounted already.
    async fn provide(&mut self, ctx: &mut Ctx, label: &str) -> Result<Result<(), VolumeError>, ReconcileError> {
        if let Some(status) = self.mounted.get(label) {
            ctx.put(label, mounted(status))?;
            ctx.put(label, status.clone())?;
            self.change_keys(ctx, label).await?;
            return Ok(Ok(()));
        }
        let (place, volume) = match self.find(ctx, label)? {
            Ok(found) => found,
            Err(reason) => {
                let phase = VolumePhase::Missing;
                ctx.put(label, VolumeStatus { phase, reason, ..VolumeStatus::default() })?;
                return Ok(Ok(()));
            }
        };
        let location = volume.device_path.clone();
        let status = |phase, reason| VolumeStatus { phase, location: location.clone(), reason };
        ctx.put(label, status(VolumePhase::Preparing, String::new()))?;
        let quota = quota(ctx)?;
        let wanted = match self.opening(ctx, place.label, volume.name == "luks")? {
            Opening::Plain => None,
            Opening::Sealed(wanted) => Some(wanted),
            Opening::Unknown(reason) => {
                ctx.put(label, status(VolumePhase::Missing, reason.to_owned()))?;
                return Ok(Ok(()));
            }
        };
        match prepare::mount((&self.edges, &self.seal), &place, &volume, quota, wanted.as_deref()).await {
            Ok((done, sealed)) => {
                self.away.remove(label);
                if let Some(sealed) = sealed {
                    if sealed.applied.is_none() {
                        ctx.requeue_after(SYNC_AGAIN);
                    }
                    self.sealed.insert(label.to_owned(), sealed);
                }
                tracing::info!(volume = label, device = location, target = done.target, "volume mounted");
                ctx.put(label, mounted(&done))?;
                ctx.put(label, done.clone())?;
                self.mounted.insert(label.to_owned(), done);
                Ok(Ok(()))
            }
            Err(error) => {
                let since = *self.away.entry(label.to_owned()).or_insert_with(Instant::now);
                let is_away = matches!(error, VolumeError::Seal(SealError::Away { .. })) && since.elapsed() < AWAY;
                let phase = match error {
                    _ if is_away => VolumePhase::Preparing,
                    VolumeError::Seal(SealError::NoKey { .. } | SealError::Away { .. }) => VolumePhase::Locked,
                    _ => VolumePhase::Failed,
                };
                ctx.put(label, status(phase, stdx::error_chain(&error)))?;
                Ok(Err(error))
            }
        }
    }

    /// Whether and how a volume is encrypted: by the configuration, else STATE as META says.
    fn opening(&self, ctx: &mut Ctx, label: &'static str, has_header: bool) -> Result<Opening, ReconcileError> {
        let active = ctx.get::<MachineConfig>(MachineConfig::ACTIVE_ID)?;
        let config = MachineConfig::root_of(active.as_deref())?;
        let disks = config.and_then(|config| config.machine().system_disk_encryption.as_ref());
        let configured = match Label::from_name(label) {
            Some(Label::State) => disks.and_then(|disks| disks.state.as_ref()),
            Some(Label::Ephemeral) => disks.and_then(|disks| disks.ephemeral.as_ref()),
            _ => None,
        };
        let configured = configured.map(config::v1alpha1::Encryption::volume);
        let accepted = config.filter(|_| label == Label::State.name());
        let accepted = accepted.map(|config| config.machine().accepted_ca_certificates()).unwrap_or_default();
        let accepted: String = accepted.iter().map(|text| format!("{}\n", text.trim_end())).collect();
        if configured.is_none() && !has_header {
            return Ok(Opening::Plain);
        }
        // It may have the machine's UUID, and has how STATE is encrypted.
        if ctx.get::<MetaLoad>(MetaLoad::ID)?.is_none() {
            return Ok(Opening::Unknown("META was not read yet"));
        }
        let Some(system) = ctx.get::<SystemInformation>(SystemInformation::ID)? else {
            return Ok(Opening::Unknown("what the firmware tells of this machine was not read yet"));
        };
        let own = ctx.get::<MetaKey>(&meta::resource_id(meta::tag::UUID_OVERRIDE))?;
        let uuid = own.map_or_else(|| system.uuid.clone(), |own| own.value.clone());
        let kept = match ctx.get::<MetaKey>(&meta::resource_id(meta::tag::STATE_ENCRYPTION))? {
            Some(kept) if label == Label::State.name() => match Encryption::from_meta(&kept.value) {
                Ok(kept) => Some(kept),
                Err(error) => {
                    tracing::warn!(error = stdx::error_chain(&error), "the value is not used");
                    None
                }
            },
            _ => None,
        };
        let Some(encryption) = configured.or_else(|| kept.clone()) else {
            // Mounting it tells what is there.
            return Ok(Opening::Plain);
        };
        let given = self.given.get(label).cloned();
        let noted = ctx.get::<MetaKey>(&meta::resource_id(meta::tag::API_AUTHORITIES))?;
        let is_noted = noted.is_some_and(|noted| noted.value == accepted);
        let authorities = Some(accepted).filter(|accepted| !is_noted && !accepted.is_empty());
        Ok(Opening::Sealed(Box::new(Wanted { label, encryption, former: kept, uuid, given, authorities })))
    }

    /// Changes the keys of a volume in use to those of the configuration.
    async fn change_keys(&mut self, ctx: &mut Ctx, label: &str) -> Result<(), ReconcileError> {
        if !self.sealed.contains_key(label) {
            return Ok(());
        }
        let Some(place) = self.places.of(label) else { return Ok(()) };
        let Opening::Sealed(wanted) = self.opening(ctx, place.label, true)? else { return Ok(()) };
        let Some(sealed) = self.sealed.get_mut(label) else { return Ok(()) };
        let is_same = |applied: &Wanted| {
            applied.encryption == wanted.encryption && applied.uuid == wanted.uuid && wanted.authorities.is_none()
        };
        if sealed.applied.as_ref().is_some_and(is_same) {
            return Ok(());
        }
        sealed.applied = None;
        match seal::sync(&self.seal, sealed, &wanted, TpmKeys::AsFound).await {
            Ok(()) => {
                tracing::info!(volume = label, "the volume has the keys of the configuration");
                if let Some(status) = self.mounted.get_mut(label) {
                    status.encryption_providers = wanted.encryption.providers();
                    ctx.put(label, status.clone())?;
                    ctx.put(label, mounted(status))?;
                }
            }
            Err(error) => {
                let reason = format!("its keys are not those of the configuration: {}", stdx::error_chain(&error));
                tracing::warn!(volume = label, reason, "keys were not changed");
                if let Some(status) = self.mounted.get(label) {
                    ctx.put(label, VolumeStatus { reason, ..mounted(status) })?;
                }
                ctx.requeue_after(SYNC_AGAIN);
            }
        }
        Ok(())
    }

    /// The partition of a label on the system disk, or why there is none.
    fn find(&self, ctx: &mut Ctx, label: &str) -> Result<Result<(Place, DiscoveredVolume), String>, ReconcileError> {
        let Some(place) = self.places.of(label) else {
            return Ok(Err(format!("{label} is no volume of a machine; there are {}", Places::LABELS.join(", "))));
        };
        let Some(system) = ctx.get::<SystemDisk>(SystemDisk::ID)? else {
            return Ok(Err("disks were not looked at yet".to_owned()));
        };
        if !system.installed {
            let waits = if system.settled { "the system is not installed" } else { "waiting for disks" };
            return Ok(Err(format!("{waits}: {}", system.reason)));
        }
        let volumes = ctx.list::<DiscoveredVolume>()?;
        let found = volumes.iter().find(|one| one.parent == system.disk && one.partition_label == label);
        Ok(found
            .map(|volume| (place, DiscoveredVolume::clone(volume)))
            .ok_or_else(|| format!("{} has no partition {label}", system.device_path)))
    }

    /// Unmounts a volume whose last user let go.
    async fn release(&mut self, ctx: &mut Ctx, label: &str) -> Result<Result<(), VolumeError>, ReconcileError> {
        // A holder is still writing; this pass is repeated when the last finalizer is removed.
        if ctx.destroy::<MountStatus>(label)? == Destroyed::Waiting {
            let location = self.mounted.get(label).map(|status| status.source.clone()).unwrap_or_default();
            let reason = "waiting for its users".to_owned();
            ctx.put(label, VolumeStatus { phase: VolumePhase::Unmounting, location, reason })?;
            return Ok(Ok(()));
        }
        if let Some(status) = self.mounted.get(label) {
            if let Err(error) = prepare::unmount(&self.edges, label, Path::new(&status.target), &self.places).await {
                let (phase, reason) = (VolumePhase::Failed, stdx::error_chain(&error));
                ctx.put(label, VolumeStatus { phase, location: status.source.clone(), reason })?;
                return Ok(Err(error));
            }
            if let Some(sealed) = self.sealed.remove(label) {
                seal::close(&self.seal, &sealed).await;
            }
            self.mounted.remove(label);
            tracing::info!(volume = label, "volume unmounted");
        }
        ctx.destroy::<VolumeStatus>(label)?;
        ctx.remove_finalizer::<VolumeRequest>(label)?;
        Ok(Ok(()))
    }
}

/// Whether the configuration asks for project quotas; without one there are none.
fn quota(ctx: &mut Ctx) -> Result<ProjectQuota, ReconcileError> {
    let config = ctx.get::<MachineConfig>(MachineConfig::ACTIVE_ID)?;
    let has = MachineConfig::root_of(config.as_deref())?.is_some_and(|config| config.machine().disk_quota_support());
    Ok(if has { ProjectQuota::On } else { ProjectQuota::Off })
}

fn mounted(status: &MountStatus) -> VolumeStatus {
    VolumeStatus { phase: VolumePhase::Mounted, location: status.source.clone(), reason: String::new() }
}

#[async_trait]
impl Controller for VolumeController {
    fn name(&self) -> &'static str {
        "block.VolumeController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![
            Input::strong::<VolumeRequest>(),
            Input::weak::<DiscoveredVolume>(),
            Input::weak::<SystemDisk>().id(SystemDisk::ID),
            Input::weak::<MachineConfig>().id(MachineConfig::ACTIVE_ID),
            Input::weak::<SystemInformation>().id(SystemInformation::ID),
            Input::weak::<MetaKey>(),
            Input::weak::<MetaLoad>().id(MetaLoad::ID),
        ]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<MountStatus>(), Output::exclusive::<VolumeStatus>()]
    }

    fn pass_deadline(&self) -> Duration {
        PASS
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        self.requests.listen(ctx, "requests about keys");
        let waiting = self.requests.take();
        let waiting = self.take_given(waiting);
        let labels: Vec<String> = ctx.list::<VolumeRequest>()?.iter().map(|one| one.id().to_owned()).collect();
        let mut failed = None;
        for label in labels {
            let result = match ctx.hold::<VolumeRequest>(&label)? {
                Held::Running(_) => self.provide(ctx, &label).await?,
                Held::TearingDown(_) => self.release(ctx, &label).await?,
                Held::Absent => Ok(()),
            };
            // One volume's failure stops no other.
            failed = failed.or(result.err());
        }
        for request in waiting {
            self.answer(ctx, request).await?;
        }
        match failed {
            None => Ok(()),
            Some(error) => {
                ctx.requeue_after(RETRY);
                Err(error.into())
            }
        }
    }
}

#[cfg(test)]
mod tests;
