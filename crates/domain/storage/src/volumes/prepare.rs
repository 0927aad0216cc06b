//! The way of a volume from its partition to a mount, and back.

use std::path::Path;
use std::time::Duration;

use block::{Device, FileSystemError, Grown, MountPlan, ProjectQuota, UNFINISHED};
use resources::block::DiscoveredVolume;
use resources::runtime::MountStatus;
use sys::files::{self, Access};

use super::place::{Overlay, Place};
use super::seal::{self, SealEdges, Sealed, Wanted};
use super::{Places, VolumeEdges, VolumeError};

/// Users of a volume that end late are waited for this long.
const BUSY: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(250);

/// Grows EPHEMERAL, opens what is encrypted, makes a blank partition an XFS, and mounts.
pub(super) async fn mount(
    (edges, seal): (&VolumeEdges, &SealEdges),
    place: &Place,
    volume: &DiscoveredVolume,
    quota: ProjectQuota,
    wanted: Option<&Wanted>,
) -> Result<(MountStatus, Option<Sealed>), VolumeError> {
    let path = Path::new(&volume.device_path);
    let devices = edges.devices.devices().await?;
    if place.is_ephemeral
        && let Some(disk) = devices.iter().find(|device| device.name == volume.parent)
        && let Grown::To(bytes) = edges.tables.grow(disk, place.label).await?
    {
        tracing::info!(volume = place.label, bytes, "partition grown");
    }
    // As it is after it was grown.
    let device = edges.devices.devices().await?.into_iter().find(|device| device.path == path);
    let (Some(device), Some(wanted)) = (device.as_ref(), wanted) else {
        return Ok((mount_device(edges, place, path, device.as_ref(), quota).await?, None));
    };
    let sealed = seal::open(seal, &*edges.devices, device, wanted).await?;
    let open = Device { path: sealed.volume.path.clone(), size: sealed.volume.size, ..device.clone() };
    match mount_device(edges, place, &open.path, Some(&open), quota).await {
        Ok(mut status) => {
            status.encrypted = true;
            status.encryption_providers = wanted.encryption.providers();
            Ok((status, Some(sealed)))
        }
        Err(error) => {
            seal::close(seal, &sealed).await;
            Err(error)
        }
    }
}

/// Makes a blank device an XFS, and mounts it.
async fn mount_device(
    edges: &VolumeEdges,
    place: &Place,
    path: &Path,
    device: Option<&Device>,
    quota: ProjectQuota,
) -> Result<MountStatus, VolumeError> {
    let is_new = match device {
        Some(device) => format_if_blank(edges, place, device).await?,
        None => false,
    };
    let quota = if place.is_ephemeral { quota } else { ProjectQuota::Off };
    let plan = MountPlan { kind: place.kind, ..MountPlan::xfs(path, &place.target, quota) };
    mount_or_repair(edges, &plan).await?;
    if is_new {
        edges.filesystems.label_xfs(&place.target, place.label).await?;
        if let Some(device) = device {
            edges.devices.written(&device.name);
        }
    }
    if place.is_ephemeral {
        // Also after a growth that was cut off.
        edges.filesystems.grow_xfs(&place.target).await?;
    }
    files::make_directory(&place.target, Access { mode: place.mode, owner: None })?;
    for overlay in &place.overlays {
        lay_over(edges, overlay).await?;
    }
    status(edges, &plan).await
}

/// Only a blank partition is formatted, and one whose file system was never finished: what somebody else keeps there is not
/// ours to delete. Whether it was.
async fn format_if_blank(edges: &VolumeEdges, place: &Place, device: &Device) -> Result<bool, VolumeError> {
    let is_formatted_here = place.kind == "xfs" && place.label != machine::layout::Label::Boot.name();
    let content = edges.devices.probe(device).await?.content;
    let was_cut_off = content.as_ref().is_some_and(|content| content.name == "xfs" && content.label == UNFINISHED);
    match content.filter(|_| !was_cut_off).map(|content| content.name) {
        Some(name) if name == place.kind => return Ok(false),
        None if is_formatted_here => {}
        found => {
            let (device, found) = (device.path.clone(), found.unwrap_or("nothing"));
            return Err(VolumeError::Foreign { device, found, expected: place.kind });
        }
    }
    tracing::info!(volume = place.label, device = device.name, was_cut_off, "making a file system");
    // After a power cut a file system may lack any part of what makes one, and then it cannot be repaired either. It gets its
    // label when it is mounted: until then it is made anew.
    edges.filesystems.make_xfs(&device.path, Some(UNFINISHED)).await?;
    Ok(true)
}

/// Mounts; a damaged XFS is repaired once.
pub(crate) async fn mount_or_repair(edges: &VolumeEdges, plan: &MountPlan) -> Result<(), FileSystemError> {
    match edges.filesystems.mount(plan).await {
        Err(error) if error.wants_repair() && plan.kind == "xfs" => {
            tracing::warn!(device = %plan.source.display(), error = stdx::error_chain(&error), "repairing a file system");
            edges.filesystems.repair_xfs(&plan.source).await?;
            edges.filesystems.mount(plan).await
        }
        other => other,
    }
}

/// A layer over a directory that the image does not have is left out.
async fn lay_over(edges: &VolumeEdges, overlay: &Overlay) -> Result<(), VolumeError> {
    if !overlay.target.is_dir() {
        return Ok(());
    }
    for suffix in ["diff", "workdir"] {
        let directory = overlay.layers.join(format!("{}-{suffix}", overlay.name));
        files::make_directory(&directory, Access { mode: 0o755, owner: None })?;
    }
    let plan = MountPlan::overlay(&overlay.target, &overlay.layers, overlay.name);
    Ok(edges.filesystems.mount(&plan).await?)
}

async fn status(edges: &VolumeEdges, plan: &MountPlan) -> Result<MountStatus, VolumeError> {
    let source = plan.source.display().to_string();
    let line = edges.filesystems.mounts().await?.into_iter().rfind(|mount| mount.target == plan.target);
    Ok(MountStatus {
        source,
        target: plan.target.display().to_string(),
        filesystem_type: plan.kind.to_owned(),
        options: line.map(|mount| mount.options).unwrap_or_default(),
        ..MountStatus::default()
    })
}

/// Takes the layers off, and unmounts the volume with all that is mounted below it.
pub(super) async fn unmount(
    edges: &VolumeEdges,
    label: &str,
    target: &Path,
    places: &Places,
) -> Result<(), VolumeError> {
    let overlays = places.of(label).map(|place| place.overlays).unwrap_or_default();
    let table = edges.filesystems.mounts().await?;
    let is_layer =
        |overlay: &Overlay| table.iter().any(|mount| mount.target == overlay.target && mount.filesystem == "overlay");
    for overlay in overlays.iter().rev().filter(|overlay| is_layer(overlay)) {
        unmount_patiently(edges, &overlay.target).await?;
    }
    Ok(unmount_patiently(edges, target).await?)
}

async fn unmount_patiently(edges: &VolumeEdges, target: &Path) -> Result<(), FileSystemError> {
    let deadline = tokio::time::Instant::now() + BUSY;
    loop {
        match edges.filesystems.unmount(target).await {
            Err(error) if error.is_busy() && tokio::time::Instant::now() < deadline => tokio::time::sleep(LOOK).await,
            other => return other,
        }
    }
}
