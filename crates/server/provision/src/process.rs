//! Processes that outlive a command, told apart from later ones that were given the same number.

use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// One process of one boot of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Identity {
    pub(crate) pid: i32,
    /// In clock ticks since boot.
    started: u64,
    boot: String,
}

impl Identity {
    /// The process with this number now; none when there is none.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        Some(Self { pid, started: started(pid)?, boot: boot() })
    }

    /// As [`Self::of`], also for a zombie.
    pub(crate) fn of_any(pid: i32) -> Option<Self> {
        Some(Self { pid, started: stat(pid)?.started, boot: boot() })
    }

    /// Whether it is running; a zombie is not.
    pub(crate) fn is_alive(&self) -> bool {
        self.boot == boot() && started(self.pid) == Some(self.started)
    }

    /// Ends the process: SIGTERM, then SIGKILL. Returns whether it ended.
    pub(crate) fn end(&self, grace: Duration) -> bool {
        let Some(pid) = Pid::from_raw(self.pid) else { return true };
        // The descriptor keeps meaning one process, so the check after opening it holds for the signals.
        let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { return !self.is_alive() };
        if !self.is_alive() {
            return true;
        }
        for signal in [Signal::TERM, Signal::KILL] {
            // A process that ended meanwhile cannot be signalled, and need not.
            let _ = pidfd_send_signal(&process, signal);
            if self.wait(grace) {
                return true;
            }
        }
        false
    }

    /// Waits for the process to end; returns whether it did.
    pub(crate) fn wait(&self, at_most: Duration) -> bool {
        const STEP: Duration = Duration::from_millis(10);
        for _ in 0..at_most.as_millis() / STEP.as_millis() {
            if !self.is_alive() {
                return true;
            }
            std::thread::park_timeout(STEP);
        }
        !self.is_alive()
    }

    pub(crate) fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    }
}

/// When a process started; none for those that are dead.
fn started(pid: i32) -> Option<u64> {
    stat(pid).filter(|stat| !stat.is_dead).map(|stat| stat.started)
}

#[derive(Debug, PartialEq)]
struct Stat {
    is_dead: bool,
    started: u64,
}

fn stat(pid: i32) -> Option<Stat> {
    parse(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse(stat: &str) -> Option<Stat> {
    // The program's name may contain blanks and parentheses; the fields begin after the last parenthesis.
    let (_, rest) = stat.rsplit_once(") ")?;
    let fields: Vec<_> = rest.split(' ').collect();
    // A first thread that has ended is a zombie until the last one has; files and sockets are open until then.
    let threads: u32 = fields.get(17)?.parse().ok()?;
    let is_dead = matches!(*fields.first()?, "Z" | "X") && threads <= 1;
    Some(Stat { is_dead, started: fields.get(19)?.parse().ok()? })
}

/// Leaves a child to itself. A thread waits for its end, so that nothing of it stays where this process outlives it.
pub(crate) fn leave(mut child: std::process::Child) {
    // Where there is no thread, the kernel cleans up when this process ends.
    let _ = std::thread::Builder::new().name("child".to_owned()).spawn(move || child.wait());
}

fn boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{CP, start};

    #[test]
    fn a_process_is_dead_when_its_last_thread_has_ended() {
        let stat = |state: &str, threads: u32| {
            format!("7 (a ) b) {state} 1 7 7 0 -1 4228364 0 0 0 0 0 0 0 0 20 0 {threads} 0 123456 0 0")
        };
        for (state, threads, is_dead) in [("S", 1, false), ("Z", 1, true), ("Z", 2, false), ("X", 0, true)] {
            assert_eq!(parse(&stat(state, threads)), Some(Stat { is_dead, started: 123_456 }), "{state} {threads}");
        }
        assert_eq!(parse("7 (a) Z 1"), None);
    }

    #[test]
    fn a_process_is_ended_and_its_number_is_not_mistaken_for_it() {
        let log = std::fs::File::options().write(true).open("/dev/null").unwrap();
        let sleep = CP.find().unwrap().with_file_name("sleep");
        let mut child = start(&sleep, ["60"], &log).unwrap();
        let identity = Identity::of(i32::try_from(child.id()).unwrap()).unwrap();
        assert!(identity.is_alive());
        let other = Identity { started: identity.started + 1, ..identity.clone() };
        assert!(!other.is_alive());
        assert!(other.end(Duration::from_millis(10)), "nothing of that identity is left");
        assert!(identity.is_alive(), "a process of another start time is spared");
        assert!(identity.end(Duration::from_secs(5)));
        child.wait().unwrap();
        let rebooted = Identity { boot: "other".to_owned(), ..Identity::of(1).unwrap() };
        assert!(!rebooted.is_alive());
    }
}
