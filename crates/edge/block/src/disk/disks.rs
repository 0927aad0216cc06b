//! The disks of a machine that are wiped and get empty file systems.

use std::fmt::Debug;
use std::path::{Path, PathBuf};

use async_trait::async_trait;

use super::{DiskError, KernelDisk, TargetDisk};
use crate::format::{FormatError, Tools};

/// An empty file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EmptyFileSystem {
    Vfat,
    Xfs,
}

/// Disks by their devices.
#[async_trait]
pub trait Disks: Debug + Send + Sync {
    /// The disk with the partition of this name; none where no disk has it.
    fn with_partition(&self, label: &str) -> Option<PathBuf>;

    /// Opens a whole disk for reading and writing.
    ///
    /// # Errors
    /// No such disk, a partition, a size that no disk has.
    fn open(&self, path: &Path) -> Result<Box<dyn TargetDisk>, DiskError>;

    /// Makes an empty file system on a partition.
    ///
    /// # Errors
    /// What the tool wrote.
    async fn format(&self, device: &Path, kind: EmptyFileSystem, label: &str) -> Result<(), FormatError>;
}

/// Disks of this kernel.
#[derive(Debug, Default)]
pub struct KernelDisks;

#[async_trait]
impl Disks for KernelDisks {
    fn with_partition(&self, label: &str) -> Option<PathBuf> {
        let partition = sys::partitions::device_of(label)?;
        let name = partition.file_name()?.to_string_lossy().into_owned();
        let real = std::fs::canonicalize(Path::new("/sys/class/block").join(name)).ok()?;
        Some(Path::new("/dev").join(real.parent()?.file_name()?))
    }

    fn open(&self, path: &Path) -> Result<Box<dyn TargetDisk>, DiskError> {
        Ok(Box::new(KernelDisk::open(path)?))
    }

    async fn format(&self, device: &Path, kind: EmptyFileSystem, label: &str) -> Result<(), FormatError> {
        let tools = Tools::default();
        match kind {
            EmptyFileSystem::Vfat => tools.make_vfat(device, label).await,
            EmptyFileSystem::Xfs => tools.make_xfs(device, label, None).await,
        }
    }
}
