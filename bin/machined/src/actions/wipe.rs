//! Wiping of disks: for a reset, and for `talos.experimental.wipe` of the kernel command line.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use block::disk::{self, DiskError, Disks, EmptyFileSystem, TargetDisk};
use machine::cmdline::{self, Cmdline};
use machine::gpt::Partition;
use machine::install::{Access, Contents};
use machine::layout::Label;
use machine_api::{ResetRefused, ResetTargets};
use resources::block::{DiscoveredVolume, SystemDisk};
use sequencer::{Parameters, Request, ResetParameters, TaskError, WipeMode};
use state::{Kind, StateError, Store, WatchOptions};
use stdx::error_chain;
use sys::early::EarlySystem;

use crate::system_disk;

/// How long discovery may take to see that a disk was wiped.
const SEEN: Duration = Duration::from_secs(30);

/// What is wiped of the system disk.
#[derive(Debug, Clone, PartialEq, Eq)]
enum SystemWipe {
    /// All of it.
    Disk,
    /// Partitions. Those that a machine boots from get an empty file system.
    Labels(Vec<Label>),
}

/// Labels that cannot be wiped.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LabelError {
    #[error("{:?} is no partition of a system disk; these are {}", .0, names())]
    Unknown(String),
    #[error("{0:?} must be system, or system: with labels of partitions")]
    Argument(String),
}

/// A disk or a partition that cannot be wiped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WipeError {
    #[error(transparent)]
    Label(#[from] LabelError),
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error("{} is in use: {}", disk.display(), users.join(", "))]
    InUse { disk: PathBuf, users: Vec<String> },
    #[error("{} is part of {}, which does not end with the services of this machine", disk.display(), devices.join(", "))]
    PartOf { disk: PathBuf, devices: Vec<String> },
    #[error("{} is read-only", .0.display())]
    ReadOnly(PathBuf),
    #[error("{0} is the system disk, not a user disk")]
    SystemDisk(String),
    #[error("no disk of this machine has the system, so there are no partitions of it to wipe")]
    NoSystem,
    #[error("the system disk {disk} has no partition table")]
    NoTable { disk: String },
    #[error("the system disk {disk} has no partition {label}; it has {has}")]
    NoPartition { disk: String, label: &'static str, has: String },
}

fn names() -> String {
    Label::ALL.map(Label::name).join(", ")
}

impl SystemWipe {
    /// From labels of a request; none are the whole disk.
    fn of_labels<S: AsRef<str>>(labels: &[S]) -> Result<Self, LabelError> {
        if labels.is_empty() {
            return Ok(Self::Disk);
        }
        let label =
            |name: &S| Label::from_name(name.as_ref()).ok_or_else(|| LabelError::Unknown(name.as_ref().to_owned()));
        labels.iter().map(label).collect::<Result<_, _>>().map(Self::Labels)
    }

    /// From the value of the kernel argument: `system`, or `system:EPHEMERAL,STATE`.
    fn of_argument(value: &str) -> Result<Self, LabelError> {
        match value.split_once(':') {
            None if value == "system" => Ok(Self::Disk),
            Some(("system", labels)) if !labels.is_empty() => Self::of_labels(&labels.split(',').collect::<Vec<_>>()),
            _ => Err(LabelError::Argument(value.to_owned())),
        }
    }
}

/// Whether STATE is wiped and META, which says how STATE is encrypted, is not.
fn leaves_meta_alone(labels: &[Label]) -> bool {
    labels.contains(&Label::State) && !labels.contains(&Label::Meta)
}

/// Whether a reset has to forget in META how STATE is encrypted.
pub(crate) fn forgets_encryption(request: &Request) -> bool {
    let wipe = SystemWipe::of_labels(&parameters(request).labels);
    matches!(wipe, Ok(SystemWipe::Labels(labels)) if leaves_meta_alone(&labels))
}

/// The same of the kernel command line.
pub(crate) fn argument_forgets_encryption(kernel: &dyn EarlySystem) -> bool {
    let wipe = asked(kernel).map(|value| SystemWipe::of_argument(&value));
    matches!(wipe, Some(Ok(SystemWipe::Labels(labels))) if leaves_meta_alone(&labels))
}

/// Wipes a system disk, or those of its partitions. Everything is looked up before the first one is wiped.
async fn system(disks: &Arc<dyn Disks>, path: &Path, wipe: &SystemWipe) -> Result<(), TaskError> {
    tracing::info!(disk = %path.display(), ?wipe, "wiping the system disk");
    let mut disk = unused(&**disks, path)?;
    let SystemWipe::Labels(labels) = wipe else {
        // Disks may take long to discard their content.
        return tokio::task::spawn_blocking(move || whole(disk.as_mut())).await?;
    };
    for (label, partition) in partitions(disk.as_ref(), labels)? {
        wipe_partition(&**disks, disk.as_mut(), &partition, label).await?;
    }
    Ok(disk.reread()?)
}

/// Partitions of a disk by their labels, if it has all of them.
fn partitions(disk: &dyn TargetDisk, labels: &[Label]) -> Result<Vec<(Label, Partition)>, WipeError> {
    let path = || disk.disk().path.clone();
    let Contents::Table(table) = disk::contents(disk)? else { return Err(WipeError::NoTable { disk: path() }) };
    let partition = |label: &Label| match table.by_name(label.name()) {
        Some(partition) => Ok((*label, partition.clone())),
        None => {
            let has: Vec<&str> = table.partitions.iter().map(|partition| partition.name.as_str()).collect();
            Err(WipeError::NoPartition { disk: path(), label: label.name(), has: has.join(", ") })
        }
    };
    labels.iter().map(partition).collect()
}

/// Opens a disk that can be written to and that no other device is made of. Mounts and volumes of LVM may still use it.
fn writable(disks: &dyn Disks, path: &Path) -> Result<Box<dyn TargetDisk>, WipeError> {
    let disk = disks.open(path)?;
    if disk.disk().access == Access::ReadOnly {
        return Err(WipeError::ReadOnly(path.to_owned()));
    }
    let devices = disks.part_of(path);
    if devices.is_empty() { Ok(disk) } else { Err(WipeError::PartOf { disk: path.to_owned(), devices }) }
}

/// Opens a disk that nothing uses: what is mounted is not wiped.
fn unused(disks: &dyn Disks, path: &Path) -> Result<Box<dyn TargetDisk>, WipeError> {
    let disk = writable(disks, path)?;
    let users = disk.disk().used_by.clone();
    if users.is_empty() { Ok(disk) } else { Err(WipeError::InUse { disk: path.to_owned(), users }) }
}

fn whole(disk: &mut dyn TargetDisk) -> Result<(), TaskError> {
    disk::wipe(disk)?;
    Ok(disk.reread()?)
}

async fn wipe_partition(
    disks: &dyn Disks,
    disk: &mut dyn TargetDisk,
    partition: &Partition,
    label: Label,
) -> Result<(), TaskError> {
    disk::wipe_partition(disk, partition)?;
    let Some(device) = disk.partition_device(partition.number) else { return Ok(()) };
    let kind = match label {
        Label::Efi => EmptyFileSystem::Vfat,
        Label::Boot => EmptyFileSystem::Xfs,
        Label::Bios | Label::Meta | Label::State | Label::Ephemeral => return Ok(()),
    };
    Ok(disks.format(&device, kind, label.name()).await?)
}

type Open = fn(&dyn Disks, &Path) -> Result<Box<dyn TargetDisk>, WipeError>;

/// Opens other disks than the system disk, so that all are known to be there before the first one is wiped.
fn open_user_disks(
    disks: &dyn Disks,
    system: Option<&Path>,
    paths: &[String],
    open: Open,
) -> Result<Vec<Box<dyn TargetDisk>>, WipeError> {
    let open = |path: &String| {
        let disk = disks.open(Path::new(path))?;
        if system == Some(Path::new(&disk.disk().path)) {
            return Err(WipeError::SystemDisk(path.clone()));
        }
        open(disks, Path::new(path))
    };
    paths.iter().map(open).collect()
}

/// Whether all that a reset is to wipe can be wiped once nothing runs any more: disks and partitions are there, and can be
/// written to.
///
/// # Errors
/// The first that cannot, with its name.
pub(crate) fn check(disks: &dyn Disks, system: Option<&Path>, reset: &ResetParameters) -> Result<(), WipeError> {
    if reset.mode != WipeMode::UserDisks {
        let wipe = SystemWipe::of_labels(&reset.labels)?;
        match (system, &wipe) {
            (Some(path), wipe) => {
                let disk = writable(disks, path)?;
                if let SystemWipe::Labels(labels) = wipe {
                    partitions(disk.as_ref(), labels)?;
                }
            }
            (None, SystemWipe::Labels(_)) => return Err(WipeError::NoSystem),
            // A machine without a system has nothing to wipe.
            (None, SystemWipe::Disk) => {}
        }
    }
    open_user_disks(disks, system, &reset.user_disks, writable).map(drop)
}

/// The value of the kernel argument that asks for a wipe.
fn asked(kernel: &dyn EarlySystem) -> Option<String> {
    let running = kernel.read(Path::new("/proc/cmdline")).ok()?;
    Cmdline::parse(&running).first(cmdline::WIPE).map(str::to_owned)
}

/// Whether the kernel command line asks for the system disk to be wiped.
pub(crate) fn is_asked(kernel: &dyn EarlySystem) -> bool {
    asked(kernel).is_some()
}

/// Wipes what the kernel command line asks for, and waits until it is seen: what comes next must not take the old content for
/// that of the disk.
pub(crate) async fn asked_by_kernel_argument(
    kernel: &dyn EarlySystem,
    disks: &Arc<dyn Disks>,
    store: &Store,
) -> Result<(), TaskError> {
    let Some(value) = asked(kernel) else { return Ok(()) };
    let wipe = SystemWipe::of_argument(&value).map_err(|error| format!("{}: {error}", cmdline::WIPE))?;
    let Some(path) = system_disk::settled_device(store).await? else {
        tracing::info!("no disk has the system: nothing is wiped");
        return Ok(());
    };
    system(disks, &path, &wipe).await?;
    match tokio::time::timeout(SEEN, until_seen(store, &path, &wipe)).await {
        Ok(seen) => Ok(seen?),
        Err(_) => {
            tracing::warn!(disk = %path.display(), "wiped, but not seen to be empty after {} s", SEEN.as_secs());
            Ok(())
        }
    }
}

/// Ends when discovery has seen that a disk or partitions of it were wiped.
async fn until_seen(store: &Store, disk: &Path, wipe: &SystemWipe) -> Result<(), StateError> {
    let name = disk.strip_prefix("/dev").unwrap_or(disk).to_string_lossy().replace('/', "!");
    // Those that boot loaders read have an empty file system, as they had one before.
    let stays_empty = |label: &&Label| !matches!(label, Label::Efi | Label::Boot);
    loop {
        // The watches first: a change after the look is an event.
        let mut systems = store.watch_kind(&Kind::of::<SystemDisk>(), WatchOptions::default())?;
        let mut volumes = store.watch_kind(&Kind::of::<DiscoveredVolume>(), WatchOptions::default())?;
        let is_seen = match wipe {
            SystemWipe::Disk => system_disk::device(store)?.as_deref() != Some(disk),
            SystemWipe::Labels(labels) => {
                let found = store.list_as::<DiscoveredVolume>()?;
                labels.iter().filter(stays_empty).all(|label| {
                    !found.iter().any(|volume| {
                        volume.parent == name && volume.partition_label == label.name() && !volume.name.is_empty()
                    })
                })
            }
        };
        if is_seen {
            return Ok(());
        }
        // Both arms are cancel-safe: a watch that missed something is begun anew, and the state looked at.
        tokio::select! {
            event = systems.next() => drop(event),
            event = volumes.next() => drop(event),
        }
    }
}

/// What a request for a reset asks for.
fn parameters(request: &Request) -> ResetParameters {
    match &request.options.parameters {
        Parameters::Reset(reset) => reset.clone(),
        _ => ResetParameters::default(),
    }
}

/// Looks whether a reset can wipe what it is asked for, before anything else is done.
pub(crate) async fn verify(disks: &Arc<dyn Disks>, store: &Store, request: &Request) -> Result<(), TaskError> {
    Ok(check_on_thread(disks, store, parameters(request)).await??)
}

async fn check_on_thread(
    disks: &Arc<dyn Disks>,
    store: &Store,
    reset: ResetParameters,
) -> Result<Result<(), WipeError>, TaskError> {
    let (disks, system) = (Arc::clone(disks), system_disk::device(store)?);
    // Reading waits for a disk.
    Ok(tokio::task::spawn_blocking(move || check(&*disks, system.as_deref(), &reset)).await?)
}

/// The disk that was the system disk until a reset wiped it. Then another one, with an old installation, may become it.
pub(crate) type Wiped = OnceLock<PathBuf>;

/// Wipes the system disk, or partitions of it, as a request for a reset says. A machine without one has nothing to wipe.
pub(crate) async fn reset_system(
    disks: &Arc<dyn Disks>,
    store: &Store,
    wiped: &Wiped,
    request: &Request,
) -> Result<(), TaskError> {
    let reset = parameters(request);
    let path = system_disk::device(store)?;
    // Other disks are looked at first: nothing is wiped if one of them is not there.
    drop(open_user_disks(&**disks, path.as_deref(), &reset.user_disks, unused)?);
    let Some(path) = path else {
        tracing::info!("no disk has the system: nothing is wiped");
        return Ok(());
    };
    let wipe = SystemWipe::of_labels(&reset.labels)?;
    // Before it is wiped: discovery may see that before this step has ended. A second reset is of the same disk.
    let path = if wipe == SystemWipe::Disk { wiped.get_or_init(|| path).clone() } else { path };
    system(disks, &path, &wipe).await
}

/// Wipes EPHEMERAL, for a version that is to begin without data.
pub(crate) async fn ephemeral(disks: &Arc<dyn Disks>, store: &Store) -> Result<(), TaskError> {
    let path = system_disk::device(store)?.ok_or(WipeError::NoSystem)?;
    match system(disks, &path, &SystemWipe::Labels(vec![Label::Ephemeral])).await {
        // A machine that was never configured has none yet.
        Err(error) if matches!(error.downcast_ref(), Some(WipeError::NoPartition { .. })) => {
            tracing::info!("no EPHEMERAL to wipe");
            Ok(())
        }
        wiped => wiped,
    }
}

/// Wipes other disks, as a request for a reset says.
pub(crate) async fn reset_user_disks(
    disks: &Arc<dyn Disks>,
    store: &Store,
    wiped: &Wiped,
    request: &Request,
) -> Result<(), TaskError> {
    let reset = parameters(request);
    let system = wiped.get().cloned().map_or_else(|| system_disk::device(store), |disk| Ok(Some(disk)))?;
    let disks = Arc::clone(disks);
    let work = move || {
        for mut disk in open_user_disks(&*disks, system.as_deref(), &reset.user_disks, unused)? {
            tracing::info!(disk = disk.disk().path, "wiping a user disk");
            whole(disk.as_mut())?;
        }
        Ok(())
    };
    // Disks may take long to discard their content.
    tokio::task::spawn_blocking(work).await?
}

/// The disks of this machine for the API, which looks at them before it asks for a reset.
#[derive(Debug)]
pub(crate) struct NodeResetTargets {
    pub(crate) disks: Arc<dyn Disks>,
    pub(crate) store: Store,
}

#[async_trait]
impl ResetTargets for NodeResetTargets {
    async fn check(&self, reset: &ResetParameters) -> Result<(), ResetRefused> {
        let internal = |error: TaskError| ResetRefused::NotPossible(error_chain(&*error));
        let checked = check_on_thread(&self.disks, &self.store, reset.clone()).await.map_err(internal)?;
        checked.map_err(|error| refused(&error))
    }
}

fn refused(error: &WipeError) -> ResetRefused {
    let text = error_chain(error);
    match error {
        WipeError::Label(_) | WipeError::SystemDisk(_) | WipeError::Disk(DiskError::NotDisk { .. }) => {
            ResetRefused::Invalid(text)
        }
        WipeError::Disk(DiskError::Absent { .. }) => {
            ResetRefused::Absent(format!("{text}; `talosctl disks` lists the disks of the machine"))
        }
        WipeError::NoPartition { .. } => ResetRefused::Absent(text),
        WipeError::ReadOnly(_)
        | WipeError::InUse { .. }
        | WipeError::PartOf { .. }
        | WipeError::NoTable { .. }
        | WipeError::NoSystem
        | WipeError::Disk(_) => ResetRefused::NotPossible(text),
    }
}

#[cfg(test)]
mod tests;
