//! A disk of this kernel.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use machine::gpt::Geometry;
use machine::install::{Access, Disk};
use rustix::fs::{OFlags, SeekFrom};
use rustix::io::Errno;
use rustix::ioctl::{NoArg, Opcode, Setter, ioctl};

use super::named_file::NamedFile;
use super::{DiskError, TargetDisk};

/// Has the kernel read a partition table again (`linux/fs.h`: 0x12, 95).
const BLKRRPART: Opcode = 0x125f;
/// Discards a range of a device (`linux/fs.h`: 0x12, 119).
const BLKDISCARD: Opcode = 0x1277;
/// Attempts to have the table read again: udev opens partitions for a moment when they appear.
const REREADS: u32 = 20;
const BETWEEN_REREADS: Duration = Duration::from_millis(250);
/// Mounts of the first process of this process-id namespace: an installer in a container sees the machine's.
const MOUNTS: &str = "/proc/1/mounts";

/// A whole disk, opened for reading and writing.
#[derive(Debug)]
pub struct KernelDisk {
    file: NamedFile,
    disk: Disk,
}

impl KernelDisk {
    /// Opens `/dev/sda`, or a link to it. Whether it is in use is found out by an exclusive open, which is given up again:
    /// the kernel holds a disk for its partitions' users as well.
    ///
    /// # Errors
    /// No such disk, a partition, a size that no disk has.
    pub fn open(path: &Path) -> Result<Self, DiskError> {
        let open_error = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => DiskError::Absent { path: path.to_owned() },
            _ => DiskError::Open { path: path.to_owned(), source },
        };
        let resolved = fs::canonicalize(path).map_err(open_error)?;
        if !fs::metadata(&resolved).map_err(open_error)?.file_type().is_block_device() {
            return Err(DiskError::NotDisk { path: path.to_owned() });
        }
        let name = resolved.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let sys = Path::new("/sys/class/block").join(&name);
        if !sys.exists() || sys.join("partition").exists() {
            return Err(DiskError::NotDisk { path: path.to_owned() });
        }
        let access = if number(&sys.join("ro")) == Some(0) { Access::Writable } else { Access::ReadOnly };
        let open = OpenOptions::new().read(true).write(access == Access::Writable).open(&resolved);
        let file = open.map_err(open_error)?;
        let bytes = rustix::fs::seek(&file, SeekFrom::End(0)).map_err(|errno| open_error(errno.into()))?;
        let sector = rustix::fs::ioctl_blksszget(&file).map_err(|errno| open_error(errno.into()))?;
        let geometry =
            Geometry::new(sector, bytes).map_err(|source| DiskError::Geometry { path: path.to_owned(), source })?;
        let queue = |name: &str| number(&sys.join("queue").join(name)).unwrap_or_default();
        let alignment = queue("physical_block_size").max(queue("minimum_io_size"));
        let used_by = users(&resolved, &name);
        let disk = Disk { path: resolved.display().to_string(), geometry, alignment, access, used_by };
        Ok(Self { file: NamedFile::new(file, &resolved), disk })
    }
}

/// Whether a device is an encrypted volume of the system, which is closed when it is unmounted.
fn is_own_encrypted(id: &str) -> bool {
    id.starts_with("CRYPT-LUKS2-") && id.trim_end().ends_with("-encrypted")
}

/// Devices that are made of a disk or of its partitions, without those that let go of it: volumes of LVM, arrays, and the encrypted
/// volumes of the system.
pub(super) fn part_of(path: &Path) -> Vec<String> {
    let Ok(resolved) = fs::canonicalize(path) else { return Vec::new() };
    let name = resolved.file_name().unwrap_or_default().to_string_lossy().into_owned();
    holders(Path::new("/sys/class/block"), &name)
}

fn holders(devices: &Path, disk: &str) -> Vec<String> {
    let entries = |path: PathBuf| fs::read_dir(path).into_iter().flatten().flatten();
    let partitions =
        entries(devices.join(disk)).map(|entry| entry.path()).filter(|path| path.join("partition").exists());
    let devices_of_it = std::iter::once(devices.join(disk)).chain(partitions);
    let mut names: Vec<String> = devices_of_it
        .flat_map(|device| entries(device.join("holders")))
        .map(|holder| holder.file_name().to_string_lossy().into_owned())
        .filter(|holder| {
            let holder = devices.join(holder);
            let id = fs::read_to_string(holder.join("dm/uuid"));
            !id.is_ok_and(|id| id.starts_with("LVM-") || is_own_encrypted(&id)) && !holder.join("md").is_dir()
        })
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// What uses a disk or its partitions. Empty where nothing does.
fn users(path: &Path, name: &str) -> Vec<String> {
    let exclusive = OFlags::EXCL.bits().cast_signed();
    match OpenOptions::new().read(true).custom_flags(exclusive).open(path) {
        Err(error) if error.raw_os_error() == Some(Errno::BUSY.raw_os_error()) => {}
        _ => return Vec::new(),
    }
    let mounts = fs::read_to_string(MOUNTS).unwrap_or_default();
    let mut users: Vec<String> = mounts
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter(|(source, _)| source.strip_prefix("/dev/").is_some_and(|device| is_part_of(device, name)))
        .filter_map(|(source, rest)| Some(format!("{source} is mounted on {}", rest.split(' ').next()?)))
        .take(8)
        .collect();
    let holders = fs::read_dir(Path::new("/sys/class/block").join(name).join("holders"));
    let holders = holders.into_iter().flatten().flatten().take(8);
    users.extend(holders.map(|holder| format!("part of {}", holder.file_name().to_string_lossy())));
    if users.is_empty() {
        users.push("the kernel holds it for a mount or another device".to_owned());
    }
    users
}

/// Whether `device` is the disk of this name or a partition of it: `sda1`, `nvme0n1p1`.
fn is_part_of(device: &str, disk: &str) -> bool {
    let Some(rest) = device.strip_prefix(disk) else { return false };
    let number = if disk.ends_with(|last: char| last.is_ascii_digit()) { rest.strip_prefix('p') } else { Some(rest) };
    rest.is_empty()
        || number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

impl TargetDisk for KernelDisk {
    fn disk(&self) -> &Disk {
        &self.disk
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        self.file.read_at(offset, buffer)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.file.write_at(offset, bytes)
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        self.file.file.sync_all().map_err(|source| DiskError::Flush { path: self.file.path(), source })
    }

    #[expect(unsafe_code, reason = "a call to the kernel that has no safe form")]
    fn discard(&mut self) {
        let range = [0, self.disk.geometry.bytes()];
        // SAFETY: BLKDISCARD reads two u64 and touches no memory of this process.
        let result = unsafe { ioctl(&self.file.file, Setter::<BLKDISCARD, [u64; 2]>::new(range)) };
        if let Err(error) = result {
            tracing::debug!(disk = self.disk.path, %error, "the disk cannot discard its content");
        }
    }

    #[expect(unsafe_code, reason = "a call to the kernel that has no safe form")]
    #[expect(clippy::disallowed_methods, reason = "the installer has nothing else to do meanwhile")]
    fn reread(&mut self) -> Result<(), DiskError> {
        let mut attempts = 1;
        loop {
            // SAFETY: BLKRRPART has no argument.
            match unsafe { ioctl(&self.file.file, NoArg::<BLKRRPART>::new()) } {
                Err(Errno::BUSY) if attempts < REREADS => {
                    attempts += 1;
                    std::thread::sleep(BETWEEN_REREADS);
                }
                Err(errno) => return Err(DiskError::Reread { path: self.file.path(), source: errno.into() }),
                Ok(()) => return Ok(()),
            }
        }
    }

    fn partition_device(&self, number: u32) -> Option<PathBuf> {
        let disk = self.disk.path.as_str();
        let separator = if disk.ends_with(|last: char| last.is_ascii_digit()) { "p" } else { "" };
        Some(PathBuf::from(format!("{disk}{separator}{number}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_told_from_other_disks() {
        assert!(is_part_of("sda", "sda") && is_part_of("sda12", "sda") && is_part_of("nvme0n1p3", "nvme0n1"));
        assert!(!is_part_of("sdaa1", "sda") && !is_part_of("nvme0n10", "nvme0n1") && !is_part_of("sdb1", "sda"));
        assert!(!is_part_of("nvme0n1p", "nvme0n1"));
    }

    #[test]
    fn arrays_and_logical_volumes_let_go_of_a_disk_and_others_hold_it() {
        let devices = tempfile::tempdir().unwrap();
        let add = |path: &str, content: &str| {
            let path = devices.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        };
        for (file, content) in [
            ("sdb/sdb1/partition", "1"),
            ("sdb/sdb1/holders/md0", ""),
            ("sdb/sdb2/partition", "2"),
            ("sdb/sdb2/holders/dm-0", ""),
            ("sdb/sdb2/holders/dm-1", ""),
            ("dm-0/dm/uuid", "LVM-abc\n"),
            ("dm-1/dm/uuid", "CRYPT-LUKS2-abc\n"),
            ("sdc/holders/md0", ""),
            ("sdc/holders/bcache0", ""),
            ("md0/md/array_state", "clean\n"),
        ] {
            add(file, content);
        }
        assert_eq!(holders(devices.path(), "sdb"), ["dm-1"]);
        assert_eq!(holders(devices.path(), "sdc"), ["bcache0"]);
        assert_eq!(holders(devices.path(), "sdd"), [""; 0]);
    }

    #[test]
    fn a_disk_that_is_not_there_and_a_file_are_told_apart() {
        let absent = KernelDisk::open(Path::new("/dev/no-such-disk"));
        assert!(matches!(absent, Err(DiskError::Absent { .. })), "{absent:?}");
        let file = KernelDisk::open(Path::new("/proc/version"));
        assert!(matches!(file, Err(DiskError::NotDisk { .. })), "{file:?}");
    }
}
