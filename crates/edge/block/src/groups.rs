//! Devices that are made of others: volumes of LVM, arrays of software RAID. Their own tools know the formats.

use std::io;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;

use crate::filesystem::{FileSystemError, load_module, on_thread, run};

const LVM: Duration = Duration::from_secs(120);
const RAID: Duration = Duration::from_secs(120);
const ALL_GROUPS: &str = "all volume groups";
const ALL_ARRAYS: &str = "all arrays";

/// Groups of devices of the machine.
#[async_trait]
pub trait DeviceGroups: std::fmt::Debug + Send + Sync {
    /// Makes the volumes of all volume groups available.
    ///
    /// # Errors
    /// The tool's.
    async fn activate_volume_groups(&self) -> Result<(), FileSystemError>;

    /// Lets go of the disks of all volume groups, as far as nothing uses their volumes.
    ///
    /// # Errors
    /// The tool's, also for a volume that is in use; the others are deactivated.
    async fn deactivate_volume_groups(&self) -> Result<(), FileSystemError>;

    /// The software RAID arrays that wait for members, by name (`md127`).
    ///
    /// # Errors
    /// sysfs cannot be read.
    async fn waiting_arrays(&self) -> Result<Vec<String>, FileSystemError>;

    /// Starts the arrays that have members enough without those that they wait for.
    ///
    /// # Errors
    /// The tool's, also for an array that has too few; the others are started.
    async fn start_degraded_arrays(&self) -> Result<(), FileSystemError>;

    /// Lets go of the members of all arrays, as far as nothing uses them.
    ///
    /// # Errors
    /// The tool's, also for an array that is in use; the others are stopped.
    async fn stop_arrays(&self) -> Result<(), FileSystemError>;
}

/// lvm and mdadm.
#[derive(Debug, Clone, Copy, Default)]
pub struct KernelDeviceGroups;

#[async_trait]
impl DeviceGroups for KernelDeviceGroups {
    async fn activate_volume_groups(&self) -> Result<(), FileSystemError> {
        on_thread(|| load_module("dm_mod")).await?;
        run("lvm", &["vgchange", "-ay"], ALL_GROUPS.to_owned(), LVM).await
    }

    async fn deactivate_volume_groups(&self) -> Result<(), FileSystemError> {
        // At the end of a machine there is no udevd any more, whose answer the tool would wait for.
        run("lvm", &["vgchange", "-an", "--noudevsync"], ALL_GROUPS.to_owned(), LVM).await
    }

    async fn waiting_arrays(&self) -> Result<Vec<String>, FileSystemError> {
        let list = || waiting_arrays(Path::new("/sys/block")).map_err(|source| FileSystemError::Arrays { source });
        on_thread(list).await
    }

    async fn start_degraded_arrays(&self) -> Result<(), FileSystemError> {
        run("mdadm", &["--incremental", "--run", "--scan"], ALL_ARRAYS.to_owned(), RAID).await
    }

    async fn stop_arrays(&self) -> Result<(), FileSystemError> {
        run("mdadm", &["--stop", "--scan"], ALL_ARRAYS.to_owned(), RAID).await
    }
}

/// Arrays that were found and are not started (Linux, Documentation/admin-guide/md.rst, `array_state`).
fn waiting_arrays(sysfs: &Path) -> io::Result<Vec<String>> {
    let mut waiting = Vec::new();
    for entry in std::fs::read_dir(sysfs)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // One that was stopped meanwhile waits for nothing, and what is no array has no such file.
        let state = std::fs::read_to_string(entry.path().join("md/array_state")).unwrap_or_default();
        if state.trim_end() == "inactive" {
            waiting.push(name);
        }
    }
    waiting.sort();
    Ok(waiting)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_that_is_not_started_waits() {
        let sysfs = tempfile::tempdir().unwrap();
        for (name, state) in [("md127", "inactive\n"), ("md0", "clean\n"), ("md1", "inactive\n"), ("md2", "clear\n")] {
            std::fs::create_dir_all(sysfs.path().join(name).join("md")).unwrap();
            std::fs::write(sysfs.path().join(name).join("md/array_state"), state).unwrap();
        }
        std::fs::create_dir(sysfs.path().join("vda")).unwrap();
        assert_eq!(waiting_arrays(sysfs.path()).unwrap(), ["md1", "md127"]);
        let absent = waiting_arrays(&sysfs.path().join("nothing")).unwrap_err();
        assert_eq!(absent.kind(), io::ErrorKind::NotFound);
    }
}
