//! What a machine with a kernel of its own does to it when it ends: processes, mounts, the next kernel, reboot(2).

use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::mount::{MountFlags, UnmountFlags};

use crate::files::{self, FileError};
use crate::kernel_param::{KernelParam, KernelParamError};
use crate::mounts::{self, Mount, MountError};
use crate::power::{self, End, KexecError};

#[cfg(feature = "testing")]
mod fake;

#[cfg(feature = "testing")]
pub use fake::{Call, FakeLateSystem, Loss};

/// How a process is told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// SIGTERM.
    Politely,
    /// SIGKILL.
    ForGood,
}

/// The kernel of a machine that ends.
pub trait LateSystem: Debug + Send + Sync {
    /// Tells all processes but this one to end.
    fn signal_all(&self, ending: Ending);

    /// Whether another process than this one runs, besides those of the kernel.
    fn others_run(&self) -> bool;

    /// Waits, with this thread.
    fn wait(&self, time: Duration);

    /// All mounts of this process, in mount order; none where they cannot be read.
    fn mounts(&self) -> Vec<Mount>;

    /// Unmounts what nobody uses.
    ///
    /// # Errors
    /// `Unmount` with the kernel's reason: `EBUSY` while it is in use or has a mount on it.
    fn unmount(&self, target: &Path) -> Result<(), MountError>;

    /// Has nothing written to a mount any more.
    ///
    /// # Errors
    /// `Mount` with the kernel's reason: `EBUSY` while a file is open for writing.
    fn make_read_only(&self, target: &Path) -> Result<(), MountError>;

    /// Waits until all that was written is on its disk.
    fn sync(&self);

    /// The value of a kernel parameter.
    ///
    /// # Errors
    /// `Read`.
    fn param(&self, param: &KernelParam) -> Result<String, KernelParamError>;

    /// The device of the partition of this name on a disk, by the disk's own device.
    fn partition(&self, disk: &Path, label: &str) -> Option<PathBuf>;

    /// Mounts the filesystem with kernels for reading at a directory, which is made.
    ///
    /// # Errors
    /// The kernel's.
    fn mount_kernels(&self, device: &Path, target: &Path) -> Result<(), MountError>;

    /// Detaches that.
    ///
    /// # Errors
    /// The kernel's.
    fn detach(&self, target: &Path) -> Result<(), MountError>;

    /// Reads a file; none if there is no such file.
    ///
    /// # Errors
    /// Reading failed.
    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>, FileError>;

    /// Loads the kernel for [`End::Kexec`].
    ///
    /// # Errors
    /// A file cannot be read, or the kernel refuses it.
    fn load_kernel(&self, kernel: &Path, initramfs: &Path, command_line: &str) -> Result<(), KexecError>;

    /// Whether a kernel is loaded for [`End::Kexec`].
    fn is_kernel_loaded(&self) -> bool;

    /// Ends the machine now; returns only with an error: `EINVAL` for [`End::Kexec`] without a kernel.
    fn end(&self, end: End) -> io::Error;

    /// Reboots after ten seconds, for a machine that does not end in another way. Does not return on a machine.
    fn reboot_after_failure(&self);
}

/// The kernel that this program runs on. Processes are ended by process 1 alone.
#[derive(Debug, Default)]
pub struct KernelLateSystem;

impl LateSystem for KernelLateSystem {
    fn signal_all(&self, ending: Ending) {
        // On a host it would end the host's.
        if std::process::id() != 1 {
            return;
        }
        let signal = match ending {
            Ending::Politely => libc::SIGTERM,
            Ending::ForGood => libc::SIGKILL,
        };
        // SAFETY: no memory is passed. -1 is every process but this one.
        unsafe { libc::kill(-1, signal) };
    }

    fn others_run(&self) -> bool {
        let own = std::process::id();
        if own != 1 {
            return false;
        }
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids =
            entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).filter(|pid| *pid != own);
        // Those of the kernel have no memory map, and the dead are nobody's.
        let mut lines = pids.map(|pid| std::fs::read(format!("/proc/{pid}/cmdline")));
        lines.any(|line| line.is_ok_and(|line| !line.is_empty()))
    }

    #[expect(clippy::disallowed_methods, reason = "nothing else runs any more")]
    fn wait(&self, time: Duration) {
        std::thread::sleep(time);
    }

    fn mounts(&self) -> Vec<Mount> {
        mounts::table().unwrap_or_default()
    }

    fn unmount(&self, target: &Path) -> Result<(), MountError> {
        let unmounted = rustix::mount::unmount(target, UnmountFlags::NOFOLLOW);
        unmounted.map_err(|error| MountError::Unmount { target: target.to_owned(), source: error.into() })
    }

    fn make_read_only(&self, target: &Path) -> Result<(), MountError> {
        rustix::mount::mount_remount(target, MountFlags::RDONLY, c"").map_err(|error| MountError::Mount {
            what: "read-only remount".to_owned(),
            target: target.to_owned(),
            source: error.into(),
        })
    }

    fn sync(&self) {
        rustix::fs::sync();
    }

    fn param(&self, param: &KernelParam) -> Result<String, KernelParamError> {
        param.read()
    }

    fn partition(&self, disk: &Path, label: &str) -> Option<PathBuf> {
        crate::partitions::on_disk(disk, label)
    }

    fn mount_kernels(&self, device: &Path, target: &Path) -> Result<(), MountError> {
        let device = device.display().to_string();
        files::ensure_directory(target, 0o700).map_err(|error| MountError::Mount {
            what: device.clone(),
            target: target.to_owned(),
            source: io::Error::other(error),
        })?;
        let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mounts::mount(&device, target, "xfs", flags, "")
    }

    fn detach(&self, target: &Path) -> Result<(), MountError> {
        mounts::detach(target)
    }

    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>, FileError> {
        files::read(path)
    }

    fn load_kernel(&self, kernel: &Path, initramfs: &Path, command_line: &str) -> Result<(), KexecError> {
        power::load_kernel(kernel, initramfs, command_line)
    }

    fn is_kernel_loaded(&self) -> bool {
        power::is_kernel_loaded()
    }

    fn end(&self, end: End) -> io::Error {
        power::end(end)
    }

    fn reboot_after_failure(&self) {
        power::reboot_after_failure(None)
    }
}
