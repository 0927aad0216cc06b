//! Files and directories where others write too: nothing here follows a symbolic link.
//!
//! A service that owns a directory below `/var` may put a link where root is about to write, read or change an owner.
//! Every path is resolved by `openat2` without symbolic links, in its directories and at its end, and what is opened is
//! then used by its descriptor. A path that leads through a link is an error that says so. [`read_current`] is the one
//! exception: it reads a file that its writer replaces by a link to a file beside it, as the kubelet does with its
//! certificates, and never leaves that directory.
//!
//! Files are replaced at once, so that nobody sees one half written.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, ResolveFlags, Uid};

mod special;
mod tree;

pub use special::{listen_unix, make_pipe};
pub use tree::{chown_tree, list, names, remove_at, remove_tree};

/// The largest file that is read: more than any configuration, key or kubeconfig.
const MAX_READ: u64 = 32 << 20;

/// Failure of a file operation.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {}", path.display())]
pub struct FileError {
    pub operation: &'static str,
    pub path: PathBuf,
    #[source]
    pub source: io::Error,
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_owned();
    move |source| FileError { operation, path, source }
}

/// Who may read a file that is written, or enter a directory that is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    pub mode: u32,
    /// User and group; `None` leaves them to the writer's.
    pub owner: Option<(u32, u32)>,
}

impl Access {
    /// World-readable, mode 0644.
    pub const PUBLIC: Self = Self { mode: 0o644, owner: None };
    /// Readable by root alone, mode 0600.
    pub const SECRET: Self = Self { mode: 0o600, owner: None };

    /// Mode 0600, owned by this user and group.
    pub const fn secret_of(id: u32) -> Self {
        Self { mode: 0o600, owner: Some((id, id)) }
    }

    /// Of a directory: mode 0700, owned by this user and group.
    pub const fn directory_of(id: u32) -> Self {
        Self { mode: 0o700, owner: Some((id, id)) }
    }
}

/// Replaces `path` at once: a reader sees the old content or the new one, also after a crash. Missing directories are
/// made. Does nothing when content, mode and owner are as wanted; returns whether it wrote. Writers of the same path do
/// not disturb each other: the last one wins as a whole.
///
/// # Errors
/// Names the operation and the path.
pub fn write_atomic(path: &Path, content: &[u8], access: Access) -> Result<bool, FileError> {
    let (directory, name) = split(path).map_err(failed("writing", path))?;
    let directory = make_all(directory).map_err(failed("making the directory of", path))?;
    if is_current(&directory, name, content, access) {
        return Ok(false);
    }
    replace(&directory, name, content, access).map_err(failed("writing", path)).map(|()| true)
}

/// A name that nobody else uses, unless a process of the same number crashed while it wrote.
fn temporary_name(name: &OsStr) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!(".{}.{}-{count}.new", name.to_string_lossy(), std::process::id())
}

fn replace(directory: &OwnedFd, name: &OsStr, content: &[u8], access: Access) -> io::Result<()> {
    let temporary = temporary_name(name);
    let _ = rustix::fs::unlinkat(directory, &temporary, AtFlags::empty());
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let mut file = File::from(open_at(directory, OsStr::new(&temporary), flags, Mode::RUSR | Mode::WUSR)?);
    let result = (|| {
        set_access(file.as_fd(), access)?;
        file.write_all(content)?;
        file.sync_all()?;
        rustix::fs::renameat(directory, &temporary, directory, name)?;
        rustix::fs::fsync(directory)?;
        Ok(())
    })();
    if result.is_err() {
        // The rename did not happen, or the directory could not be synced: in both cases nothing else needs this name.
        let _ = rustix::fs::unlinkat(directory, &temporary, AtFlags::empty());
    }
    result
}

fn is_current(directory: &OwnedFd, name: &OsStr, content: &[u8], access: Access) -> bool {
    let Ok(file) = open_file(directory, name) else { return false };
    let Ok(metadata) = file.metadata() else { return false };
    metadata.is_file()
        && metadata.len() == content.len() as u64
        && metadata.mode() & 0o7777 == access.mode
        && access.owner.is_none_or(|owner| owner == (metadata.uid(), metadata.gid()))
        && contents(file).is_ok_and(|current| current == content)
}

/// Makes a directory with those above it, and sets its mode and owner also where it was there. The ones above it that are
/// missing get mode 0755.
///
/// # Errors
/// Names the path; something else than a directory is there, or a link.
pub fn make_directory(path: &Path, access: Access) -> Result<(), FileError> {
    let make = || set_access(make_all(path)?.as_fd(), access);
    make().map_err(failed("making the directory", path))
}

/// Makes a directory of this mode where none is, with those above it that are missing (mode 0755). One that is there stays
/// as it is.
///
/// # Errors
/// Names the path; something else than a directory is there, or a link.
pub fn ensure_directory(path: &Path, mode: u32) -> Result<(), FileError> {
    let ensure = || match open_directory(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            set_access(make_all(path)?.as_fd(), Access { mode, owner: None })
        }
        opened => opened.map(drop),
    };
    ensure().map_err(failed("making the directory", path))
}

/// Writes a file that is there without replacing it: where it is bound to other places, these see the new content. A crash
/// may leave half of it. Does nothing when the content is as wanted; returns whether it wrote.
///
/// # Errors
/// Names the path; there is no regular file, or a link.
pub fn write_in_place(path: &Path, content: &[u8]) -> Result<bool, FileError> {
    let write = || {
        let (directory, name) = split(path)?;
        let directory = open_directory(directory)?;
        if contents(open_file(&directory, name)?)? == content {
            return Ok(false);
        }
        let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let mut file = File::from(open_at(&directory, name, flags, Mode::empty())?);
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        file.set_len(0)?;
        file.write_all(content)?;
        Ok(true)
    };
    write().map_err(failed("writing", path))
}

/// Removes a file. Succeeds if it does not exist.
///
/// # Errors
/// Names the path.
pub fn remove(path: &Path) -> Result<(), FileError> {
    let remove = || {
        let (directory, name) = split(path)?;
        rustix::fs::unlinkat(open_directory(directory)?, name, AtFlags::empty()).map_err(io::Error::from)
    };
    match remove() {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(failed("removing", path)(source)),
        _ => Ok(()),
    }
}

/// Makes `path` a symbolic link to `target` at once, whatever it was. Does nothing when it is that already.
///
/// # Errors
/// Names the path; a link is in the way to its directory.
pub fn link_atomic(path: &Path, target: &Path) -> Result<(), FileError> {
    let link = || {
        let (directory, name) = split(path)?;
        let directory = open_directory(directory)?;
        let current = rustix::fs::readlinkat(&directory, name, Vec::new());
        if current.is_ok_and(|current| current.as_bytes() == target.as_os_str().as_bytes()) {
            return Ok(());
        }
        let temporary = temporary_name(name);
        let _ = rustix::fs::unlinkat(&directory, &temporary, AtFlags::empty());
        rustix::fs::symlinkat(target, &directory, &temporary)?;
        let renamed = rustix::fs::renameat(&directory, &temporary, &directory, name);
        if renamed.is_err() {
            let _ = rustix::fs::unlinkat(&directory, &temporary, AtFlags::empty());
        }
        renamed.map_err(explain)
    };
    link().map_err(failed("linking", path))
}

/// The mode and the owner of a file; `None` when it is not there.
///
/// # Errors
/// Names the path; something else than a file is there, or a link.
pub fn access(path: &Path) -> Result<Option<Access>, FileError> {
    let look = || {
        let (directory, name) = split(path)?;
        let metadata = open_file(&open_directory(directory)?, name)?.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        Ok(Access { mode: metadata.mode() & 0o7777, owner: Some((metadata.uid(), metadata.gid())) })
    };
    found(look(), path)
}

/// Reads a file of at most 32 MiB; `None` when it is not there. Never waits for a writer, as opening a pipe would.
///
/// # Errors
/// Names the path; something else than a file is there, or a link.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    let read = || {
        let (directory, name) = split(path)?;
        contents(open_file(&open_directory(directory)?, name)?)
    };
    found(read(), path)
}

/// As [`read`]; where a symbolic link is at the end of the path, the file of that name in the same directory is read.
///
/// # Errors
/// As [`read`].
pub fn read_current(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    let read = || {
        let (directory, name) = split(path)?;
        let directory = open_directory(directory)?;
        let Ok(link) = rustix::fs::readlinkat(&directory, name, Vec::new()) else {
            return contents(open_file(&directory, name)?);
        };
        let target = Path::new(OsStr::from_bytes(link.as_bytes()));
        let name = target.file_name().ok_or_else(|| io::Error::other("the link leads to no file"))?;
        contents(open_file(&directory, name)?)
    };
    found(read(), path)
}

fn found<T>(result: io::Result<T>, path: &Path) -> Result<Option<T>, FileError> {
    match result {
        Ok(content) => Ok(Some(content)),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(failed("reading", path)(source)),
    }
}

fn contents(file: File) -> io::Result<Vec<u8>> {
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    if metadata.len() > MAX_READ {
        return Err(io::Error::other(format!("more than {MAX_READ} bytes")));
    }
    let mut content = Vec::new();
    // It may grow meanwhile.
    file.take(MAX_READ).read_to_end(&mut content)?;
    Ok(content)
}

/// The directory and the name of a path.
fn split(path: &Path) -> io::Result<(&Path, &OsStr)> {
    let name = path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path has no name"))?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok((directory, name))
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
const NO_LINKS: ResolveFlags = ResolveFlags::NO_SYMLINKS.union(ResolveFlags::NO_MAGICLINKS);

fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    rustix::fs::openat2(CWD, path, DIRECTORY, Mode::empty(), NO_LINKS).map_err(explain)
}

/// Opens what has this name in a directory; the name is one component.
fn open_at(directory: &OwnedFd, name: &OsStr, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
    rustix::fs::openat2(directory, name, flags, mode, NO_LINKS | ResolveFlags::BENEATH).map_err(explain)
}

fn open_file(directory: &OwnedFd, name: &OsStr) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    open_at(directory, name, flags, Mode::empty()).map(File::from)
}

/// The kernel's word for a link that must not be followed is about a circle of links.
fn explain(errno: rustix::io::Errno) -> io::Error {
    if errno == rustix::io::Errno::LOOP {
        return io::Error::other("the path leads through a symbolic link");
    }
    errno.into()
}

/// Opens a directory after making what is missing of it.
fn make_all(path: &Path) -> io::Result<OwnedFd> {
    match open_directory(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        opened => return opened,
    }
    let mut directory = open_directory(Path::new(if path.is_absolute() { "/" } else { "." }))?;
    for component in path.components() {
        let name = match component {
            Component::RootDir | Component::CurDir => continue,
            Component::Normal(name) => name,
            Component::ParentDir | Component::Prefix(_) => {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path has a .. in it"));
            }
        };
        let open = |parent: &OwnedFd| open_at(parent, name, DIRECTORY, Mode::empty());
        let next = match open(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                match rustix::fs::mkdirat(&directory, name, Mode::from_raw_mode(0o755)) {
                    // Somebody else was faster.
                    Ok(()) | Err(rustix::io::Errno::EXIST) => open(&directory)?,
                    Err(error) => return Err(error.into()),
                }
            }
            opened => opened?,
        };
        directory = next;
    }
    Ok(directory)
}

fn set_access(fd: std::os::fd::BorrowedFd<'_>, access: Access) -> io::Result<()> {
    if let Some((uid, gid)) = access.owner {
        rustix::fs::fchown(fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    }
    // After the owner: a change of owner takes the bits of set-user-id away.
    rustix::fs::fchmod(fd, Mode::from_raw_mode(access.mode))?;
    Ok(())
}

#[cfg(test)]
mod tests;
