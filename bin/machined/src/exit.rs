//! The end of a node: a container tells its host how it ended (the node contract in ARCHITECTURE.md), a machine ends itself.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use sequencer::Outcome;
use stdx::error_chain;
use sys::files::{Access, write_atomic};
use sys::late::LateSystem;
use sys::power::End;
use sys::teardown::{self, Patience};

/// How long processes may take to end, those included whose own disk does not answer.
const PROCESSES: Duration = Duration::from_secs(20);

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

/// Ends the machine: no process runs any more, everything that was written is on its disk. A disk or a server that does not
/// answer keeps no machine from ending: each is waited for about a minute.
pub(crate) fn end_machine(system: &Arc<dyn LateSystem>, outcome: Outcome, shutdown: Option<&str>) {
    end_machine_within(system, outcome, shutdown, Patience::default());
}

fn end_machine_within(system: &Arc<dyn LateSystem>, outcome: Outcome, shutdown: Option<&str>, patience: Patience) {
    let late = Arc::clone(system);
    if teardown::within(PROCESSES, move || teardown::end_processes(&*late)).is_err() {
        tracing::warn!("processes do not end; the machine ends without waiting for them");
    }
    for target in teardown::unmount_all(system, patience) {
        tracing::warn!(target = %target.display(), "still written to at the end of the machine");
    }
    let end = end_of(outcome, system.is_kernel_loaded(), shutdown);
    tracing::info!(?end, "the machine ends");
    let error = system.end(end);
    tracing::error!(error = error_chain(&error), ?end, "the machine does not end this way; rebooting");
    system.reboot_after_failure();
}

#[cfg(test)]
mod tests {
    use sys::late::{Call, FakeLateSystem, Loss};

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

    /// As `end_machine`, with little patience.
    fn end_as(system: &Arc<FakeLateSystem>, outcome: Outcome) {
        let system: Arc<dyn LateSystem> = Arc::clone(system) as _;
        let patience = Patience { each: Duration::from_millis(50), all: Duration::from_millis(200) };
        end_machine_within(&system, outcome, None, patience);
    }

    fn machine() -> FakeLateSystem {
        FakeLateSystem::default()
            .with_mount("/", "squashfs", "ro")
            .with_mount("/var", "xfs", "rw")
            .with_mount("/var/lib/pod", "xfs", "rw")
            .with_process(true, Some("/var"))
            .with_process(false, Some("/var/lib/pod"))
    }

    #[test]
    fn nothing_is_lost_when_a_machine_ends() {
        for (outcome, end) in [(Outcome::Reboot, End::Reboot), (Outcome::PowerOff, End::PowerOff)] {
            let system = Arc::new(machine());
            end_as(&system, outcome);
            assert_eq!(system.ended(), Some((end, vec![])));
        }
    }

    #[test]
    fn a_machine_that_cannot_end_as_it_should_reboots() {
        let system = Arc::new(machine().refusing(End::PowerOff));
        end_as(&system, Outcome::PowerOff);
        assert_eq!(system.ended(), Some((End::Reboot, vec![])));
        assert_eq!(system.calls().last(), Some(&Call::RebootAfterFailure));
        let system = Arc::new(machine().with_stuck("/var"));
        end_as(&system, Outcome::PowerOff);
        assert_eq!(system.ended(), Some((End::PowerOff, vec![Loss::Writable("/var".into())])));
    }

    /// It stayed on for good.
    #[test]
    fn a_disk_that_does_not_answer_keeps_no_machine_from_ending() {
        let system = Arc::new(machine().with_mount("/var/mnt/nfs", "nfs4", "rw").with_blocked("/var/mnt/nfs"));
        end_as(&system, Outcome::Reboot);
        let lost = vec![Loss::Writable("/var/mnt/nfs".into()), Loss::NotSynced];
        assert_eq!(system.ended(), Some((End::Reboot, lost)));
    }

    /// Whatever fails, the machine ends.
    #[test]
    fn each_call_that_fails_leaves_a_machine_that_ends() {
        let whole = Arc::new(machine());
        end_as(&whole, Outcome::Reboot);
        for call in 0..whole.calls().len() {
            let system = Arc::new(machine());
            system.fail_at(call);
            end_as(&system, Outcome::Reboot);
            assert_eq!(system.ended().map(|(end, _)| end), Some(End::Reboot), "call {call}");
        }
    }
}
