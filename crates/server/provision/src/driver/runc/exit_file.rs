//! The exit status that a node's init leaves on the node's disk before it exits, for when nobody saw it exit.
//!
//! The node writes there whatever it likes, so nothing of it is followed or waited for.

use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use rustix::fs::OFlags;

use crate::error::HostError;
use crate::folder::Folder;

/// A number of at most three digits and the end of its line.
const LONGEST: u64 = 8;

fn path(folder: &Folder, node: &str) -> PathBuf {
    folder.node(node).join("system-state/.exit-status")
}

/// The status that the last run left; none where it left none, or something else.
pub(super) fn read(folder: &Folder, node: &str) -> Option<i32> {
    // Neither a link nor a pipe that nobody writes to.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = std::fs::File::options().read(true).custom_flags(flags).open(path(folder, node)).ok()?;
    file.metadata().ok().filter(std::fs::Metadata::is_file)?;
    let mut text = String::new();
    file.take(LONGEST).read_to_string(&mut text).ok()?;
    text.trim_end().parse().ok()
}

/// Forgets the status before the node is powered on.
pub(super) fn remove(folder: &Folder, node: &str) -> Result<(), HostError> {
    let path = path(folder, node);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(HostError::io("removing", &path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_small_file_with_a_number_is_a_status() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::new(root.path(), "one").unwrap();
        let file = path(&folder, "a");
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        assert_eq!(read(&folder, "a"), None);
        remove(&folder, "a").unwrap();
        for (text, status) in [("0\n", Some(0)), ("64\n", Some(64)), ("64", Some(64)), ("", None), ("zero\n", None)] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(read(&folder, "a"), status, "{text:?}");
        }
        std::fs::write(&file, "0".repeat(1 << 20) + "1").unwrap();
        assert_eq!(read(&folder, "a"), Some(0), "no more than a few bytes are read");
        remove(&folder, "a").unwrap();
        let elsewhere = root.path().join("elsewhere");
        std::fs::write(&elsewhere, "0\n").unwrap();
        std::os::unix::fs::symlink(&elsewhere, &file).unwrap();
        assert_eq!(read(&folder, "a"), None, "a link is not followed");
        remove(&folder, "a").unwrap();
        assert!(elsewhere.exists());
        let (own, mode) = (rustix::fs::CWD, rustix::fs::Mode::RUSR);
        rustix::fs::mknodat(own, &file, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert_eq!(read(&folder, "a"), None, "a pipe is not waited for");
        std::fs::remove_file(&file).unwrap();
        std::fs::create_dir(&file).unwrap();
        assert_eq!(read(&folder, "a"), None);
    }
}
