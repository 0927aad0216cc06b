//! Partitions of a disk as the kernel's own reading of its partition table shows them. Which disk is meant is decided elsewhere:
//! a machine may have several with partitions of the same names.

use std::path::{Path, PathBuf};

const DEVICES: &str = "/sys/class/block";
/// The kernel counts in these, whatever sectors a disk has.
const SECTOR: u64 = 512;

/// The device of the partition of this name on a disk, by the disk's own device: `/dev/sda`.
#[must_use]
pub fn on_disk(disk: &Path, label: &str) -> Option<PathBuf> {
    find(&directory(Path::new(DEVICES), disk)?, label)
}

/// The size of a disk in bytes, by its device.
#[must_use]
pub fn disk_size(disk: &Path) -> Option<u64> {
    size(&directory(Path::new(DEVICES), disk)?)
}

/// The kernel's directory of a device. Where the name of a device has a slash, that of its directory has another sign.
fn directory(devices: &Path, device: &Path) -> Option<PathBuf> {
    Some(devices.join(device.strip_prefix("/dev").ok()?.to_str()?.replace('/', "!")))
}

/// A partition's directory is in that of its disk.
fn find(disk: &Path, label: &str) -> Option<PathBuf> {
    let has = |text: String| text.lines().any(|line| line.strip_prefix("PARTNAME=") == Some(label));
    let mut paths = std::fs::read_dir(disk).ok()?.flatten().map(|entry| entry.path());
    let found = paths
        .find(|path| path.join("partition").exists() && std::fs::read_to_string(path.join("uevent")).is_ok_and(has))?;
    Some(Path::new("/dev").join(found.file_name()?.to_str()?.replace('!', "/")))
}

fn size(disk: &Path) -> Option<u64> {
    let sectors: u64 = std::fs::read_to_string(disk.join("size")).ok()?.trim().parse().ok()?;
    sectors.checked_mul(SECTOR)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(devices: &Path, disk: &str, partition: &str, label: &str) {
        let directory = devices.join(disk).join(partition);
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("partition"), "5\n").unwrap();
        std::fs::write(directory.join("uevent"), format!("DEVTYPE=partition\nPARTNAME={label}\n")).unwrap();
        std::fs::write(devices.join(disk).join("size"), "16384\n").unwrap();
    }

    /// A partition of an old installation on another disk was taken for the machine's own.
    #[test]
    fn a_partition_is_found_on_its_disk_alone_and_by_the_whole_of_its_name() {
        let devices = tempfile::tempdir().unwrap();
        add(devices.path(), "vda", "vda5", "STATE");
        add(devices.path(), "vdb", "vdb1", "STATE");
        add(devices.path(), "cciss!c0d0", "cciss!c0d0p1", "STATE");
        let find = |disk: &str, label| find(&directory(devices.path(), Path::new(disk)).unwrap(), label);
        assert_eq!(find("/dev/vda", "STATE"), Some("/dev/vda5".into()));
        assert_eq!(find("/dev/vdb", "STATE"), Some("/dev/vdb1".into()));
        assert_eq!(find("/dev/cciss/c0d0", "STATE"), Some("/dev/cciss/c0d0p1".into()));
        assert_eq!((find("/dev/vda", "STAT"), find("/dev/vda", "META"), find("/dev/vdc", "STATE")), (None, None, None));
        assert_eq!(size(&directory(devices.path(), Path::new("/dev/vda")).unwrap()), Some(8 << 20));
    }
}
