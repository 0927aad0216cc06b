//! What a machine with a kernel of its own does to it before anything else runs: filesystems of the kernel, control groups,
//! parameters, limits.

use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};

use rustix::mount::MountFlags;

use crate::files::{self, Access, FileError};
use crate::kernel_param::{KernelParam, KernelParamError};
use crate::mounts::{self, MountError};

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

    fn file_over(&self, rendered: &Path, target: &Path, contents: &[u8]) -> Result<(), EarlyError> {
        files::write_atomic(rendered, contents, Access { mode: 0o644, owner: None })?;
        Ok(mounts::bind(rendered, target)?)
    }

    fn raise_open_files(&self, wanted: u64) -> Result<u64, EarlyError> {
        crate::host::raise_open_files(wanted).map_err(EarlyError::Limit)
    }
}

impl EarlyError {
    /// Whether the kernel has no such filesystem.
    #[must_use]
    pub fn is_unknown_filesystem(&self) -> bool {
        matches!(self, Self::Mount(MountError::Mount { source, .. }) if source.raw_os_error() == Some(libc::ENODEV))
    }
}
