//! Volumes on partitions of the system disk: found by name, formatted where they are blank, checked, grown, mounted while
//! they are asked for.

mod place;
mod prepare;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use block::{BlockDevices, BlockError, FileSystemError, FileSystems, PartitionTables, ProjectQuota, TableError};
use controller::{Controller, Ctx, Destroyed, Held, Input, Output, ReconcileError};
use resources::block::{DiscoveredVolume, SystemDisk, VolumePhase, VolumeStatus};
use resources::config::MachineConfig;
use resources::machine::VolumeRequest;
use resources::runtime::MountStatus;

use place::Place;
pub use place::{OVERLAYS, Places};
pub(crate) use prepare::mount_or_repair;

/// Pause before another attempt to mount.
const RETRY: Duration = Duration::from_secs(5);
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
}

/// The edges that volumes need.
#[derive(Debug, Clone)]
pub struct VolumeEdges {
    pub devices: Arc<dyn BlockDevices>,
    pub filesystems: Arc<dyn FileSystems>,
    pub tables: Arc<dyn PartitionTables>,
}

/// `block.VolumeController`: answers `VolumeRequest` with `MountStatus`; `VolumeStatus` says how far each is.
#[derive(Debug)]
pub struct VolumeController {
    edges: VolumeEdges,
    places: Places,
    /// Volumes that are mounted, with their status.
    mounted: BTreeMap<String, MountStatus>,
}

impl VolumeController {
    /// Mounts at `places`.
    pub fn new(edges: VolumeEdges, places: Places) -> Self {
        Self { edges, places, mounted: BTreeMap::new() }
    }

    /// Mounts a requested volume unless it is mounted already.
    async fn provide(&mut self, ctx: &mut Ctx, label: &str) -> Result<Result<(), VolumeError>, ReconcileError> {
        if let Some(status) = self.mounted.get(label) {
            ctx.put(label, mounted(status))?;
            ctx.put(label, status.clone())?;
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
        match prepare::mount(&self.edges, &place, &volume, quota).await {
            Ok(done) => {
                tracing::info!(volume = label, device = location, target = done.target, "volume mounted");
                ctx.put(label, mounted(&done))?;
                ctx.put(label, done.clone())?;
                self.mounted.insert(label.to_owned(), done);
                Ok(Ok(()))
            }
            Err(error) => {
                ctx.put(label, status(VolumePhase::Failed, stdx::error_chain(&error)))?;
                Ok(Err(error))
            }
        }
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
        ]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<MountStatus>(), Output::exclusive::<VolumeStatus>()]
    }

    fn pass_deadline(&self) -> Duration {
        PASS
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
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
