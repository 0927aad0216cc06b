//! The end of a node: a container tells its host how it ended (the node contract in ARCHITECTURE.md), a machine ends itself.

use std::path::Path;
use std::process::ExitCode;

use sequencer::Outcome;
use stdx::error_chain;
use sys::files::{Access, write_atomic};
use sys::power::{self, End};
use sys::teardown;

/// It asks to be powered on again.
const REBOOT: u8 = 64;

/// The exit status of an outcome: a container has neither firmware nor a kernel of its own.
pub(crate) const fn status(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::PowerOff | Outcome::Halt => 0,
        Outcome::Reboot | Outcome::Kexec => REBOOT,
    }
}

/// Writes the status to `file`, for a host that is not the parent of init, and gives it to `main`. There is no file where
/// the volume for it is not the host's.
pub(crate) fn leave(outcome: Outcome, file: Option<&Path>) -> ExitCode {
    let status = status(outcome);
    // Without the file the host takes this for a crash and powers the node on: the safer mistake.
    if let Some(file) = file
        && let Err(error) = write_atomic(file, format!("{status}\n").as_bytes(), Access::SECRET)
    {
        tracing::error!(error = error_chain(&error), "the exit status is not written");
    }
    ExitCode::from(status)
}

/// How the kernel ends the machine: by the kernel that was loaded for it, if one was; `shutdown` is `talos.shutdown` of the
/// command line.
fn end_of(outcome: Outcome, is_kernel_loaded: bool, shutdown: Option<&str>) -> End {
    match outcome {
        Outcome::Reboot | Outcome::Kexec if is_kernel_loaded => End::Kexec,
        Outcome::Reboot | Outcome::Kexec => End::Reboot,
        Outcome::PowerOff if shutdown == Some("halt") => End::Halt,
        Outcome::PowerOff => End::PowerOff,
        Outcome::Halt => End::Halt,
    }
}

/// Ends the machine: no process runs any more, everything that was written is on its disk.
pub(crate) fn end_machine(outcome: Outcome, shutdown: Option<&str>) -> ExitCode {
    teardown::end_processes();
    for target in teardown::unmount_all() {
        tracing::warn!(target = %target.display(), "still written to at the end of the machine");
    }
    let end = end_of(outcome, power::is_kernel_loaded(), shutdown);
    tracing::info!(?end, "the machine ends");
    let error = power::end(end);
    tracing::error!(error = error_chain(&error), ?end, "the machine does not end this way; rebooting");
    power::reboot_after_failure(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powered_off_is_success_and_a_reboot_has_a_status_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join(".exit-status");
        for (outcome, text) in
            [(Outcome::PowerOff, "0\n"), (Outcome::Halt, "0\n"), (Outcome::Reboot, "64\n"), (Outcome::Kexec, "64\n")]
        {
            let code = leave(outcome, Some(&file));
            assert_eq!(code, ExitCode::from(status(outcome)));
            assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
        }
    }

    #[test]
    fn a_machine_reboots_by_the_kernel_that_was_loaded_and_halts_where_that_is_asked_for() {
        assert_eq!(end_of(Outcome::Reboot, true, None), End::Kexec);
        assert_eq!(end_of(Outcome::Reboot, false, Some("halt")), End::Reboot);
        assert_eq!(end_of(Outcome::PowerOff, true, None), End::PowerOff);
        assert_eq!(end_of(Outcome::PowerOff, false, Some("halt")), End::Halt);
        assert_eq!(end_of(Outcome::PowerOff, false, Some("poweroff")), End::PowerOff);
    }
}
