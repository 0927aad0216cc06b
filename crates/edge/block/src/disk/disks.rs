//! The disks of a machine that are wiped and get empty file systems.

use std::fmt::Debug;
use std::path::Path;

use async_trait::async_trait;

use super::{DiskError, KernelDisk, TargetDisk, kernel_disk};
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
    /// Opens a whole disk for reading and writing.
    ///
    /// # Errors
    /// No such disk, a partition, a size that no disk has.
    fn open(&self, path: &Path) -> Result<Box<dyn TargetDisk>, DiskError>;

    /// Devices that are made of a disk or of its partitions, such as arrays. Volumes of LVM do not count: they can be
    /// deactivated.
    fn part_of(&self, path: &Path) -> Vec<String>;

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
    fn open(&self, path: &Path) -> Result<Box<dyn TargetDisk>, DiskError> {
        Ok(Box::new(KernelDisk::open(path)?))
    }

    fn part_of(&self, path: &Path) -> Vec<String> {
        kernel_disk::part_of(path)
    }

    async fn format(&self, device: &Path, kind: EmptyFileSystem, label: &str) -> Result<(), FormatError> {
        let tools = Tools::default();
        match kind {
            EmptyFileSystem::Vfat => tools.make_vfat(device, label).await,
            EmptyFileSystem::Xfs => tools.make_xfs(device, label, None).await,
        }
    }
}
