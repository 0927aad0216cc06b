//! Files on the operator's machine: they are read up to a limit, and never seen half written.

use std::fs;
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};

/// The longest file that is read as a whole, in bytes.
pub const MAX_FILE_SIZE: u64 = 64 * 1024 * 1024;

/// Reads a file as a whole.
///
/// # Errors
/// [`io::ErrorKind::FileTooLarge`] behind [`MAX_FILE_SIZE`], also for files without an end, and those of the file system.
pub fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    read_all(fs::File::open(path)?)
}

/// As [`read_file`], from a file that is open already, such as standard input.
///
/// # Errors
/// Those of [`read_file`].
pub fn read_all(file: impl Read) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    // One byte more tells a file that just fits from a longer one.
    file.take(MAX_FILE_SIZE + 1).read_to_end(&mut content)?;
    if content.len() as u64 > MAX_FILE_SIZE {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {MAX_FILE_SIZE} bytes")));
    }
    Ok(content)
}

/// A content as text.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] where it is not UTF-8.
pub fn utf8(content: Vec<u8>) -> io::Result<String> {
    String::from_utf8(content).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not valid UTF-8"))
}

/// Writes a file as a whole or not at all, through a temporary file beside it; it ends up with `mode`. Whoever owned the
/// file before owns it after, so that `sudo` takes nothing away from its user. A symlink is followed. Missing
/// directories are made, for their owner alone.
///
/// An existing path that is not a regular file (a terminal, a pipe, `/dev/null`) is written into, never replaced.
///
/// # Errors
/// Those of the file system; the file is as it was then.
pub fn replace_file(path: &Path, data: &[u8], mode: u32) -> io::Result<()> {
    let target = target_of(path);
    let known = fs::metadata(&target).ok();
    if known.as_ref().is_some_and(|known| !known.is_file()) {
        return fs::OpenOptions::new().write(true).open(&target)?.write_all(data);
    }
    if let Some(parent) = target.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    }
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let temporary = target.with_file_name(name);
    let written = (|| {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        if let Some(known) = known {
            // Only root can give files away, and only root can find one that is not its own.
            fchown(&file, Some(known.uid()), Some(known.gid())).ok();
        }
        file.write_all(data)?;
        file.sync_all()?;
        fs::rename(&temporary, &target)
    })();
    if written.as_ref().is_err_and(|error: &io::Error| error.kind() != io::ErrorKind::AlreadyExists) {
        // Report the first error; the leftover file has a telling name.
        fs::remove_file(&temporary).ok();
    }
    written
}

/// Where a path leads in the end; also where a symlink leads that has no file behind it yet.
fn target_of(path: &Path) -> PathBuf {
    let behind_link = || Some(path.parent()?.join(fs::read_link(path).ok()?));
    fs::canonicalize(path).ok().or_else(behind_link).unwrap_or_else(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_file_that_everybody_could_read_becomes_private_and_nothing_else_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/config");
        replace_file(&path, b"one", 0o600).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        replace_file(&path, b"two", 0o600).unwrap();
        assert_eq!((fs::read(&path).unwrap(), mode(&path)), (b"two".to_vec(), 0o600));
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    /// Needs root, as `cluster create` does.
    #[test]
    fn the_owner_of_a_file_stays_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        fs::write(&path, "one").unwrap();
        chown(&path, Some(1234), Some(4321)).unwrap();
        replace_file(&path, b"two", 0o600).unwrap();
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (1234, 4321));
    }

    #[test]
    fn symlinks_are_followed_also_to_files_that_are_not_there_yet() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        symlink("real", &link).unwrap();
        for content in ["one", "two"] {
            replace_file(&link, content.as_bytes(), 0o600).unwrap();
            assert_eq!(fs::read_to_string(&real).unwrap(), content);
            assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        }
    }

    #[test]
    fn a_device_is_written_into_and_not_replaced() {
        replace_file(Path::new("/dev/null"), b"nothing", 0o600).unwrap();
        assert!(!fs::symlink_metadata("/dev/null").unwrap().is_file());
    }
}
