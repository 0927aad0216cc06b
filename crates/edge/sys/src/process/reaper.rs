//! Ownership of children, and the reaper of orphans.
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

/// Marks a child as owned: its holder waits for it.
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

/// Reaps children without an owner here, as long as it is polled. For PID 1 only: elsewhere it would take the children
/// of other libraries.
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
        reap_all();
    }
}

/// Reaps all orphans that have ended.
fn reap_all() {
    while let Some(pid) = next_zombie() {
        if !reap(pid) {
            // The kernel shows the same child again until its owner has taken it: the others are looked for by name.
            for pid in zombie_children().into_iter().filter(|other| *other != pid) {
                reap(pid);
            }
            return;
        }
    }
}

/// A child that has ended, which stays as it is.
fn next_zombie() -> Option<i32> {
    // SAFETY: `info` is a plain C structure that the kernel fills; all-zero is a valid value of it.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: waitid writes only to `info`, which outlives the call.
    let rc = unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT) };
    if rc != 0 {
        return None;
    }
    // SAFETY: after a successful waitid the structure is of the SIGCHLD kind (or zero when nothing was waiting).
    Some(unsafe { info.si_pid() }).filter(|pid| *pid != 0)
}

/// Reaps a child that has ended and that nobody owns; false for any other. A child that is spawned meanwhile with the same
/// number is on record before this lock is free.
fn reap(pid: i32) -> bool {
    let owned = OWNED.lock();
    if owned.contains(&pid) {
        return false;
    }
    let Some(id) = libc::id_t::try_from(pid).ok() else { return false };
    // SAFETY: as in `next_zombie`.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: as in `next_zombie`; this call takes the exit status of exactly that child.
    unsafe { libc::waitid(libc::P_PID, id, &raw mut info, libc::WEXITED | libc::WNOHANG) == 0 }
}

/// Children of this process that have ended, as `/proc` shows them.
fn zombie_children() -> Vec<i32> {
    let own = std::process::id().to_string();
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    numbers
        .filter(|pid| {
            let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
            // The name of the program is in brackets and may have anything in it.
            let Some((_, rest)) = stat.rsplit_once(')') else { return false };
            let mut fields = rest.split_whitespace();
            fields.next() == Some("Z") && fields.next() == Some(&own)
        })
        .collect()
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

    fn is_zombie(pid: i32) -> bool {
        zombie_children().contains(&pid)
    }

    #[test]
    fn an_orphan_behind_a_zombie_that_is_owned_is_reaped() {
        let command = || super::super::std_command(std::path::Path::new("/bin/true"));
        // the kernel shows children in the order of their births
        let (mut first, owned) = spawn_owned(&mut command()).unwrap();
        let orphans: Vec<i32> = (0..3).map(|_| i32::try_from(command().spawn().unwrap().id()).unwrap()).collect();
        let own = owned.pid().as_raw_nonzero().get();
        let deadline = std::time::Duration::from_secs(20);
        let begun = tokio::time::Instant::now();
        while !(is_zombie(own) && orphans.iter().all(|pid| is_zombie(*pid))) {
            assert!(begun.elapsed() < deadline, "they do not end");
            std::thread::yield_now();
        }
        reap_all();
        assert!(!orphans.iter().any(|pid| is_zombie(*pid)), "an orphan is left");
        assert!(is_zombie(own), "the owner's child was taken");
        first.wait().unwrap();
        owned.reaped();
    }
}
