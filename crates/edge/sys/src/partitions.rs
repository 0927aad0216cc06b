//! Partitions as the kernel's own reading of partition tables shows them.

use std::path::{Path, PathBuf};

const DEVICES: &str = "/sys/class/block";
/// The kernel counts in these, whatever sectors a disk has.
const SECTOR: u64 = 512;

/// Whether a disk has a partition of this name.
#[must_use]
pub fn has_label(label: &str) -> bool {
    find(Path::new(DEVICES), label).is_some()
}

/// The device of the partition of this name.
#[must_use]
pub fn device_of(label: &str) -> Option<PathBuf> {
    Some(Path::new("/dev").join(find(Path::new(DEVICES), label)?.file_name()?))
}

/// The size of the disk with the partition of this name, in bytes.
#[must_use]
pub fn disk_size_of(label: &str) -> Option<u64> {
    disk_size(&find(Path::new(DEVICES), label)?)
}

/// The kernel's directory of a partition.
fn find(devices: &Path, label: &str) -> Option<PathBuf> {
    let has = |text: String| text.lines().any(|line| line.strip_prefix("PARTNAME=") == Some(label));
    let mut paths = std::fs::read_dir(devices).ok()?.flatten().map(|entry| entry.path());
    paths.find(|path| std::fs::read_to_string(path.join("uevent")).is_ok_and(has))
}

/// A partition's directory is in that of its disk.
fn disk_size(partition: &Path) -> Option<u64> {
    let real = std::fs::canonicalize(partition).ok()?;
    let sectors: u64 = std::fs::read_to_string(real.parent()?.join("size")).ok()?.trim().parse().ok()?;
    sectors.checked_mul(SECTOR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_found_by_the_whole_of_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let partition = directory.path().join("devices/vda/vda5");
        let class = directory.path().join("class");
        std::fs::create_dir_all(&partition).unwrap();
        std::fs::create_dir(&class).unwrap();
        std::fs::write(partition.join("uevent"), "DEVTYPE=partition\nPARTNAME=STATE\n").unwrap();
        std::fs::write(directory.path().join("devices/vda/size"), "16384\n").unwrap();
        std::os::unix::fs::symlink(&partition, class.join("vda5")).unwrap();
        let found = find(&class, "STATE").unwrap();
        assert_eq!(disk_size(&found), Some(8 << 20));
        assert_eq!(find(&class, "STAT"), None);
        assert_eq!(find(&class, "META"), None);
    }
}
