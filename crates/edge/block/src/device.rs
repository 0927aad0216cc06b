//! Block devices and access to them.

use std::io;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use machine::disk::Disk;
use machine::gpt;
use tokio::sync::watch;

use crate::probe::Content;

/// Access to block devices failed.
#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    #[error("listing block devices in {}", path.display())]
    List {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("opening {}", device.display())]
    Open {
        device: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("reading {length} bytes at {offset} of {}", device.display())]
    Read {
        device: PathBuf,
        offset: u64,
        length: usize,
        #[source]
        source: io::Error,
    },
    #[error("writing {length} bytes at {offset} of {}", device.display())]
    Write {
        device: PathBuf,
        offset: u64,
        length: usize,
        #[source]
        source: io::Error,
    },
    #[error("listening to events of the kernel's devices")]
    Events(#[source] io::Error),
    #[error("work on a block device was interrupted")]
    Interrupted,
}

/// A partition of a disk as the kernel sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionOf {
    /// Name of the disk: `sda`.
    pub disk: String,
    /// From 1.
    pub number: u32,
    /// Its name in the partition table; empty without one.
    pub name: String,
    /// Where it begins on the disk, in bytes.
    pub start: u64,
}

/// A block device of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// The kernel's name: `sda1`.
    pub name: String,
    /// `/dev/sda1`.
    pub path: PathBuf,
    pub major: u32,
    pub minor: u32,
    /// In bytes.
    pub size: u64,
    /// Bytes of a logical sector.
    pub sector_size: u32,
    /// Bytes of the smallest input or output without penalty.
    pub io_size: u32,
    pub is_read_only: bool,
    /// Counts the kernel's events of this device, and losses of events: another number means that its content may be new.
    pub generation: u64,
    /// `None` for a whole disk.
    pub partition: Option<PartitionOf>,
    /// Properties of a whole disk; of a partition all empty.
    pub disk: Disk,
}

impl Device {
    /// Whether operators count it as a disk: a whole one, with a medium, not made of other devices.
    #[must_use]
    pub fn is_disk(&self) -> bool {
        self.partition.is_none() && self.size > 0 && machine::disk::is_disk(&self.name)
    }
}

/// What was found on a device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Probed {
    /// `None`: nothing was recognized.
    pub content: Option<Content>,
    /// The partition table of a whole disk.
    pub table: Option<gpt::Table>,
}

/// Failed requests to a disk since it appeared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DiskErrors {
    pub count: u64,
    /// The last one, in the kernel's words.
    pub last: String,
}

/// The machine's block devices.
#[async_trait]
pub trait BlockDevices: std::fmt::Debug + Send + Sync {
    /// All devices, whole disks before their partitions, by name.
    ///
    /// # Errors
    /// [`BlockError::List`].
    async fn devices(&self) -> Result<Vec<Device>, BlockError>;

    /// What a device holds.
    ///
    /// # Errors
    /// It cannot be opened or read.
    async fn probe(&self, device: &Device) -> Result<Probed, BlockError>;

    /// Changes about 100 ms after a device came, went or changed.
    fn changes(&self) -> watch::Receiver<u64>;

    /// Tells that a device holds something else now, where the kernel may not: it sends no event for what this process writes, and
    /// udevd's come late or not at all while it still handles the device. Counts as a change of the device.
    fn written(&self, name: &str);

    /// Requests to a whole disk that failed, as far as the kernel's log has them. A new one counts as a change.
    fn errors(&self, disk: &str) -> DiskErrors;

    /// Names of disks that were found and are not ready yet, such as USB sticks that start.
    ///
    /// # Errors
    /// [`BlockError::List`].
    async fn pending(&self) -> Result<Vec<String>, BlockError>;

    /// Bytes of a device, as the device has them: not from a cache.
    ///
    /// # Errors
    /// It cannot be opened, or ends before.
    async fn read_at(&self, device: &Path, offset: u64, length: usize) -> Result<Vec<u8>, BlockError>;

    /// Writes bytes to a device; they are durable on return.
    ///
    /// # Errors
    /// It cannot be opened or written, or ends before.
    async fn write_at(&self, device: &Path, offset: u64, bytes: Vec<u8>) -> Result<(), BlockError>;
}
