//! How a node that is a container tells its host how it ended; see the node contract in ARCHITECTURE.md.

use std::path::Path;
use std::process::ExitCode;

use sequencer::Outcome;
use stdx::error_chain;
use sys::files::{Access, write_atomic};

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
}
