//! Disks, partitions and file systems of the kernel: block devices, probing, partition tables, making of file systems. What a
//! partition is for is decided elsewhere.

mod device;
pub mod disk;
pub mod efivar;
pub mod exchange;
#[cfg(feature = "testing")]
mod fake;
mod filesystem;
pub mod format;
mod groups;
mod kernel;
pub mod luks;
pub mod probe;
pub mod slots;
mod sysfs;
mod tables;
mod tool;
pub mod uevent;

pub use device::{BlockDevices, BlockError, Device, DiskErrors, PartitionOf, Probed};
#[cfg(feature = "testing")]
pub use fake::FakeBlock;
pub use filesystem::{FileSystemError, FileSystems, KernelFileSystems, MountPlan, ProjectQuota, UNFINISHED, Usage};
pub use groups::{DeviceGroups, KernelDeviceGroups};
pub use kernel::KernelBlockDevices;
pub use tables::{Grown, PartitionTables, TableError};
