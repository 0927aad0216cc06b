//! Pipes and sockets with a name.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};

use super::{Access, FileError, failed, make_all, open_at, split};

/// Makes a named pipe in place of what has its name, and opens it for reading and writing, without blocking. Missing
/// directories are made.
///
/// # Errors
/// Names the path.
pub fn make_pipe(path: &Path, mode: u32) -> Result<File, FileError> {
    let make = || {
        let (directory, name) = fresh(path)?;
        rustix::fs::mknodat(&directory, name, FileType::Fifo, Mode::from_raw_mode(mode), 0)?;
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let pipe = File::from(open_at(&directory, name, flags, Mode::empty())?);
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&pipe)?.st_mode);
        if kind == FileType::Fifo { Ok(pipe) } else { Err(io::Error::other("replaced while it was made")) }
    };
    make().map_err(failed("making the pipe", path))
}

/// Listens on a Unix socket in place of what has its name. Only root connects until mode and owner are set. Missing
/// directories are made. The listener does not block.
///
/// # Errors
/// Names the path.
pub fn listen_unix(path: &Path, access: Access) -> Result<UnixListener, FileError> {
    let listen = || {
        let (directory, name) = fresh(path)?;
        // The kernel takes a path alone: this one leads through the directory that is open, whatever has its name by now.
        let through = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name);
        let listener = UnixListener::bind(through)?;
        listener.set_nonblocking(true)?;
        let socket = open_at(&directory, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        if FileType::from_raw_mode(rustix::fs::fstat(&socket)?.st_mode) != FileType::Socket {
            return Err(io::Error::other("replaced while it was made"));
        }
        if let Some((uid, gid)) = access.owner {
            let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            rustix::fs::chownat(&socket, "", uid, gid, AtFlags::EMPTY_PATH)?;
        }
        // A descriptor of a socket's name takes no fchmod.
        let through = format!("/proc/self/fd/{}", socket.as_fd().as_raw_fd());
        rustix::fs::chmod(through, Mode::from_raw_mode(access.mode))?;
        Ok(listener)
    };
    listen().map_err(failed("listening on", path))
}

/// The directory of a path, made where it is missing, without what had the name.
fn fresh(path: &Path) -> io::Result<(OwnedFd, &OsStr)> {
    let (directory, name) = split(path)?;
    let directory = make_all(directory)?;
    match rustix::fs::unlinkat(&directory, name, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => Ok((directory, name)),
        Err(error) => Err(error.into()),
    }
}
