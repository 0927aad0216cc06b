//! Directories: their names listed, whole trees given to another owner or removed, without leaving them by a link.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Uid};

use super::{DIRECTORY, FileError, failed, open_at, open_directory, split};

/// Directories within directories: deeper than any service makes them.
const MAX_DEPTH: usize = 64;

/// Gives a directory and everything below it to a user and group. Symbolic links change their own owner and are not
/// followed; files with a second name and devices are left alone, as they may be somebody else's elsewhere; other mounts
/// are not entered.
///
/// # Errors
/// Names the path of the directory; it is deeper than 64 levels, or the kernel refused.
pub fn chown_tree(path: &Path, owner: (u32, u32)) -> Result<(), FileError> {
    let change = || {
        let root = open_directory(path)?;
        let device = rustix::fs::fstat(&root)?.st_dev;
        give(&root, owner)?;
        below(root, &mut |directory, name, depth| {
            let entry = open_at(directory, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
            let stat = rustix::fs::fstat(&entry)?;
            if stat.st_dev != device {
                return Ok(None);
            }
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => {
                    give(&entry, owner)?;
                    if depth >= MAX_DEPTH {
                        return Err(io::Error::other("directories are too deep"));
                    }
                    // By the descriptor that was changed: what has the name now may be something else.
                    return open_at(&entry, OsStr::new("."), DIRECTORY, Mode::empty()).map(Some);
                }
                FileType::CharacterDevice | FileType::BlockDevice => {
                    tracing::warn!(?name, "a device among the files of a service keeps its owner");
                }
                FileType::RegularFile if stat.st_nlink > 1 => {
                    tracing::warn!(?name, "a file of a service with several names keeps its owner");
                }
                _ => give(&entry, owner)?,
            }
            Ok(None)
        })
    };
    change().map_err(failed("changing the owner of", path))
}

fn give(entry: &OwnedFd, (uid, gid): (u32, u32)) -> io::Result<()> {
    let stat = rustix::fs::fstat(entry)?;
    if (stat.st_uid, stat.st_gid) == (uid, gid) {
        return Ok(());
    }
    let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    Ok(rustix::fs::chownat(entry, "", uid, gid, AtFlags::EMPTY_PATH)?)
}

/// Calls `visit` for each entry below a directory, with its directory, name and depth; where it answers with an open
/// directory, that one is gone through too.
fn below(
    root: OwnedFd,
    visit: &mut impl FnMut(&OwnedFd, &OsStr, usize) -> io::Result<Option<OwnedFd>>,
) -> io::Result<()> {
    let mut open = vec![(root, 0)];
    while let Some((directory, depth)) = open.pop() {
        for name in names(&directory)? {
            if let Some(next) = visit(&directory, &name, depth + 1)? {
                open.push((next, depth + 1));
            }
        }
    }
    Ok(())
}

/// The names in an open directory, in no order.
///
/// # Errors
/// The kernel refused.
pub fn names(directory: &OwnedFd) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name));
        }
    }
    Ok(names)
}

/// The names in a directory, in no order; none where it is not there.
///
/// # Errors
/// Names the path; something else than a directory is there, or a link.
pub fn list(path: &Path) -> Result<Vec<OsString>, FileError> {
    match open_directory(path).and_then(|directory| names(&directory)) {
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        listed => listed.map_err(failed("listing", path)),
    }
}

/// Removes a directory with everything below it, or a file or link of this name; what is not there is as wanted. Links are
/// removed and not followed.
///
/// # Errors
/// Names the path; something is mounted in it, it is deeper than 64 levels, or the kernel refused.
pub fn remove_tree(path: &Path) -> Result<(), FileError> {
    let remove = || {
        let (directory, name) = split(path)?;
        remove_at(&open_directory(directory)?, name)
    };
    remove().map_err(failed("removing", path))
}

/// As [`remove_tree`], of what has this name in an open directory.
///
/// # Errors
/// As [`remove_tree`], without the path.
pub fn remove_at(directory: &OwnedFd, name: &OsStr) -> io::Result<()> {
    match remove_entry(directory, name, 0) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn remove_entry(directory: &OwnedFd, name: &OsStr, depth: usize) -> io::Result<()> {
    match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        Err(rustix::io::Errno::ISDIR | rustix::io::Errno::PERM) => {}
        done => return Ok(done?),
    }
    if depth >= MAX_DEPTH {
        return Err(io::Error::other("directories are too deep"));
    }
    let inner = open_at(directory, name, DIRECTORY, Mode::empty())?;
    for entry in names(&inner)? {
        remove_entry(&inner, &entry, depth + 1)?;
    }
    Ok(rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR)?)
}
