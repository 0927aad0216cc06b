//! Partition tables of disks that the kernel has: making a table on an empty disk, naming partitions, and growing one to the
//! next or to the end of a disk that became larger.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use async_trait::async_trait;
use machine::gpt;

use crate::device::Device;
use crate::kernel::KernelBlockDevices;

/// Partitions begin and end at multiples of this.
const ALIGNMENT: u64 = 1 << 20;

/// Work on a partition table failed.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    #[error("opening {}", disk.display())]
    Open {
        disk: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("reading the partition table of {}", disk.display())]
    Read {
        disk: PathBuf,
        #[source]
        source: gpt::ReadTableError<io::Error>,
    },
    #[error("{} has no partition {label}", disk.display())]
    NoPartition { disk: PathBuf, label: String },
    #[error("the size of {} makes no sense", disk.display())]
    Geometry {
        disk: PathBuf,
        #[source]
        source: gpt::GeometryError,
    },
    #[error("writing the partition table of {}", disk.display())]
    Write {
        disk: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("telling the kernel the size of partition {number} of {}", disk.display())]
    Kernel {
        disk: PathBuf,
        number: u32,
        #[source]
        source: io::Error,
    },
    #[error("{} holds {content}, and only an empty disk is partitioned", disk.display())]
    NotEmpty { disk: PathBuf, content: String },
    #[error("work on a partition table was interrupted")]
    Interrupted,
}

/// What became of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grown {
    Unchanged,
    /// Its new size in bytes.
    To(u64),
}

/// Partition tables of disks.
#[async_trait]
pub trait PartitionTables: std::fmt::Debug + Send + Sync {
    /// Writes a table to an empty disk; its partitions are there on return.
    ///
    /// # Errors
    /// [`TableError::NotEmpty`]; others leave a table that may be incomplete for the kernel, and whole on the disk.
    async fn create(&self, disk: &Device, table: &gpt::Table) -> Result<(), TableError>;

    /// Gives partitions of a disk new names, by their numbers.
    ///
    /// # Errors
    /// [`TableError`]; the table is whole at any time.
    async fn rename(&self, disk: &Device, names: &[(u32, String)]) -> Result<(), TableError>;

    /// Grows the partition `label` of a disk as far as it can, also while it is mounted, and puts the backup of the table at
    /// the disk's end.
    ///
    /// # Errors
    /// [`TableError`]; the table is whole at any time.
    async fn grow(&self, disk: &Device, label: &str) -> Result<Grown, TableError>;
}

/// A table to be written, in which the partition has this size.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct GrowthPlan {
    pub(crate) table: gpt::Table,
    pub(crate) number: u32,
    pub(crate) start: u64,
    pub(crate) bytes: u64,
}

/// The table with a larger partition `label`; `None` if it cannot grow by a whole unit of alignment.
pub(crate) fn plan(disk: &Device, table: &gpt::Table, label: &str) -> Result<Option<GrowthPlan>, TableError> {
    let missing = || TableError::NoPartition { disk: disk.path.clone(), label: label.to_owned() };
    let mut table = table.clone();
    let old = table.by_name(label).ok_or_else(missing)?.clone();
    let unit = (ALIGNMENT / u64::from(table.geometry.sector_size())).max(1);
    let end = (table.last_free_after(&old) + 1) / unit * unit;
    if end <= old.last + 1 {
        return Ok(None);
    }
    let geometry = table.geometry;
    let partition = table.partitions.iter_mut().find(|one| one.number == old.number).ok_or_else(missing)?;
    partition.last = end - 1;
    let (start, bytes) = (partition.offset(geometry), partition.size(geometry));
    Ok(Some(GrowthPlan { table, number: old.number, start, bytes }))
}

#[async_trait]
impl PartitionTables for KernelBlockDevices {
    async fn create(&self, disk: &Device, table: &gpt::Table) -> Result<(), TableError> {
        let (disk, table) = (disk.clone(), table.clone());
        let created = tokio::task::spawn_blocking(move || create(&disk, &table)).await;
        created.unwrap_or(Err(TableError::Interrupted))
    }

    async fn rename(&self, disk: &Device, names: &[(u32, String)]) -> Result<(), TableError> {
        let (disk, names) = (disk.clone(), names.to_vec());
        let renamed = tokio::task::spawn_blocking(move || rename(&disk, &names)).await;
        renamed.unwrap_or(Err(TableError::Interrupted))
    }

    async fn grow(&self, disk: &Device, label: &str) -> Result<Grown, TableError> {
        let (disk, label) = (disk.clone(), label.to_owned());
        let grown = tokio::task::spawn_blocking(move || grow(&disk, &label)).await;
        grown.unwrap_or(Err(TableError::Interrupted))
    }
}

/// Opens a disk and reads its table.
fn open(disk: &Device) -> Result<(File, gpt::Found), TableError> {
    let file = open_disk(disk)?;
    let geometry = gpt::Geometry::new(disk.sector_size, disk.size);
    let geometry = geometry.map_err(|source| TableError::Geometry { disk: disk.path.clone(), source })?;
    let found = gpt::read(geometry, |offset, buffer: &mut [u8]| file.read_exact_at(buffer, offset));
    let found = found.map_err(|source| TableError::Read { disk: disk.path.clone(), source })?;
    Ok((file, found))
}

fn open_disk(disk: &Device) -> Result<File, TableError> {
    let file = OpenOptions::new().read(true).write(true).open(&disk.path);
    file.map_err(|source| TableError::Open { disk: disk.path.clone(), source })
}

fn create(disk: &Device, table: &gpt::Table) -> Result<(), TableError> {
    let mut file = open_disk(disk)?;
    let path = || disk.path.clone();
    let content = crate::kernel::probe_reader(&mut file, disk);
    match content.map_err(|source| TableError::Write { disk: path(), source })?.content {
        None => {}
        Some(content) => return Err(TableError::NotEmpty { disk: path(), content: content.name.to_owned() }),
    }
    write(&file, table).map_err(|source| TableError::Write { disk: path(), source })?;
    for partition in &table.partitions {
        let number = partition.number;
        let added =
            partition_request(&file, ADD, number, partition.offset(table.geometry), partition.size(table.geometry));
        match added {
            // The kernel has seen the table by itself.
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {}
            other => other.map_err(|source| TableError::Kernel { disk: path(), number, source })?,
        }
    }
    Ok(())
}

fn rename(disk: &Device, names: &[(u32, String)]) -> Result<(), TableError> {
    let (file, mut found) = open(disk)?;
    for partition in &mut found.table.partitions {
        if let Some((_, name)) = names.iter().find(|(number, _)| *number == partition.number) {
            partition.name.clone_from(name);
        }
    }
    write(&file, &found.table).map_err(|source| TableError::Write { disk: disk.path.clone(), source })
}

fn grow(disk: &Device, label: &str) -> Result<Grown, TableError> {
    let (file, found) = open(disk)?;
    let path = || disk.path.clone();
    let plan = plan(disk, &found.table, label)?;
    if plan.is_none() && !found.needs_repair() {
        return Ok(Grown::Unchanged);
    }
    let table = plan.as_ref().map_or(&found.table, |plan| &plan.table);
    write(&file, table).map_err(|source| TableError::Write { disk: path(), source })?;
    let Some(plan) = plan else { return Ok(Grown::Unchanged) };
    let resized = partition_request(&file, RESIZE, plan.number, plan.start, plan.bytes);
    resized.map_err(|source| TableError::Kernel { disk: path(), number: plan.number, source })?;
    Ok(Grown::To(plan.bytes))
}

/// Writes a table with what the MBR has for old firmware.
fn write(file: &File, table: &gpt::Table) -> io::Result<()> {
    let mut mbr = [0; 512];
    file.read_exact_at(&mut mbr, 0)?;
    let entry = if mbr[446] == 0x80 { gpt::ProtectiveEntry::Active } else { gpt::ProtectiveEntry::Inactive };
    for region in gpt::writes(table, entry, &mbr[..gpt::BOOT_CODE_SIZE]) {
        file.write_all_at(&region.bytes, region.offset)?;
        file.sync_all()?;
    }
    Ok(())
}

/// `struct blkpg_partition` of linux/blkpg.h.
#[repr(C)]
struct BlkpgPartition {
    start: i64,
    length: i64,
    number: i32,
    names: [u8; 128],
}

/// `struct blkpg_ioctl_arg` of linux/blkpg.h.
#[repr(C)]
struct BlkpgArgument {
    operation: i32,
    flags: i32,
    length: i32,
    data: *mut BlkpgPartition,
}

/// Operations of `BLKPG`.
const ADD: i32 = 1;
const RESIZE: i32 = 3;

/// Adds a partition to those that the kernel has, or changes its size; it may be in use. In bytes.
fn partition_request(file: &File, operation: i32, number: u32, start: u64, length: u64) -> io::Result<()> {
    const BLKPG: u64 = 0x1269;
    let signed = |value: u64| i64::try_from(value).map_err(io::Error::other);
    let mut partition = BlkpgPartition {
        start: signed(start)?,
        length: signed(length)?,
        number: i32::try_from(number).map_err(io::Error::other)?,
        names: [0; 128],
    };
    let length = i32::try_from(size_of::<BlkpgPartition>()).map_err(io::Error::other)?;
    let mut argument = BlkpgArgument { operation, flags: 0, length, data: &raw mut partition };
    // SAFETY: the request takes a `blkpg_ioctl_arg` that points at a `blkpg_partition`; both live until it returns.
    #[expect(unsafe_code, reason = "no crate has this request")]
    let code = unsafe { libc::ioctl(file.as_raw_fd(), BLKPG as _, &raw mut argument) };
    if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
