//! A process beside machined from its first moment on: where machined does not come up, it reboots the machine.
//!
//! A machined that ends, or panics, takes the kernel with it, which reboots. One that hangs does not, and nothing else runs yet
//! that could see it. The guard is init once more, which has nothing to do but to wait.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::power;

/// The argument with which init is the guard.
pub const ARGUMENT: &str = "guard";
/// The variable by which init tells machined the process id of its guard.
pub const VARIABLE: &str = "INIT_GUARD";
/// How many seconds machined has. Its controllers run a second after its start, or ten on an emulated machine.
const PATIENCE: &str = "300";

/// Starts the guard; returns its process id.
///
/// # Errors
/// The kernel's.
#[expect(
    clippy::disallowed_methods,
    reason = "it is never waited for by the process that starts it, which becomes machined"
)]
pub fn start() -> io::Result<u32> {
    let mut command = Command::new("/proc/self/exe");
    command.arg(ARGUMENT).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(command.spawn()?.id())
}

/// Is the guard.
pub fn run() -> ! {
    power::reboot_after_failure(Some(PATIENCE))
}

/// Ends the guard with this process id. Another process that has it by now is left alone.
///
/// # Errors
/// The kernel's.
pub fn end(pid: u32) -> io::Result<()> {
    let arguments = std::fs::read(Path::new("/proc").join(pid.to_string()).join("cmdline")).unwrap_or_default();
    let is_guard = arguments.split(|byte| *byte == 0).nth(1) == Some(ARGUMENT.as_bytes());
    match i32::try_from(pid).ok().and_then(Pid::from_raw) {
        Some(pid) if is_guard => Ok(kill_process(pid, Signal::KILL)?),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "children of a test")]
    fn a_guard_is_ended_and_another_process_with_its_id_is_not() {
        let mut other = Command::new("sleep").arg("600").spawn().unwrap();
        end(other.id()).unwrap();
        assert_eq!(other.try_wait().unwrap(), None, "it is no guard");
        other.kill().unwrap();
        other.wait().unwrap();
        // A program that takes any argument, and waits.
        let folder = tempfile::tempdir().unwrap();
        std::process::Command::new("mkfifo").arg(folder.path().join(ARGUMENT)).status().unwrap();
        let mut guard = Command::new("cat").arg(ARGUMENT).current_dir(folder.path()).spawn().unwrap();
        // A program has its arguments a moment after it was started.
        let arguments = format!("/proc/{}/cmdline", guard.id());
        while std::fs::read(&arguments).unwrap().is_empty() {
            std::thread::yield_now();
        }
        end(guard.id()).unwrap();
        assert_eq!(guard.wait().unwrap().signal(), Some(libc::SIGKILL));
    }
}
