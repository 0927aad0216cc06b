//! Mounts of the host that belong to a cluster: made and removed by `mount` and `umount`, found in `mountinfo`.

use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use crate::command::{MOUNT, UMOUNT};
use crate::error::{HostError, Operation as _};

/// Mounts a squashfs read-only, with private propagation.
pub(crate) fn mount_image(image: &Path, target: &Path) -> Result<(), HostError> {
    let operation = || format!("mounting {} on {}", image.display(), target.display());
    let options = ["-t", "squashfs", "-o", "loop,ro,nodev"].map(std::ffi::OsStr::new);
    MOUNT.run(options.into_iter().chain([image.as_os_str(), target.as_os_str()])).operation(operation)?;
    let private = std::ffi::OsStr::new("--make-private");
    MOUNT.run([private, target.as_os_str()]).operation(operation)?;
    Ok(())
}

/// Unmounts everything at and below `folder`, deepest first; errors are collected, everything is tried.
pub(crate) fn unmount_below(folder: &Path, errors: &mut Vec<HostError>) {
    // Mounts may be stacked on a directory; removing one may uncover another.
    for _ in 0..16 {
        let mut found = match below(folder) {
            Ok(found) => found,
            Err(error) => {
                errors.push(error);
                return;
            }
        };
        if found.is_empty() {
            return;
        }
        found.sort_by_key(|path| std::cmp::Reverse(path.as_os_str().len()));
        let mut failed = Vec::new();
        for path in &found {
            let done = UMOUNT.run([path.as_os_str()]).or_else(|_| {
                // A process may use it: the mount is detached lazily.
                UMOUNT.run([std::ffi::OsStr::new("--lazy"), path.as_os_str()])
            });
            if let Err(error) = done.operation(|| format!("unmounting {}", path.display())) {
                failed.push(error);
            }
        }
        if failed.len() == found.len() {
            errors.append(&mut failed);
            return;
        }
    }
}

/// Mount points at and below a folder.
pub(crate) fn below(folder: &Path) -> Result<Vec<PathBuf>, HostError> {
    const TABLE: &str = "/proc/self/mountinfo";
    let table = std::fs::read(TABLE).map_err(HostError::io("reading", Path::new(TABLE)))?;
    let folder = std::fs::canonicalize(folder).unwrap_or_else(|_| folder.to_path_buf());
    Ok(parse(&table).into_iter().filter(|path| path.starts_with(&folder)).collect())
}

fn parse(table: &[u8]) -> Vec<PathBuf> {
    let lines = table.split(|byte| *byte == b'\n');
    let targets = lines.filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    targets.map(|path| PathBuf::from(std::ffi::OsString::from_vec(sys::mounts::unescape(path)))).collect()
}

/// Whether the file starts like a squashfs.
pub(crate) fn is_squashfs(image: &Path) -> std::io::Result<bool> {
    use std::io::Read as _;
    let mut magic = [0; 4];
    let read = std::fs::File::open(image)?.read(&mut magic)?;
    Ok(read == 4 && magic.as_slice() == std::ffi::OsStr::new("hsqs").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_with_blanks_are_read_back() {
        let table = b"36 35 98:0 /mnt1 /mnt/a\\040b\\134c rw,noatime master:1 - ext3 /dev/root rw\n";
        assert_eq!(parse(table), [PathBuf::from("/mnt/a b\\c")]);
    }

    #[test]
    fn a_file_that_is_no_squashfs_is_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        std::fs::write(&path, "hsqs and more").unwrap();
        assert!(is_squashfs(&path).unwrap());
        std::fs::write(&path, "hs").unwrap();
        assert!(!is_squashfs(&path).unwrap());
    }
}
