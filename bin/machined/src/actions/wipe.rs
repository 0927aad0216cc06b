//! Wiping of disks: for a reset, and for `talos.experimental.wipe` of the kernel command line.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use block::disk::{self, Disks, EmptyFileSystem, TargetDisk};
use machine::cmdline::{self, Cmdline};
use machine::gpt::Table;
use machine::install::{Access, Contents};
use machine::layout::Label;
use sequencer::{Parameters, Request, TaskError};
use sys::early::EarlySystem;

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
fn system_disk(disks: &dyn Disks) -> Option<PathBuf> {
    // A disk on which an installation was cut off has no META, but nothing to keep either.
    disks.with_partition(Label::Meta.name())
}

/// Wipes the system disk. A machine without one has nothing to wipe.
async fn system(disks: &Arc<dyn Disks>, wipe: &SystemWipe) -> Result<(), TaskError> {
    let Some(path) = system_disk(&**disks) else {
        tracing::info!("no disk has the system: nothing is wiped");
        return Ok(());
    };
    tracing::info!(disk = %path.display(), ?wipe, "wiping the system disk");
    let mut disk = unused(&**disks, &path)?;
    let SystemWipe::Labels(labels) = wipe else {
        // Disks may take long to discard their content.
        return tokio::task::spawn_blocking(move || whole(disk.as_mut())).await?;
    };
    let Contents::Table(table) = disk::contents(disk.as_ref())? else {
        return Err(format!("{} has no partition table", path.display()).into());
    };
    for label in labels {
        partition(&**disks, disk.as_mut(), &table, *label).await?;
    }
    Ok(disk.reread()?)
}

/// Opens a disk that nothing uses: what is mounted is not wiped.
fn unused(disks: &dyn Disks, path: &Path) -> Result<Box<dyn TargetDisk>, TaskError> {
    let disk = disks.open(path)?;
    let users = &disk.disk().used_by;
    if users.is_empty() { Ok(disk) } else { Err(format!("{} is in use: {}", path.display(), users.join(", ")).into()) }
}

fn whole(disk: &mut dyn TargetDisk) -> Result<(), TaskError> {
    disk::wipe(disk)?;
    Ok(disk.reread()?)
}

async fn partition(disks: &dyn Disks, disk: &mut dyn TargetDisk, table: &Table, label: Label) -> Result<(), TaskError> {
    let partition = table.by_name(label.name()).ok_or_else(|| format!("the system disk has no partition {label}"))?;
    disk::wipe_partition(disk, partition)?;
    let Some(device) = disk.partition_device(partition.number) else { return Ok(()) };
    let kind = match label {
        Label::Efi => EmptyFileSystem::Vfat,
        Label::Boot => EmptyFileSystem::Xfs,
        Label::Bios | Label::Meta | Label::State | Label::Ephemeral => return Ok(()),
    };
    Ok(disks.format(&device, kind, label.name()).await?)
}

/// Opens other disks, so that all are known to be there before the first one is wiped.
fn open_user_disks(disks: &dyn Disks, paths: &[String]) -> Result<Vec<Box<dyn TargetDisk>>, TaskError> {
    let system = system_disk(disks);
    let mut open = Vec::new();
    for path in paths {
        let disk = unused(disks, Path::new(path))?;
        if system.as_deref() == Some(Path::new(&disk.disk().path)) {
            return Err(format!("{path} is the system disk, not a user disk").into());
        }
        if disk.disk().access == Access::ReadOnly {
            return Err(format!("{path} is read-only").into());
        }
        open.push(disk);
    }
    Ok(open)
}

fn user_disks(disks: &dyn Disks, paths: &[String]) -> Result<(), TaskError> {
    for mut disk in open_user_disks(disks, paths)? {
        tracing::info!(disk = disk.disk().path, "wiping a user disk");
        whole(disk.as_mut())?;
    }
    Ok(())
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

/// Wipes what the kernel command line asks for.
pub(crate) async fn asked_by_kernel_argument(
    kernel: &dyn EarlySystem,
    disks: &Arc<dyn Disks>,
) -> Result<(), TaskError> {
    let Some(value) = asked(kernel) else { return Ok(()) };
    system(disks, &SystemWipe::of_argument(&value).map_err(|error| format!("{}: {error}", cmdline::WIPE))?).await
}

/// Wipes the system disk, or partitions of it, as a request for a reset says.
pub(crate) async fn reset_system(disks: &Arc<dyn Disks>, request: &Request) -> Result<(), TaskError> {
    let Parameters::Reset(reset) = &request.options.parameters else { return system(disks, &SystemWipe::Disk).await };
    // Other disks are looked at first: nothing is wiped if one of them is not there.
    drop(open_user_disks(&**disks, &reset.user_disks)?);
    system(disks, &SystemWipe::of_labels(&reset.labels)?).await
}

/// Wipes other disks, as a request for a reset says.
pub(crate) async fn reset_user_disks(disks: &Arc<dyn Disks>, request: &Request) -> Result<(), TaskError> {
    let Parameters::Reset(reset) = &request.options.parameters else { return Ok(()) };
    let (disks, paths) = (Arc::clone(disks), reset.user_disks.clone());
    // Disks may take long to discard their content.
    tokio::task::spawn_blocking(move || user_disks(&*disks, &paths)).await?
}

#[cfg(test)]
mod tests {
    use block::disk::testing::{Change, FakeDisk, FakeDisks};
    use machine::gpt::{Guid, ProtectiveEntry};
    use machine::layout::{self, Layout};
    use sequencer::{ActorId, ResetParameters, Sequence};
    use sys::early::FakeEarlySystem;

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

    const GIB: u64 = 1 << 30;
    const SYSTEM: &str = "/dev/sda";

    /// A disk with the system, whose partitions have content.
    fn system_of(layout: Layout) -> FakeDisk {
        let mut disk = FakeDisk::new(4 * GIB).at(SYSTEM);
        let geometry = disk.disk().geometry;
        let id = || Guid::from_random([1; 16]);
        let table = layout::table(layout, geometry, 0, layout::EPHEMERAL_MINIMUM, id).unwrap();
        disk::write_table(&mut disk, &table, ProtectiveEntry::Inactive, b"").unwrap();
        for partition in &table.partitions {
            disk.write_at(partition.offset(geometry), &[7; 512]).unwrap();
        }
        disk.flush().unwrap();
        disk
    }

    /// Labels of the partitions that still have content.
    fn kept(disks: &FakeDisks) -> Vec<String> {
        let disk = disks.disk(SYSTEM).unwrap();
        let Contents::Table(table) = disk::contents(&disk).unwrap() else { return Vec::new() };
        let has_content = |partition: &&machine::gpt::Partition| {
            let mut sector = [0; 512];
            disk.read_at(partition.offset(disk.disk().geometry), &mut sector).unwrap();
            sector == [7; 512]
        };
        table.partitions.iter().filter(has_content).map(|partition| partition.name.clone()).collect()
    }

    fn reset(labels: &[&str], user_disks: &[&str]) -> Request {
        let strings = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
        let parameters =
            ResetParameters { labels: strings(labels), user_disks: strings(user_disks), ..ResetParameters::default() };
        Request::new(Sequence::Reset, ActorId::machine()).with(Parameters::Reset(parameters))
    }

    async fn reset_system_of(disks: &FakeDisks, request: &Request) -> Result<(), TaskError> {
        let disks: Arc<dyn Disks> = Arc::new(disks.clone());
        reset_system(&disks, request).await
    }

    async fn reset_users_of(disks: &FakeDisks, request: &Request) -> Result<(), TaskError> {
        let disks: Arc<dyn Disks> = Arc::new(disks.clone());
        reset_user_disks(&disks, request).await
    }

    #[tokio::test]
    async fn only_the_partitions_of_the_labels_are_wiped_and_boot_partitions_get_file_systems() {
        let disks = FakeDisks::default().with(system_of(Layout::Both));
        reset_system_of(&disks, &reset(&["STATE", "BOOT"], &[])).await.unwrap();
        assert_eq!(kept(&disks), ["EFI", "BIOS", "META", "EPHEMERAL"]);
        let formats = |change: &Change| matches!(change, Change::Format(..));
        let formatted: Vec<_> = disks.changes().into_iter().filter(formats).collect();
        assert_eq!(formatted, [Change::Format("/dev/sdap3".into(), EmptyFileSystem::Xfs)]);
        assert_eq!(disks.changes().last(), Some(&Change::Reread(SYSTEM.into())));
        let disks = FakeDisks::default().with(system_of(Layout::Uki));
        let absent = reset_system_of(&disks, &reset(&["BOOT"], &[])).await.unwrap_err();
        assert_eq!(absent.to_string(), "the system disk has no partition BOOT");
    }

    #[tokio::test]
    async fn a_wiped_disk_has_no_table_and_a_machine_without_a_system_has_nothing_to_wipe() {
        let disks = FakeDisks::default().with(system_of(Layout::Uki)).with(FakeDisk::new(GIB).at("/dev/sdb"));
        reset_system_of(&disks, &reset(&[], &[])).await.unwrap();
        assert_eq!(disk::contents(&disks.disk(SYSTEM).unwrap()).unwrap(), Contents::Empty);
        let changes = disks.changes();
        assert!(changes.iter().all(|change| !format!("{change:?}").contains("sdb")), "{changes:?}");
        reset_system_of(&disks, &reset(&[], &[])).await.unwrap();
        assert_eq!(disks.changes(), changes);
    }

    #[tokio::test]
    async fn nothing_is_wiped_unless_all_can_be() {
        let disks = || {
            FakeDisks::default()
                .with(system_of(Layout::Uki))
                .with(FakeDisk::new(GIB).at("/dev/sdb"))
                .with(FakeDisk::new(GIB).at("/dev/sdc").read_only())
                .with(FakeDisk::new(GIB).at("/dev/sdd").used_by("/dev/sdd1 is mounted on /var/mnt"))
        };
        for (bad, reason) in [
            ("/dev/sdc", "/dev/sdc is read-only"),
            ("/dev/sdd", "/dev/sdd is in use: /dev/sdd1 is mounted on /var/mnt"),
            ("/dev/sde", "there is no disk /dev/sde"),
            (SYSTEM, "/dev/sda is the system disk, not a user disk"),
        ] {
            let disks = disks();
            let request = reset(&[], &["/dev/sdb", bad]);
            for refused in [reset_system_of(&disks, &request).await, reset_users_of(&disks, &request).await] {
                assert_eq!(refused.unwrap_err().to_string(), reason);
            }
            assert_eq!(disks.changes(), []);
        }
        let busy = FakeDisks::default().with(system_of(Layout::Uki).used_by("/dev/sda4 is mounted on /var"));
        let refused = reset_system_of(&busy, &reset(&[], &[])).await.unwrap_err();
        assert_eq!(refused.to_string(), "/dev/sda is in use: /dev/sda4 is mounted on /var");
        let disks = disks();
        reset_users_of(&disks, &reset(&[], &["/dev/sdb"])).await.unwrap();
        assert_eq!(disks.changes().first(), Some(&Change::Discard("/dev/sdb".into())));
    }

    #[tokio::test]
    async fn each_change_that_fails_fails_the_reset() {
        for labels in [&[][..], &["STATE", "BOOT", "EFI"]] {
            let machine = || FakeDisks::default().with(system_of(Layout::Both));
            let whole = machine();
            reset_system_of(&whole, &reset(labels, &[])).await.unwrap();
            for (number, change) in whole.changes().into_iter().enumerate() {
                let disks = machine();
                disks.fail_at(number);
                let result = reset_system_of(&disks, &reset(labels, &[])).await;
                // A disk need not be able to discard.
                let is_needed = !matches!(change, Change::Discard(_));
                assert_eq!(result.is_err(), is_needed, "{change:?}");
            }
        }
    }

    #[tokio::test]
    async fn the_kernel_argument_wipes_what_it_names() {
        let kernel = |arguments: &str| FakeEarlySystem::default().with_text("/proc/cmdline", arguments);
        let asking = kernel("talos.experimental.wipe=system:STATE");
        assert!(is_asked(&asking) && !is_asked(&kernel("quiet")));
        let disks = FakeDisks::default().with(system_of(Layout::Uki));
        let shared: Arc<dyn Disks> = Arc::new(disks.clone());
        asked_by_kernel_argument(&asking, &shared).await.unwrap();
        assert_eq!(kept(&disks), ["EFI", "META", "EPHEMERAL"]);
        let error = asked_by_kernel_argument(&kernel("talos.experimental.wipe=all"), &shared).await.unwrap_err();
        let expected = "talos.experimental.wipe: \"all\" must be system, or system: with labels of partitions";
        assert_eq!(error.to_string(), expected);
    }
}
