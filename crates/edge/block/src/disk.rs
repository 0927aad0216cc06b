//! Disks that a system is installed to: a disk of this kernel, an image file, and a fake that loses unflushed writes.
//!
//! Which bytes go where is decided by `machine::install`; the steps are run by the installer.

mod disks;
mod image_file;
mod kernel_disk;
mod named_file;

#[cfg(feature = "testing")]
pub mod testing;

use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};

use machine::gpt::{self, Table};
use machine::install::{Contents, Disk};

pub use disks::{Disks, EmptyFileSystem, KernelDisks};
pub use image_file::ImageFile;
pub use kernel_disk::KernelDisk;

use crate::probe;

/// The part of a disk that is looked at where there is no partition table.
const HEAD: usize = probe::HEAD;
/// The part at the start and at the end of what is wiped that is zeroed.
const ENDS: usize = 1 << 20;

/// Work on a disk failed.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    #[error("there is no disk {}", path.display())]
    Absent { path: PathBuf },
    #[error("opening {}", path.display())]
    Open {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is no whole disk", path.display())]
    NotDisk { path: PathBuf },
    #[error("{}", path.display())]
    Geometry {
        path: PathBuf,
        #[source]
        source: gpt::GeometryError,
    },
    #[error("reading {length} bytes at {offset} of {}", path.display())]
    Read {
        path: PathBuf,
        offset: u64,
        length: usize,
        #[source]
        source: io::Error,
    },
    #[error("writing {length} bytes at {offset} of {}", path.display())]
    Write {
        path: PathBuf,
        offset: u64,
        length: usize,
        #[source]
        source: io::Error,
    },
    #[error("flushing {}", path.display())]
    Flush {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("telling the kernel the partitions of {}", path.display())]
    Reread {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// A disk that a system is installed to. What was written is on the disk after [`flush`](Self::flush), not before.
pub trait TargetDisk: Debug + Send {
    /// The disk as the plan of an installation has to know it.
    fn disk(&self) -> &Disk;

    /// Fills `buffer` from an offset in bytes.
    ///
    /// # Errors
    /// `Read`, also where the disk ends before.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError>;

    /// Writes at an offset in bytes.
    ///
    /// # Errors
    /// `Write`.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), DiskError>;

    /// Waits until all that was written has reached the disk.
    ///
    /// # Errors
    /// `Flush`.
    fn flush(&mut self) -> Result<(), DiskError>;

    /// Forgets all content, as far as the disk can; it may read as anything after that.
    fn discard(&mut self);

    /// Has the kernel read the partition table again.
    ///
    /// # Errors
    /// `Reread`, if a partition is in use.
    fn reread(&mut self) -> Result<(), DiskError>;

    /// The device of a partition, by number, where partitions have any.
    fn partition_device(&self, number: u32) -> Option<PathBuf>;
}

/// What a disk holds: its partition table, or what else was found in its first bytes.
///
/// # Errors
/// Reading failed.
pub fn contents(disk: &dyn TargetDisk) -> Result<Contents, DiskError> {
    let geometry = disk.disk().geometry;
    match gpt::read(geometry, |offset, buffer: &mut [u8]| disk.read_at(offset, buffer)) {
        Ok(found) => Ok(Contents::Table(found.table)),
        Err(gpt::ReadTableError::Read(error)) => Err(error),
        Err(gpt::ReadTableError::Damaged { primary, backup }) => {
            Ok(Contents::Other(format!("a damaged partition table: {primary}; {backup}")))
        }
        Err(gpt::ReadTableError::None) => {
            let length = geometry.bytes().min(HEAD as u64);
            let mut head = vec![0; usize::try_from(length).unwrap_or(HEAD)];
            disk.read_at(0, &mut head)?;
            Ok(without_table(&head))
        }
    }
}

/// What the start of a disk without a partition table of ours says. Whatever is not zero may be somebody's.
fn without_table(head: &[u8]) -> Contents {
    if let Some(content) = probe::probe_head(head) {
        return Contents::Other(format!("{} without a partition table", content.name));
    }
    let is_empty = head.iter().all(|byte| *byte == 0);
    if is_empty { Contents::Empty } else { Contents::Other("data that is not recognized".to_owned()) }
}

/// Writes a partition table, flushing after each of its copies, and has the kernel read it.
///
/// # Errors
/// Writing, flushing or reading it again failed.
pub fn write_table(
    disk: &mut dyn TargetDisk,
    table: &Table,
    entry: gpt::ProtectiveEntry,
    boot_code: &[u8],
) -> Result<(), DiskError> {
    for region in gpt::writes(table, entry, boot_code) {
        disk.write_at(region.offset, &region.bytes)?;
        disk.flush()?;
    }
    disk.reread()
}

/// Wipes a whole disk: all is discarded where the disk can do that, and where partition tables and signatures are is zeroed.
///
/// # Errors
/// Writing failed, or a partition is in use.
pub fn wipe(disk: &mut dyn TargetDisk) -> Result<(), DiskError> {
    disk.discard();
    let end = disk.disk().geometry.bytes();
    // The backup of a partition table is at the end. A disk is never smaller than a few sectors.
    let length = end.min(ENDS as u64);
    for offset in [end - length, 0] {
        disk.write_at(offset, &vec![0; usize::try_from(length).unwrap_or(ENDS)])?;
        disk.flush()?;
    }
    Ok(())
}

/// Zeroes the start of a partition, so that nothing is recognized in it.
///
/// # Errors
/// Writing failed.
pub fn wipe_partition(disk: &mut dyn TargetDisk, partition: &gpt::Partition) -> Result<(), DiskError> {
    let geometry = disk.disk().geometry;
    let length = partition.size(geometry).min(ENDS as u64);
    disk.write_at(partition.offset(geometry), &vec![0; usize::try_from(length).unwrap_or(ENDS)])?;
    disk.flush()
}

/// Copies a file that holds a file system onto a partition, without its holes: what is not copied has to be zero or
/// meaningless there.
///
/// # Errors
/// Reading the file, or writing to the disk failed.
pub fn copy_file(disk: &mut dyn TargetDisk, from: &Path, offset: u64) -> Result<(), DiskError> {
    use std::os::unix::fs::FileExt as _;
    const BLOCK: usize = 1 << 20;
    let read = |source, at| DiskError::Read { path: from.to_owned(), offset: at, length: BLOCK, source };
    let file = std::fs::File::open(from).map_err(|source| DiskError::Open { path: from.to_owned(), source })?;
    let mut buffer = vec![0; BLOCK];
    let mut at = 0;
    while let Some((start, end)) = next_data(&file, at).map_err(|source| read(source, at))? {
        at = start;
        while at < end {
            let length = usize::try_from(end - at).unwrap_or(BLOCK).min(BLOCK);
            file.read_exact_at(&mut buffer[..length], at).map_err(|source| read(source, at))?;
            disk.write_at(offset + at, &buffer[..length])?;
            at += length as u64;
        }
    }
    Ok(())
}

/// The next range of a file from `at` that is no hole, in blocks of 4 KiB.
fn next_data(file: &std::fs::File, at: u64) -> io::Result<Option<(u64, u64)>> {
    use rustix::fs::{SeekFrom, seek};
    let start = match seek(file, SeekFrom::Data(at)) {
        Ok(start) => start,
        Err(rustix::io::Errno::NXIO) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    Ok(Some((start, seek(file, SeekFrom::Hole(start))?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn other(head: &[u8]) -> Option<String> {
        match without_table(head) {
            Contents::Other(what) => Some(what),
            _ => None,
        }
    }

    #[test]
    fn only_zeros_are_nothing() {
        assert_eq!(without_table(&[0; 4096]), Contents::Empty);
        let mut head = [0; 4096];
        head[3000] = 1;
        assert_eq!(other(&head).as_deref(), Some("data that is not recognized"));
    }
}
