//! What a machine does to its kernel before anything else runs: filesystems, control groups, parameters, limits.

use std::ffi::OsString;
use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};

use rustix::mount::MountFlags;

use crate::capabilities;
use crate::files::{self, Access, FileError};
use crate::kernel_param::{KernelParam, KernelParamError};
use crate::mounts::{self, Mount, MountError};

#[cfg(feature = "testing")]
mod fake;

#[cfg(feature = "testing")]
pub use fake::{Call, FakeEarlySystem};

/// An early step failed.
#[derive(Debug, thiserror::Error)]
pub enum EarlyError {
    #[error("reading {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("writing {text:?} to {}", path.display())]
    Write {
        path: PathBuf,
        text: String,
        #[source]
        source: io::Error,
    },
    #[error("making directory {}", path.display())]
    Directory {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Mount(#[from] MountError),
    #[error(transparent)]
    Param(#[from] KernelParamError),
    #[error("setting the limit of open files")]
    Limit(#[source] io::Error),
}

/// A filesystem of the kernel and its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SystemMount {
    pub kind: &'static str,
    pub target: &'static str,
    pub flags: MountFlags,
    /// The filesystem's own options.
    pub data: &'static str,
}

/// Kernel and root filesystem of a machine that starts.
pub trait EarlySystem: Debug + Send + Sync {
    /// Reads a text of the kernel, such as `/proc/cmdline`.
    ///
    /// # Errors
    /// `Read`.
    fn read(&self, path: &Path) -> Result<String, EarlyError>;

    /// Writes to a file of the kernel, which must exist.
    ///
    /// # Errors
    /// `Write`.
    fn write(&self, path: &Path, text: &str) -> Result<(), EarlyError>;

    /// Sets a kernel parameter, and returns the value in force.
    ///
    /// # Errors
    /// `Param`.
    fn set_param(&self, param: &KernelParam, value: &str) -> Result<String, EarlyError>;

    /// Makes a directory with this mode; one that exists is kept. Its parent must exist.
    ///
    /// # Errors
    /// `Directory`.
    fn directory(&self, path: &Path, mode: u32) -> Result<(), EarlyError>;

    /// Mounts a filesystem; one that is mounted there already is kept.
    ///
    /// # Errors
    /// `Mount` with the kernel's reason: `ENODEV` where it has no such filesystem, `ENOENT` without the directory.
    fn mount(&self, mount: &SystemMount) -> Result<(), EarlyError>;

    /// Makes mounts propagate to containers and back.
    ///
    /// # Errors
    /// `Mount`.
    fn share_mounts(&self) -> Result<(), EarlyError>;

    /// All mounts of this process.
    ///
    /// # Errors
    /// `Mount`.
    fn mounts(&self) -> Result<Vec<Mount>, EarlyError>;

    /// Makes a mount writable again that the owner of the namespace made read-only.
    ///
    /// # Errors
    /// `Mount`.
    fn remount_writable(&self, target: &Path) -> Result<(), EarlyError>;

    /// Whether this process may have this capability.
    fn may_have(&self, capability: u32) -> bool;

    /// The files in a directory, by name; none where there is no directory.
    ///
    /// # Errors
    /// `File`.
    fn files(&self, directory: &Path) -> Result<Vec<(OsString, Vec<u8>)>, EarlyError>;

    /// Writes a file that everybody may read; its directory must exist.
    ///
    /// # Errors
    /// `File`.
    fn write_file(&self, path: &Path, contents: &[u8]) -> Result<(), EarlyError>;

    /// Shows a directory in another place as well.
    ///
    /// # Errors
    /// `Mount`.
    fn bind(&self, directory: &Path, target: &Path) -> Result<(), EarlyError>;

    /// Writes a rendered file and shows it at `target`, a file of the read-only root.
    ///
    /// # Errors
    /// `File`, `Mount`.
    fn file_over(&self, rendered: &Path, target: &Path, contents: &[u8]) -> Result<(), EarlyError>;

    /// Raises the limit of open files; returns the one in force.
    ///
    /// # Errors
    /// `Limit`.
    fn raise_open_files(&self, wanted: u64) -> Result<u64, EarlyError>;
}

/// The kernel that this program runs on.
#[derive(Debug, Default)]
pub struct KernelEarlySystem;

impl EarlySystem for KernelEarlySystem {
    fn read(&self, path: &Path) -> Result<String, EarlyError> {
        std::fs::read_to_string(path).map_err(|source| EarlyError::Read { path: path.to_owned(), source })
    }

    fn write(&self, path: &Path, text: &str) -> Result<(), EarlyError> {
        use io::Write as _;
        let written = std::fs::OpenOptions::new().write(true).open(path);
        let written = written.and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(|source| EarlyError::Write { path: path.to_owned(), text: text.to_owned(), source })
    }

    fn set_param(&self, param: &KernelParam, value: &str) -> Result<String, EarlyError> {
        if param.read()? != value {
            param.write(value)?;
        }
        Ok(param.read()?)
    }

    fn directory(&self, path: &Path, mode: u32) -> Result<(), EarlyError> {
        use std::os::unix::fs::DirBuilderExt as _;
        match std::fs::DirBuilder::new().mode(mode).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            made => made.map_err(|source| EarlyError::Directory { path: path.to_owned(), source }),
        }
    }

    fn mount(&self, mount: &SystemMount) -> Result<(), EarlyError> {
        let target = Path::new(mount.target);
        if mounts::is_mounted(target) {
            return Ok(());
        }
        Ok(mounts::mount(mount.kind, target, mount.kind, mount.flags, mount.data)?)
    }

    fn share_mounts(&self) -> Result<(), EarlyError> {
        Ok(mounts::make_shared(Path::new("/"))?)
    }

    fn mounts(&self) -> Result<Vec<Mount>, EarlyError> {
        Ok(mounts::table()?)
    }

    fn remount_writable(&self, target: &Path) -> Result<(), EarlyError> {
        Ok(mounts::remount_writable(target)?)
    }

    fn may_have(&self, capability: u32) -> bool {
        capabilities::bounding().contains(&capability)
    }

    fn files(&self, directory: &Path) -> Result<Vec<(OsString, Vec<u8>)>, EarlyError> {
        let mut found = Vec::new();
        for name in files::list(directory)? {
            if let Some(contents) = files::read(&directory.join(&name))? {
                found.push((name, contents));
            }
        }
        Ok(found)
    }

    fn write_file(&self, path: &Path, contents: &[u8]) -> Result<(), EarlyError> {
        files::write_atomic(path, contents, Access { mode: 0o644, owner: None })?;
        Ok(())
    }

    fn bind(&self, directory: &Path, target: &Path) -> Result<(), EarlyError> {
        Ok(mounts::bind(directory, target)?)
    }

    fn file_over(&self, rendered: &Path, target: &Path, contents: &[u8]) -> Result<(), EarlyError> {
        self.write_file(rendered, contents)?;
        Ok(mounts::bind(rendered, target)?)
    }

    fn raise_open_files(&self, wanted: u64) -> Result<u64, EarlyError> {
        crate::host::raise_open_files(wanted).map_err(EarlyError::Limit)
    }
}

impl EarlyError {
    /// Whether there is no such file.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Read { source, .. } | Self::Write { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// Whether the kernel has no such filesystem.
    #[must_use]
    pub fn is_unknown_filesystem(&self) -> bool {
        matches!(self, Self::Mount(MountError::Mount { source, .. }) if source.raw_os_error() == Some(libc::ENODEV))
    }
}
