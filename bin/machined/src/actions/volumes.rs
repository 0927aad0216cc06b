//! Volumes of the machine and what the boot writes on them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use block::BlockDevices;
use domain_runtime::{mount, user_files};
use resources::block::{DiscoveredVolume, SystemDisk};
use resources::config::MachineConfig;
use resources::runtime::MountStatus;
use sequencer::TaskError;
use services::BootstrapGate;
use state::{Kind, Store, WatchOptions};
use sys::files;

use crate::paths::{BOOTSTRAP_FILE, COPIES};

/// Time for a volume to appear.
const MOUNT: Duration = Duration::from_secs(30);
/// Time for writers of a volume to stop.
const UNMOUNT: Duration = Duration::from_secs(10);

/// Whether no disk has a volume, once all disks were looked at. Waits for that.
pub(crate) async fn is_absent(store: &Store, volume: &str) -> Result<bool, TaskError> {
    loop {
        // The watch first: a change after the look is an event.
        let mut changes = store.watch_kind(&Kind::of::<SystemDisk>(), WatchOptions::default())?;
        match store.get_as::<SystemDisk>(SystemDisk::ID)? {
            Some(disk) if disk.installed => {
                let volumes = store.list_as::<DiscoveredVolume>()?;
                let is_known = store.get_as::<MachineConfig>(MachineConfig::ACTIVE_ID)?.is_some();
                let has = |found: &DiscoveredVolume| {
                    found.parent == disk.disk && found.partition_label == volume && (is_known || !found.name.is_empty())
                };
                return Ok(!volumes.iter().any(|found| has(found)));
            }
            Some(disk) if disk.settled => return Ok(true),
            _ => drop(changes.next().await),
        }
    }
}

/// Whether a volume of the system disk is blank and there is no configuration that says whether it is to be encrypted: it is as good
/// as none. One that cannot be read is not blank.
pub(crate) async fn waits_for_configuration(
    store: &Store,
    devices: &dyn BlockDevices,
    volume: &str,
) -> Result<bool, TaskError> {
    if store.get_as::<MachineConfig>(MachineConfig::ACTIVE_ID)?.is_some() {
        return Ok(false);
    }
    let Some(disk) = store.get_as::<SystemDisk>(SystemDisk::ID)? else { return Ok(false) };
    let volumes = store.list_as::<DiscoveredVolume>()?;
    let found = volumes.iter().find(|found| found.parent == disk.disk && found.partition_label == volume);
    let Some(found) = found.filter(|found| found.name.is_empty()) else { return Ok(false) };
    let known = devices.devices().await?;
    let Some(device) = known.iter().find(|device| device.path == Path::new(&found.device_path)) else {
        return Ok(false);
    };
    Ok(devices.probe(device).await?.content.is_none())
}

/// Asks for the volume STATE, waits until it is mounted, and takes up what was left there.
pub(crate) async fn mount_state(store: &Store, gate: &BootstrapGate) -> Result<(), TaskError> {
    let state = mount::mount(store, MountStatus::STATE, MOUNT).await?;
    let gate = gate.clone();
    // Reading waits for a disk.
    Ok(tokio::task::spawn_blocking(move || gate.keep_in(state.join(BOOTSTRAP_FILE))).await??)
}

/// Asks for a volume and waits until it is mounted.
pub(crate) async fn mount(store: &Store, volume: &str) -> Result<(), TaskError> {
    Ok(mount::mount(store, volume, MOUNT).await.map(drop)?)
}

/// Withdraws a volume from its writers.
pub(crate) async fn unmount(store: &Store, volume: &str) -> Result<(), TaskError> {
    Ok(mount::unmount(store, volume, UNMOUNT).await?)
}

/// Directories below the volume EPHEMERAL that services expect.
pub(crate) fn var(store: &Store) -> Result<(), TaskError> {
    let ephemeral = store.get_as::<MountStatus>(MountStatus::EPHEMERAL)?;
    if let Some(ephemeral) = ephemeral {
        for directory in ["log", "lib"] {
            files::ensure_directory(&Path::new(&ephemeral.target).join(directory), 0o755)?;
        }
    }
    Ok(())
}

/// Files of the configuration.
pub(crate) async fn user_files(store: &Store) -> Result<(), TaskError> {
    let active = store.get_as::<MachineConfig>(MachineConfig::ACTIVE_ID)?;
    let files = MachineConfig::root_of(active.as_deref())?.map(|config| config.machine().files.clone());
    let files = files.unwrap_or_default();
    if files.is_empty() {
        return Ok(());
    }
    let ephemeral = store.get_as::<MountStatus>(MountStatus::EPHEMERAL)?.ok_or("volume EPHEMERAL is not mounted")?;
    let places = user_files::Places {
        volume: PathBuf::from(&ephemeral.target),
        image: PathBuf::from("/"),
        copies: PathBuf::from(COPIES),
    };
    // Writing waits for a disk.
    Ok(tokio::task::spawn_blocking(move || user_files::write(&files, &places)).await??)
}
