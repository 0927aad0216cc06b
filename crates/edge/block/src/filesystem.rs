//! Making, checking, growing, mounting and unmounting file systems, by the kernel and the tools of each file system.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use rustix::io::Errno;
use rustix::ioctl::{Opcode, Setter, ioctl, opcode};
use rustix::mount::{MountFlags, UnmountFlags};
use sys::modules::{ModuleError, Modules};
use sys::mounts::{self, MountError};
use sys::process::{Command, ProcessError};

use crate::tool::{self, Failure};

/// Making a file system writes little; a large or slow disk may still take a while.
const MAKE: Duration = Duration::from_secs(120);
/// A repair reads all metadata.
const REPAIR: Duration = Duration::from_secs(30 * 60);
const GROW: Duration = Duration::from_secs(120);
/// Of what a tool prints, this much is part of an error: the end, where the reason is.
const SHOWN: usize = 512;

/// The label of an XFS that is being made. [`FileSystems::label_xfs`] gives it its own at its first mount: one that still has
/// this label was cut off in between, and nothing was ever kept on it.
pub const UNFINISHED: &str = "unfinished";

/// Work on a file system failed.
#[derive(Debug, thiserror::Error)]
pub enum FileSystemError {
    #[error("{program} failed on {subject}: {output}")]
    Tool {
        program: &'static str,
        subject: String,
        output: String,
        #[source]
        source: ProcessError,
    },
    #[error("{program} did not end within {} s on {subject}", waited.as_secs())]
    Slow { program: &'static str, subject: String, waited: Duration },
    #[error(transparent)]
    Mount(#[from] MountError),
    #[error("making the mount point {}", target.display())]
    Target {
        target: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("giving the file system at {} the label {label}", target.display())]
    Label {
        target: PathBuf,
        label: String,
        #[source]
        source: io::Error,
    },
    #[error("loading the kernel's module {name}")]
    Module {
        name: &'static str,
        #[source]
        source: ModuleError,
    },
    #[error("looking at the file system at {}", target.display())]
    Look {
        target: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("listing software RAID arrays")]
    Arrays {
        #[source]
        source: io::Error,
    },
    #[error("work on a file system was interrupted")]
    Interrupted,
}

impl FileSystemError {
    /// Whether the file system has to be repaired before it can be mounted.
    #[must_use]
    pub fn wants_repair(&self) -> bool {
        let Self::Mount(MountError::Mount { source, .. }) = self else { return false };
        is(source, Errno::UCLEAN) || is(source, Errno::INVAL)
    }

    /// Whether something still uses it.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        match self {
            Self::Mount(MountError::Mount { source, .. } | MountError::Unmount { source, .. }) => {
                is(source, Errno::BUSY)
            }
            _ => false,
        }
    }
}

/// A file system to be mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountPlan {
    /// A device, or the name that the mount table shows.
    pub source: PathBuf,
    pub target: PathBuf,
    /// `xfs`, `vfat`, `overlay`.
    pub kind: &'static str,
    /// The file system's own: `prjquota`.
    pub options: String,
    pub is_read_only: bool,
}

impl MountPlan {
    /// An XFS on a device, with the options of volumes.
    pub fn xfs(device: impl Into<PathBuf>, target: impl Into<PathBuf>, quota: ProjectQuota) -> Self {
        let options = match quota {
            ProjectQuota::Off => String::new(),
            ProjectQuota::On => "prjquota".to_owned(),
        };
        Self { source: device.into(), target: target.into(), kind: "xfs", options, is_read_only: false }
    }

    /// Writable layer `name` below `layers` over the directory `target`.
    pub fn overlay(target: impl Into<PathBuf>, layers: &Path, name: &str) -> Self {
        let target = target.into();
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            target.display(),
            layers.join(format!("{name}-diff")).display(),
            layers.join(format!("{name}-workdir")).display()
        );
        Self { source: "overlay".into(), target, kind: "overlay", options, is_read_only: false }
    }
}

/// Whether a file system counts and limits what projects use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProjectQuota {
    Off,
    On,
}

/// Room on a file system, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    pub size: u64,
    /// What can still be written; 0 where no file can be made any more.
    pub available: u64,
}

/// File systems of the machine.
#[async_trait]
pub trait FileSystems: std::fmt::Debug + Send + Sync {
    /// Makes an XFS, whatever was on the device.
    ///
    /// # Errors
    /// The tool's, which refuses a mounted device.
    async fn make_xfs(&self, device: &Path, label: Option<&str>) -> Result<(), FileSystemError>;

    /// Gives a mounted XFS its label; it is on the device when this returns.
    ///
    /// # Errors
    /// The kernel's, also for labels of more than 12 bytes.
    async fn label_xfs(&self, target: &Path, label: &str) -> Result<(), FileSystemError>;

    /// Repairs an XFS that is not mounted. A log that cannot be replayed is dropped: the machine has nobody who could.
    ///
    /// # Errors
    /// The tool's.
    async fn repair_xfs(&self, device: &Path) -> Result<(), FileSystemError>;

    /// Grows a mounted XFS to the size of its device.
    ///
    /// # Errors
    /// The tool's.
    async fn grow_xfs(&self, target: &Path) -> Result<(), FileSystemError>;

    /// Mounts without access times; makes the mount point where the parent can be written.
    ///
    /// # Errors
    /// The kernel's.
    async fn mount(&self, plan: &MountPlan) -> Result<(), FileSystemError>;

    /// Unmounts what is mounted at and below `target`, the last one first.
    ///
    /// # Errors
    /// The kernel's; what is busy stays mounted.
    async fn unmount(&self, target: &Path) -> Result<(), FileSystemError>;

    /// Takes the last mount at `target` away from its place, whoever uses it; it ends with its last user.
    ///
    /// # Errors
    /// The kernel's.
    async fn detach(&self, target: &Path) -> Result<(), FileSystemError>;

    /// The room at `target`, whose directory is read for it: a file system that gave up refuses that. It takes as long as the
    /// disk takes.
    ///
    /// # Errors
    /// [`FileSystemError::Look`].
    async fn usage(&self, target: &Path) -> Result<Usage, FileSystemError>;

    /// The mount table, in mount order.
    ///
    /// # Errors
    /// It cannot be read.
    async fn mounts(&self) -> Result<Vec<mounts::Mount>, FileSystemError>;
}

/// Tools and the kernel of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct KernelFileSystems;

#[async_trait]
impl FileSystems for KernelFileSystems {
    async fn make_xfs(&self, device: &Path, label: Option<&str>) -> Result<(), FileSystemError> {
        let mut args = XFS.to_vec();
        args.extend(label.iter().flat_map(|label| ["-L", label]));
        on_device("mkfs.xfs", &args, device, MAKE).await
    }

    async fn label_xfs(&self, target: &Path, label: &str) -> Result<(), FileSystemError> {
        let (target, label) = (target.to_owned(), label.to_owned());
        on_thread(move || set_label(&target, &label).map_err(|source| FileSystemError::Label { target, label, source }))
            .await
    }

    async fn repair_xfs(&self, device: &Path) -> Result<(), FileSystemError> {
        match on_device("xfs_repair", &[], device, REPAIR).await {
            Err(FileSystemError::Tool { source: ProcessError::Failed { status, .. }, .. })
                if status.code() == Some(2) =>
            {
                tracing::warn!(device = %device.display(), "the log of the file system cannot be replayed and is dropped");
                on_device("xfs_repair", &["-L"], device, REPAIR).await
            }
            other => other,
        }
    }

    async fn grow_xfs(&self, target: &Path) -> Result<(), FileSystemError> {
        on_device("xfs_growfs", &["-d"], target, GROW).await
    }

    async fn mount(&self, plan: &MountPlan) -> Result<(), FileSystemError> {
        let plan = plan.clone();
        on_thread(move || {
            if !plan.target.is_dir() {
                std::fs::create_dir_all(&plan.target)
                    .map_err(|source| FileSystemError::Target { target: plan.target.clone(), source })?;
            }
            let read_only = if plan.is_read_only { MountFlags::RDONLY } else { MountFlags::empty() };
            let source = plan.source.display().to_string();
            let flags = MountFlags::NOATIME | read_only;
            let mount = || mounts::mount(&source, &plan.target, plan.kind, flags, &plan.options);
            match mount() {
                // The kernel does not know this file system yet, and nobody but this process loads modules for it.
                Err(MountError::Mount { source, .. }) if is(&source, Errno::NODEV) => {
                    load_module(plan.kind)?;
                    Ok(mount()?)
                }
                other => Ok(other?),
            }
        })
        .await
    }

    async fn unmount(&self, target: &Path) -> Result<(), FileSystemError> {
        let target = target.to_owned();
        on_thread(move || {
            let table = mounts::table()?;
            for mount in table.iter().rev().filter(|mount| mount.target.starts_with(&target)) {
                rustix::mount::unmount(&mount.target, UnmountFlags::NOFOLLOW)
                    .map_err(|source| MountError::Unmount { target: mount.target.clone(), source: source.into() })?;
            }
            Ok(())
        })
        .await
    }

    async fn detach(&self, target: &Path) -> Result<(), FileSystemError> {
        let target = target.to_owned();
        on_thread(move || Ok(mounts::detach(&target)?)).await
    }

    async fn usage(&self, target: &Path) -> Result<Usage, FileSystemError> {
        let target = target.to_owned();
        on_thread(move || usage(&target).map_err(|source| FileSystemError::Look { target, source })).await
    }

    async fn mounts(&self) -> Result<Vec<mounts::Mount>, FileSystemError> {
        on_thread(|| Ok(mounts::table()?)).await
    }
}

fn usage(target: &Path) -> io::Result<Usage> {
    // The first entry is enough: all are read by the same call.
    if let Some(entry) = std::fs::read_dir(target)?.next() {
        entry?;
    }
    let room = rustix::fs::statvfs(target)?;
    let bytes = |blocks: u64| blocks.saturating_mul(room.f_frsize);
    let available = if room.f_files > 0 && room.f_favail == 0 { 0 } else { bytes(room.f_bavail) };
    Ok(Usage { size: bytes(room.f_blocks), available })
}

/// FS_IOC_SETFSLABEL of linux/fs.h, and the length of its argument.
const SET_LABEL: Opcode = opcode::write::<[u8; LABEL_BYTES]>(0x94, 50);
const LABEL_BYTES: usize = 256;

#[expect(unsafe_code, reason = "a call to the kernel that has no safe form")]
fn set_label(target: &Path, label: &str) -> io::Result<()> {
    let mut bytes = [0; LABEL_BYTES];
    // The last byte ends the text.
    let place = bytes[..LABEL_BYTES - 1].get_mut(..label.len()).ok_or(Errno::INVAL)?;
    place.copy_from_slice(label.as_bytes());
    let directory = std::fs::File::open(target)?;
    // SAFETY: the request reads a text of at most 256 bytes that ends with a zero, and touches no memory of this process.
    Ok(unsafe { ioctl(&directory, Setter::<SET_LABEL, [u8; LABEL_BYTES]>::new(bytes)) }?)
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

/// Loads a module of this kernel; one that is built in or loaded is there already.
pub(crate) fn load_module(name: &'static str) -> Result<(), FileSystemError> {
    let load = || Modules::of_running_kernel()?.load(name, "");
    load().map_err(|source| FileSystemError::Module { name, source })
}

async fn on_device(
    program: &'static str,
    args: &[&str],
    subject: &Path,
    at_most: Duration,
) -> Result<(), FileSystemError> {
    let subject = subject.display().to_string();
    let args: Vec<&str> = args.iter().copied().chain([subject.as_str()]).collect();
    run(program, &args, subject.clone(), at_most).await
}

/// How every XFS is made. The tool refuses less than 300 MiB otherwise, and STATE is smaller.
pub(crate) const XFS: [&str; 6] = ["--unsupported", "-n", "ftype=1", "-m", "bigtime=1", "-f"];

/// Runs a tool to its end; one that takes too long is killed.
pub(crate) async fn run(
    program: &'static str,
    args: &[&str],
    subject: String,
    at_most: Duration,
) -> Result<(), FileSystemError> {
    let (output, ended) = tool::run(Command::new(program).args(args.iter().copied()), SHOWN, at_most).await;
    let failed =
        |source| FileSystemError::Tool { program, subject: subject.clone(), output: tool::line(&output), source };
    match ended {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(failed(ProcessError::Failed { program: program.to_owned(), status })),
        Err(Failure::Process(source)) => Err(failed(source)),
        Err(Failure::Slow) => Err(FileSystemError::Slow { program, subject, waited: at_most }),
    }
}

pub(crate) async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FileSystemError> + Send + 'static,
) -> Result<T, FileSystemError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(FileSystemError::Interrupted))
}
