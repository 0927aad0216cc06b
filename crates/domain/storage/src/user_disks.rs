//! Disks beside the system disk, as `machine.disks` describes them: partitioned where they are empty, formatted, mounted.

mod health;
mod table;
mod watch;

use std::path::{Path, PathBuf};
use std::time::Duration;

use block::{BlockError, Device, FileSystemError, MountPlan, ProjectQuota, TableError};
use config::v1alpha1::MachineDisk;
use machine::gpt;
use sys::files::{self, Access, FileError};
use tokio::time::Instant;

use crate::volumes::{VolumeEdges, mount_or_repair};
pub use table::UserTableError;
pub use watch::{UserDiskController, UserDisks};

/// How long disks that the machine does not have are waited for: all devices that it started with are set up by then.
const LATE: Duration = Duration::from_secs(60);
/// How often links to disks are looked at beside events: udevd makes one after its disk has appeared.
const LOOK: Duration = Duration::from_secs(2);

/// How long partitions may be absent after a table was written, and how often they are looked for.
const REREAD: Duration = Duration::from_secs(10);
const REREAD_LOOK: Duration = Duration::from_millis(100);

/// The name of a partition that has no file system yet; a finished one has no name.
const UNFORMATTED: &str = "unformatted";

/// A disk of the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UserDiskError {
    #[error("there is no disk {device}")]
    Absent { device: String },
    #[error("{device} is the system disk")]
    SystemDisk { device: String },
    #[error("{device} holds {content}: only empty disks are partitioned; wipe it, or remove it from machine.disks")]
    NotEmpty { device: String, content: String },
    #[error("{device} has no partition {number}, which {mountpoint} is to be on")]
    NoPartition { device: String, number: usize, mountpoint: String },
    #[error("partition {partition} holds {found}, not xfs: make an XFS there, or wipe the disk")]
    Foreign { partition: String, found: &'static str },
    #[error("{mountpoint} is mounted from {source_device} already")]
    Taken { mountpoint: String, source_device: String },
    #[error("planning the partitions of {device}")]
    Plan {
        device: String,
        #[source]
        source: UserTableError,
    },
    #[error(transparent)]
    Device(#[from] BlockError),
    #[error(transparent)]
    FileSystem(#[from] FileSystemError),
    #[error(transparent)]
    Table(#[from] TableError),
    #[error(transparent)]
    Directory(#[from] FileError),
    #[error("making an identifier of a partition table")]
    Random(#[source] std::io::Error),
}

/// Mounts all partitions of `disks`; what is mounted already stays. `system` is the name of the system disk. Disks that are
/// absent are waited for, a minute for all of them: those on USB and slow controllers appear late.
///
/// # Errors
/// The first [`UserDiskError`]; earlier disks stay mounted, and another call goes on.
async fn mount(
    edges: &VolumeEdges,
    disks: &[MachineDisk],
    system: &str,
    quota: ProjectQuota,
) -> Result<(), UserDiskError> {
    let deadline = Instant::now() + LATE;
    for disk in disks {
        let device = wait_for(edges, &disk.device, deadline).await?;
        if device.name == system {
            return Err(UserDiskError::SystemDisk { device: disk.device.clone() });
        }
        let table = partition(edges, disk, &device).await?;
        format(edges, &device, &table).await?;
        for (index, wanted) in disk.partitions.iter().enumerate() {
            let partition = of_number(edges, &device, index + 1).await?;
            let partition = partition.ok_or_else(|| UserDiskError::NoPartition {
                device: disk.device.clone(),
                number: index + 1,
                mountpoint: wanted.mountpoint.clone(),
            })?;
            mount_one(edges, &partition, &wanted.mountpoint, quota).await?;
        }
    }
    Ok(())
}

/// Unmounts all partitions of `disks`, the last one first. One that cannot be unmounted keeps no other one mounted.
///
/// # Errors
/// The first one: something is in use.
async fn unmount(edges: &VolumeEdges, disks: &[MachineDisk]) -> Result<(), UserDiskError> {
    let mut failed = None;
    for partition in disks.iter().rev().flat_map(|disk| disk.partitions.iter().rev()) {
        let unmounted = edges.filesystems.unmount(Path::new(&partition.mountpoint)).await;
        failed = failed.or(unmounted.err());
    }
    failed.map_or(Ok(()), |error| Err(error.into()))
}

/// The disk that a path leads to, once it is there.
async fn wait_for(edges: &VolumeEdges, path: &str, deadline: Instant) -> Result<Device, UserDiskError> {
    // Changes from here on are seen.
    let mut changes = edges.devices.changes();
    let mut is_said = false;
    loop {
        let absent = match find(edges, path).await {
            Err(error @ UserDiskError::Absent { .. }) if Instant::now() < deadline => error,
            found => return found,
        };
        if !is_said {
            is_said = true;
            let seconds = deadline.saturating_duration_since(Instant::now()).as_secs();
            tracing::info!(disk = path, seconds, "waiting for a disk of machine.disks");
        }
        let next_look = (Instant::now() + LOOK).min(deadline);
        // Both arms are cancel-safe: the disks are looked at after each. Without a source of changes there is nobody to ask.
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return Err(absent) },
            () = tokio::time::sleep_until(next_look) => {}
        }
    }
}

/// The whole disk that a path of the configuration leads to, also by a link such as those of `/dev/disk/by-id`.
async fn find(edges: &VolumeEdges, path: &str) -> Result<Device, UserDiskError> {
    let resolved = std::fs::canonicalize(path).unwrap_or_else(|_| PathBuf::from(path));
    let devices = edges.devices.devices().await?;
    let found = devices.into_iter().find(|device| device.path == resolved && device.partition.is_none());
    found.ok_or_else(|| UserDiskError::Absent { device: path.to_owned() })
}

/// The table of a disk; an empty disk gets one.
async fn partition(edges: &VolumeEdges, disk: &MachineDisk, device: &Device) -> Result<gpt::Table, UserDiskError> {
    let probed = edges.devices.probe(device).await?;
    if let Some(table) = probed.table {
        return Ok(table);
    }
    if let Some(content) = probed.content {
        return Err(UserDiskError::NotEmpty { device: disk.device.clone(), content: content.name.to_owned() });
    }
    let sizes: Vec<u64> = disk.partitions.iter().map(|partition| partition.size.map_or(0, |size| size.0)).collect();
    let mut ids = Vec::new();
    for _ in 0..=sizes.len() {
        let uuid = sys::host::random_uuid().map_err(UserDiskError::Random)?;
        ids.push(uuid.parse().unwrap_or(gpt::Guid::NIL));
    }
    let table = table::plan(device, &sizes, &ids, UNFORMATTED)
        .map_err(|source| UserDiskError::Plan { device: disk.device.clone(), source })?;
    edges.tables.create(device, &table).await?;
    tracing::info!(disk = device.name, partitions = sizes.len(), "disk partitioned");
    Ok(table)
}

/// Makes file systems on partitions that have none since their table was made, and then takes the mark off.
async fn format(edges: &VolumeEdges, device: &Device, table: &gpt::Table) -> Result<(), UserDiskError> {
    let unformatted: Vec<u32> =
        table.partitions.iter().filter(|one| one.name == UNFORMATTED).map(|one| one.number).collect();
    for number in &unformatted {
        let number = usize::try_from(*number).unwrap_or(usize::MAX);
        let partition = of_number(edges, device, number).await?.ok_or_else(|| UserDiskError::NoPartition {
            device: device.path.display().to_string(),
            number,
            mountpoint: String::new(),
        })?;
        edges.filesystems.make_xfs(&partition.path, None).await?;
        edges.devices.written(&partition.name);
    }
    if unformatted.is_empty() {
        return Ok(());
    }
    let names: Vec<(u32, String)> = unformatted.into_iter().map(|number| (number, String::new())).collect();
    edges.tables.rename(device, &names).await?;
    edges.devices.written(&device.name);
    Ok(())
}

/// A partition of a disk. One that is in its table is waited for: after a table was written udevd has the kernel read it again, and
/// meanwhile there are none.
async fn of_number(edges: &VolumeEdges, disk: &Device, number: usize) -> Result<Option<Device>, UserDiskError> {
    let deadline = Instant::now() + REREAD;
    loop {
        let found = find_partition(edges, disk, number).await?;
        if found.is_some() || Instant::now() >= deadline || !is_listed(edges, disk, number).await? {
            return Ok(found);
        }
        tokio::time::sleep(REREAD_LOOK).await;
    }
}

async fn is_listed(edges: &VolumeEdges, disk: &Device, number: usize) -> Result<bool, UserDiskError> {
    let table = edges.devices.probe(disk).await?.table;
    Ok(table.is_some_and(|table| table.partitions.iter().any(|one| usize::try_from(one.number) == Ok(number))))
}

async fn find_partition(edges: &VolumeEdges, disk: &Device, number: usize) -> Result<Option<Device>, UserDiskError> {
    let devices = edges.devices.devices().await?;
    let is_it = |device: &Device| {
        let of = device.partition.as_ref();
        of.is_some_and(|of| of.disk == disk.name && usize::try_from(of.number) == Ok(number))
    };
    Ok(devices.into_iter().find(is_it))
}

async fn mount_one(
    edges: &VolumeEdges,
    partition: &Device,
    mountpoint: &str,
    quota: ProjectQuota,
) -> Result<(), UserDiskError> {
    let target = Path::new(mountpoint);
    let table = edges.filesystems.mounts().await?;
    if let Some(mount) = table.iter().rfind(|mount| mount.target == target) {
        if Path::new(&mount.source) == partition.path {
            return Ok(());
        }
        return Err(UserDiskError::Taken { mountpoint: mountpoint.to_owned(), source_device: mount.source.clone() });
    }
    let content = edges.devices.probe(partition).await?.content;
    let found = content.map_or("nothing that is known", |content| content.name);
    if found != "xfs" {
        return Err(UserDiskError::Foreign { partition: partition.path.display().to_string(), found });
    }
    files::make_directory(target, Access { mode: 0o700, owner: None })?;
    mount_or_repair(edges, &MountPlan::xfs(&partition.path, target, quota)).await?;
    tracing::info!(partition = partition.name, mountpoint, "user disk mounted");
    Ok(())
}

#[cfg(test)]
mod tests;
