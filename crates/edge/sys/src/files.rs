//! Files that must never be seen half written.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// What failed about a file.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {}", path.display())]
pub struct FileError {
    pub operation: &'static str,
    pub path: PathBuf,
    #[source]
    pub source: io::Error,
}

/// Who may read a file that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    pub mode: u32,
    /// User and group; `None` leaves them to the writer's.
    pub owner: Option<(u32, u32)>,
}

impl Access {
    /// Readable by everybody, mode 0644.
    pub const PUBLIC: Self = Self { mode: 0o644, owner: None };
    /// Readable by root alone, mode 0600.
    pub const SECRET: Self = Self { mode: 0o600, owner: None };

    /// Mode 0600, owned by this user and group.
    pub const fn secret_of(id: u32) -> Self {
        Self { mode: 0o600, owner: Some((id, id)) }
    }
}

/// Replaces `path` at once: a reader sees the old content or the new one, also after a crash. Missing directories are
/// made. Does nothing when content, mode and owner are as wanted; returns whether it wrote.
///
/// # Errors
/// Names the operation and the path.
pub fn write_atomic(path: &Path, content: &[u8], access: Access) -> Result<bool, FileError> {
    if is_current(path, content, access) {
        return Ok(false);
    }
    let at = |operation| move |source| FileError { operation, path: path.to_owned(), source };
    let dir = path.parent().unwrap_or_else(|| Path::new("/"));
    fs::create_dir_all(dir).map_err(at("making the directory of"))?;
    let temporary = temporary_name(dir, path);
    let result = (|| {
        let mut file = create_anew(&temporary, access.mode)?;
        file.set_permissions(fs::Permissions::from_mode(access.mode))?;
        if let Some((uid, gid)) = access.owner {
            chown(&temporary, Some(uid), Some(gid))?;
        }
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        fs::File::open(dir)?.sync_all()
    })();
    if result.is_err() {
        // The rename did not happen, or the directory could not be synced: in both cases nothing else needs this name.
        drop(fs::remove_file(&temporary));
    }
    result.map_err(at("writing")).map(|()| true)
}

/// A name that no other writer of this process has, so that two that replace the same file do not write into each other's.
fn temporary_name(dir: &Path, path: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    dir.join(format!(".{name}.{}.new", NEXT.fetch_add(1, Ordering::Relaxed)))
}

/// A file that was not there. One of that name was left by a process that ended while it wrote.
fn create_anew(path: &Path, mode: u32) -> io::Result<fs::File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(mode);
    match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(path)?;
            options.open(path)
        }
        opened => opened,
    }
}

fn is_current(path: &Path, content: &[u8], access: Access) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(metadata) = fs::symlink_metadata(path) else { return false };
    metadata.is_file()
        && metadata.mode() & 0o7777 == access.mode
        && access.owner.is_none_or(|owner| owner == (metadata.uid(), metadata.gid()))
        && fs::read(path).is_ok_and(|current| current == content)
}

/// Removes a file; one that is not there is as wanted.
///
/// # Errors
/// Names the path.
pub fn remove(path: &Path) -> Result<(), FileError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(FileError { operation: "removing", path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// Makes `path` a symbolic link to `target` at once, whatever it was. Does nothing when it is that already.
///
/// # Errors
/// Names the operation and the path.
pub fn link_atomic(path: &Path, target: &Path) -> Result<(), FileError> {
    if fs::read_link(path).is_ok_and(|current| current == target) {
        return Ok(());
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.new"));
    remove(&temporary)?;
    std::os::unix::fs::symlink(target, &temporary)
        .and_then(|()| fs::rename(&temporary, path))
        .map_err(|source| FileError { operation: "linking", path: path.to_owned(), source })
}

/// Reads a file; `None` when it is not there.
///
/// # Errors
/// Names the path.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    match fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(FileError { operation: "reading", path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writing_the_same_content_again_touches_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        assert!(write_atomic(&path, b"one", Access::SECRET).unwrap());
        assert!(!write_atomic(&path, b"one", Access::SECRET).unwrap());
        assert!(write_atomic(&path, b"one", Access::PUBLIC).unwrap());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
        assert!(write_atomic(&path, b"two", Access::PUBLIC).unwrap());
        assert_eq!(read(&path).unwrap().unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path().join("a")).unwrap().count(), 1);
    }

    #[test]
    fn two_writers_of_a_file_do_not_mix_their_contents() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let contents = [b'a', b'b'].map(|byte| vec![byte; 1 << 20]);
        std::thread::scope(|scope| {
            for content in &contents {
                scope.spawn(|| {
                    for _ in 0..20 {
                        write_atomic(&path, content, Access::PUBLIC).unwrap();
                    }
                });
            }
            for _ in 0..200 {
                let seen = read(&path).unwrap().unwrap_or_default();
                assert!(seen.is_empty() || contents.contains(&seen), "{} bytes", seen.len());
            }
        });
        assert!(contents.contains(&read(&path).unwrap().unwrap()));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left over");
    }

    #[test]
    fn a_failed_write_leaves_the_old_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::create_dir(&path).unwrap();
        let error = write_atomic(&path, b"x", Access::PUBLIC).unwrap_err();
        assert_eq!((error.operation, error.path), ("writing", path.clone()));
        assert!(path.is_dir());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn removing_and_reading_what_is_not_there_is_fine() {
        let dir = tempfile::tempdir().unwrap();
        remove(&dir.path().join("none")).unwrap();
        assert_eq!(read(&dir.path().join("none")).unwrap(), None);
    }
}
