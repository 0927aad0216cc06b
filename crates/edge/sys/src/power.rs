//! The end of a machine: reboot(2), and the kernel that a reboot starts without the firmware.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How the kernel ends the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Reboot,
    PowerOff,
    Halt,
    /// Starts the kernel of [`load_kernel`].
    Kexec,
}

/// The next kernel cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum KexecError {
    #[error("reading {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the command line has a zero byte or is too long")]
    CommandLine,
    #[error("loading the kernel")]
    Load(#[source] io::Error),
}

/// Ends the machine now: nothing is synchronised, stopped or unmounted here. Returns only with an error.
pub fn end(end: End) -> io::Error {
    use rustix::system::{RebootCommand, reboot};
    let command = match end {
        End::Reboot => RebootCommand::Restart,
        End::PowerOff => RebootCommand::PowerOff,
        End::Halt => RebootCommand::Halt,
        End::Kexec => {
            // SAFETY: the command takes no argument.
            unsafe { libc::reboot(libc::LINUX_REBOOT_CMD_KEXEC) };
            return io::Error::last_os_error();
        }
    };
    match reboot(command) {
        Ok(()) => io::Error::other("the kernel returned from the end of the machine"),
        Err(error) => error.into(),
    }
}

/// Loads the kernel that [`End::Kexec`] starts. Both are checked by the kernel as far as it is configured to.
///
/// # Errors
/// `Read`; [`KexecError::Load`] is `EPERM` where `kernel.kexec_load_disabled` or lockdown forbids it.
pub fn load_kernel(kernel: &Path, initramfs: &Path, command_line: &str) -> Result<(), KexecError> {
    let open = |path: &Path| File::open(path).map_err(|source| KexecError::Read { path: path.to_owned(), source });
    let (kernel, initramfs) = (open(kernel)?, open(initramfs)?);
    let line = std::ffi::CString::new(command_line).map_err(|_| KexecError::CommandLine)?;
    let length = line.as_bytes_with_nul().len();
    // SAFETY: the descriptors are open, and the text with its NUL outlives the call.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_kexec_file_load,
            kernel.as_raw_fd(),
            initramfs.as_raw_fd(),
            length as libc::c_ulong,
            line.as_ptr(),
            0 as libc::c_ulong,
        )
    };
    if rc == 0 { Ok(()) } else { Err(KexecError::Load(io::Error::last_os_error())) }
}

/// Whether a kernel is loaded for [`End::Kexec`].
#[must_use]
pub fn is_kernel_loaded() -> bool {
    std::fs::read_to_string("/sys/kernel/kexec_loaded").is_ok_and(|text| text.trim() == "1")
}

/// Has Ctrl-Alt-Del send SIGINT to process 1 instead of rebooting at once.
///
/// # Errors
/// The kernel's.
pub fn disable_ctrl_alt_del() -> io::Result<()> {
    Ok(rustix::system::reboot(rustix::system::RebootCommand::CadOff)?)
}

/// Waits, and then reboots: for a process that cannot go on. `panic` is the kernel's argument of that name: seconds, 0 to
/// wait for good; ten without one.
pub fn reboot_after_failure(panic: Option<&str>) -> ! {
    let seconds = panic.and_then(|seconds| seconds.parse::<i64>().ok()).unwrap_or(10);
    let wait = |seconds| {
        #[expect(clippy::disallowed_methods, reason = "there is nothing else that this process could do")]
        std::thread::sleep(Duration::from_secs(seconds));
    };
    if seconds == 0 {
        loop {
            wait(3600);
        }
    }
    wait(u64::try_from(seconds).unwrap_or(0));
    rustix::fs::sync();
    loop {
        // Only with an error; it is tried again.
        drop(end(End::Reboot));
        wait(1);
    }
}
