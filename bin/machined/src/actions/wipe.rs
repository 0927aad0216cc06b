//! Wiping of disks: for a reset, and for `talos.experimental.wipe` of the kernel command line.

use std::path::{Path, PathBuf};

use block::disk::{self, KernelDisk, TargetDisk};
use block::format::Tools;
use machine::cmdline::{self, Cmdline};
use machine::gpt::{Partition, Table};
use machine::install::Contents;
use machine::layout::Label;
use sequencer::{Parameters, Request, TaskError};

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
enum LabelError {
    #[error("{:?} is no partition of a system disk; these are {}", .0, names())]
    Unknown(String),
    #[error("{0:?} must be system, or system: with labels of partitions")]
    Argument(String),
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

/// The system disk of this machine; none where no disk has the system.
fn system_disk() -> Option<PathBuf> {
    // A disk on which an installation was cut off has no META, but nothing to keep either.
    let partition = sys::partitions::device_of(Label::Meta.name())?;
    let name = partition.file_name()?.to_string_lossy().into_owned();
    let real = std::fs::canonicalize(Path::new("/sys/class/block").join(name)).ok()?;
    Some(Path::new("/dev").join(real.parent()?.file_name()?))
}

/// Wipes the system disk. A machine without one has nothing to wipe.
async fn system(wipe: &SystemWipe) -> Result<(), TaskError> {
    let Some(path) = system_disk() else {
        tracing::info!("no disk has the system: nothing is wiped");
        return Ok(());
    };
    tracing::info!(disk = %path.display(), ?wipe, "wiping the system disk");
    let SystemWipe::Labels(labels) = wipe else {
        // Disks may take long to discard their content.
        return tokio::task::spawn_blocking(move || whole(&path)).await?;
    };
    let mut disk = unused(&path)?;
    let Contents::Table(table) = disk::contents(&disk)? else {
        return Err(format!("{} has no partition table", path.display()).into());
    };
    for label in labels {
        partition(&mut disk, &table, *label, &Tools::default()).await?;
    }
    Ok(disk.reread()?)
}

/// Opens a disk that nothing uses: what is mounted is not wiped.
fn unused(path: &Path) -> Result<KernelDisk, TaskError> {
    let disk = KernelDisk::open(path)?;
    let users = &disk.disk().used_by;
    if users.is_empty() { Ok(disk) } else { Err(format!("{} is in use: {}", path.display(), users.join(", ")).into()) }
}

fn whole(path: &Path) -> Result<(), TaskError> {
    let mut disk = unused(path)?;
    disk::wipe(&mut disk)?;
    Ok(disk.reread()?)
}

async fn partition(disk: &mut dyn TargetDisk, table: &Table, label: Label, tools: &Tools) -> Result<(), TaskError> {
    let partition: &Partition =
        table.by_name(label.name()).ok_or_else(|| format!("the system disk has no partition {label}"))?;
    disk::wipe_partition(disk, partition)?;
    let Some(device) = disk.partition_device(partition.number) else { return Ok(()) };
    match label {
        Label::Efi => tools.make_vfat(&device, label.name()).await?,
        Label::Boot => tools.make_xfs(&device, label.name(), None).await?,
        Label::Bios | Label::Meta | Label::State | Label::Ephemeral => {}
    }
    Ok(())
}

/// Opens other disks, so that all are known to be there before the first one is wiped.
fn open_user_disks(paths: &[String]) -> Result<Vec<KernelDisk>, TaskError> {
    let system = system_disk();
    let mut disks = Vec::new();
    for path in paths {
        let disk = unused(Path::new(path))?;
        if system.as_deref() == Some(Path::new(&disk.disk().path)) {
            return Err(format!("{path} is the system disk, not a user disk").into());
        }
        if disk.disk().access == machine::install::Access::ReadOnly {
            return Err(format!("{path} is read-only").into());
        }
        disks.push(disk);
    }
    Ok(disks)
}

fn user_disks(paths: &[String]) -> Result<(), TaskError> {
    for mut disk in open_user_disks(paths)? {
        tracing::info!(disk = disk.disk().path, "wiping a user disk");
        disk::wipe(&mut disk)?;
        disk.reread()?;
    }
    Ok(())
}

/// The value of the kernel argument that asks for a wipe.
fn asked() -> Option<String> {
    let running = std::fs::read_to_string("/proc/cmdline").ok()?;
    Cmdline::parse(&running).first(cmdline::WIPE).map(str::to_owned)
}

/// Whether the kernel command line asks for the system disk to be wiped.
pub(crate) fn is_asked() -> bool {
    asked().is_some()
}

/// Wipes what the kernel command line asks for.
pub(crate) async fn asked_by_kernel_argument() -> Result<(), TaskError> {
    let Some(value) = asked() else { return Ok(()) };
    system(&SystemWipe::of_argument(&value).map_err(|error| format!("{}: {error}", cmdline::WIPE))?).await
}

/// Wipes the system disk, or partitions of it, as a request for a reset says.
pub(crate) async fn reset_system(request: &Request) -> Result<(), TaskError> {
    let Parameters::Reset(reset) = &request.options.parameters else { return system(&SystemWipe::Disk).await };
    // Other disks are looked at first: nothing is wiped if one of them is not there.
    drop(open_user_disks(&reset.user_disks)?);
    system(&SystemWipe::of_labels(&reset.labels)?).await
}

/// Wipes other disks, as a request for a reset says.
pub(crate) async fn reset_user_disks(request: &Request) -> Result<(), TaskError> {
    let Parameters::Reset(reset) = &request.options.parameters else { return Ok(()) };
    let disks = reset.user_disks.clone();
    // Disks may take long to discard their content.
    tokio::task::spawn_blocking(move || user_disks(&disks)).await?
}

#[cfg(test)]
mod tests {
    use block::disk::testing::FakeDisk;
    use machine::gpt::{Geometry, Guid, ProtectiveEntry};
    use machine::layout::{self, Layout};

    use super::*;

    #[test]
    fn the_kernel_argument_names_the_disk_or_partitions() {
        assert_eq!(SystemWipe::of_argument("system"), Ok(SystemWipe::Disk));
        let labels = SystemWipe::Labels(vec![Label::Ephemeral, Label::State]);
        assert_eq!(SystemWipe::of_argument("system:EPHEMERAL,STATE"), Ok(labels));
        assert_eq!(SystemWipe::of_argument("system:state"), Err(LabelError::Unknown("state".into())));
        for bad in ["", "all", "system:", "user:STATE"] {
            assert_eq!(SystemWipe::of_argument(bad), Err(LabelError::Argument(bad.into())));
        }
        assert_eq!(SystemWipe::of_labels::<&str>(&[]), Ok(SystemWipe::Disk));
    }

    #[tokio::test]
    async fn only_the_partition_of_the_label_is_wiped() {
        let mut disk = FakeDisk::new(4 << 30);
        let geometry = Geometry::new(512, 4 << 30).unwrap();
        let id = || Guid::from_random([1; 16]);
        let table = layout::table(Layout::Uki, geometry, 0, layout::EPHEMERAL_MINIMUM, id).unwrap();
        disk::write_table(&mut disk, &table, ProtectiveEntry::Inactive, b"").unwrap();
        let offset = |label: Label| table.by_name(label.name()).unwrap().offset(geometry);
        for label in [Label::Meta, Label::State] {
            disk.write_at(offset(label), &[7; 512]).unwrap();
        }
        partition(&mut disk, &table, Label::State, &Tools::default()).await.unwrap();
        let mut sector = [0; 512];
        disk.read_at(offset(Label::Meta), &mut sector).unwrap();
        assert_eq!(sector, [7; 512]);
        disk.read_at(offset(Label::State), &mut sector).unwrap();
        assert_eq!(sector, [0; 512]);
        let absent = partition(&mut disk, &table, Label::Boot, &Tools::default()).await.unwrap_err();
        assert_eq!(absent.to_string(), "the system disk has no partition BOOT");
    }
}
