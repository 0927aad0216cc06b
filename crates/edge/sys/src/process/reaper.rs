//! Who owns which child, and the reaper of those that nobody owns.
//!
//! Spawning and the orphan scan exclude each other by one lock, so that the scan never sees a child before its owner is
//! on record.

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::Pid;

static OWNED: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// A record that a child is waited for by whoever holds this.
#[derive(Debug)]
pub(super) struct Owned {
    pid: Pid,
    released: AtomicBool,
}

impl Owned {
    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    /// Its exit status was taken. Once: from then on the number may be that of another child.
    pub(super) fn reaped(&self) {
        if !self.released.swap(true, Ordering::Relaxed) {
            OWNED.lock().remove(&self.pid.as_raw_nonzero().get());
        }
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.reaped();
    }
}

pub(super) fn spawn_owned(command: &mut std::process::Command) -> io::Result<(std::process::Child, Owned)> {
    let mut owned = OWNED.lock();
    let child = command.spawn()?;
    let raw = i32::try_from(child.id()).map_err(|_| io::Error::other("process id out of range"))?;
    let pid = Pid::from_raw(raw).ok_or_else(|| io::Error::other("process id 0"))?;
    owned.insert(raw);
    Ok((child, Owned { pid, released: AtomicBool::new(false) }))
}

/// Reaps children that nobody here owns, for as long as it is polled. For PID 1 only: elsewhere it would take the
/// children of other libraries.
///
/// Runs on SIGCHLD and, because signals coalesce, once a second.
///
/// # Errors
/// When the kernel refuses the SIGCHLD handler.
pub async fn reap_orphans() -> io::Result<()> {
    let mut signal = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::child())?;
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    loop {
        // Both arms are cancel-safe: neither carries data.
        tokio::select! {
            _ = signal.recv() => {}
            _ = tick.tick() => {}
        }
        while reap_one() {}
    }
}

/// Reaps one orphan. False when there is none, or when the next one in line belongs to somebody (who takes it soon).
fn reap_one() -> bool {
    let owned = OWNED.lock();
    // SAFETY: `info` is a plain C structure that the kernel fills; all-zero is a valid value of it.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: waitid writes only to `info`, which outlives the call.
    let rc = unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT) };
    if rc != 0 {
        return false;
    }
    // SAFETY: after a successful waitid the structure is of the SIGCHLD kind (or zero when nothing was waiting).
    let pid = unsafe { info.si_pid() };
    if pid == 0 || owned.contains(&pid) {
        return false;
    }
    let Some(id) = libc::id_t::try_from(pid).ok() else { return false };
    // SAFETY: as above; this call takes the exit status of exactly that child.
    unsafe { libc::waitid(libc::P_PID, id, &raw mut info, libc::WEXITED | libc::WNOHANG) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_that_goes_late_leaves_the_next_child_of_the_same_number_alone() {
        let pid = Pid::from_raw(i32::MAX).unwrap();
        let owned = || {
            OWNED.lock().insert(i32::MAX);
            Owned { pid, released: AtomicBool::new(false) }
        };
        let first = owned();
        first.reaped();
        let second = owned();
        drop(first);
        assert!(OWNED.lock().contains(&i32::MAX));
        drop(second);
        assert!(!OWNED.lock().contains(&i32::MAX));
    }
}
