//! The last acts before a machine ends: nothing runs any more, and nothing that was written is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use tokio::time::Instant;

use crate::late::{Ending, LateSystem};
use crate::mounts::Mount;

/// Time for processes to end by themselves.
const TERMINATE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(50);
/// Time for a call that does not block.
const PROMPT: Duration = Duration::from_millis(250);
/// Mounts on mounts need a pass for each level.
const PASSES: usize = 16;

/// Filesystems without data.
const WITHOUT_DATA: [&str; 18] = [
    "proc",
    "sysfs",
    "devtmpfs",
    "devpts",
    "tmpfs",
    "cgroup2",
    "cgroup",
    "bpf",
    "mqueue",
    "securityfs",
    "tracefs",
    "debugfs",
    "pstore",
    "efivarfs",
    "ramfs",
    "rootfs",
    "nsfs",
    "hugetlbfs",
];

/// Ends all processes but this one: politely, then for good.
pub fn end_processes(system: &dyn LateSystem) {
    for ending in [Ending::Politely, Ending::ForGood] {
        system.signal_all(ending);
        let mut waited = Duration::ZERO;
        while system.others_run() && waited < TERMINATE {
            system.wait(POLL);
            waited += POLL;
        }
    }
}

/// How long a machine that ends waits for disks and servers that do not answer.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For one mount, before the next one is turned to. It may end later.
    pub each: Duration,
    /// For all mounts.
    pub all: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { each: Duration::from_secs(3), all: Duration::from_secs(60) }
    }
}

/// Unmounts everything with data on it, the mounts on top first; what is still in use is made read-only. A mount that blocks
/// keeps no other one from that. Returns what could be neither within `patience`.
pub fn unmount_all(system: &Arc<dyn LateSystem>, patience: Patience) -> Vec<PathBuf> {
    let mut work = Unmounting { system, patience, begun: Instant::now(), blocked: BTreeMap::new() };
    for _ in 0..PASSES {
        let unmount = |system: &dyn LateSystem, target: &Path| system.unmount(target).is_ok();
        let mounts = with_data(&**system);
        if mounts.iter().rev().filter(|mount| work.call(&mount.target, unmount)).count() == 0 {
            break;
        }
    }
    let left: BTreeSet<PathBuf> = with_data(&**system).into_iter().map(|mount| mount.target).collect();
    let make_read_only = |system: &dyn LateSystem, target: &Path| system.make_read_only(target).is_ok();
    let mut left: BTreeSet<PathBuf> = left.into_iter().filter(|target| !work.call(target, make_read_only)).collect();
    let late = Arc::clone(system);
    let sync = within(work.limit(), move || late.sync());
    for (target, call) in std::mem::take(&mut work.blocked) {
        if call.recv_timeout(work.time_left()) == Ok(true) {
            left.remove(&target);
        } else {
            left.insert(target);
        }
    }
    if let Err(blocked) = sync
        && blocked.recv_timeout(work.time_left()).is_err()
    {
        tracing::warn!("not everything that was written has reached its disk");
    }
    left.into_iter().collect()
}

/// Does work in a thread of its own, as it may block for good; then it is left to itself, and its result may come later.
///
/// # Errors
/// It has not ended within this time.
pub fn within<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> T + Clone + Send + 'static,
) -> Result<T, Receiver<T>> {
    let (done, result) = mpsc::channel();
    let run = move || drop(done.send(work()));
    if let Err(error) = std::thread::Builder::new().name("teardown".to_owned()).spawn(run.clone()) {
        tracing::warn!(%error, "no thread: a disk that does not answer is waited for");
        run();
    }
    match result.recv_timeout(limit) {
        Ok(value) => Ok(value),
        // Disconnected: it panicked. Whoever asks again is told the same.
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Err(result),
    }
}

/// The work on all mounts.
struct Unmounting<'a> {
    system: &'a Arc<dyn LateSystem>,
    patience: Patience,
    begun: Instant,
    /// Calls that have not returned.
    blocked: BTreeMap<PathBuf, Receiver<bool>>,
}

impl Unmounting<'_> {
    fn time_left(&self) -> Duration {
        self.patience.all.saturating_sub(self.begun.elapsed())
    }

    /// How long one call is waited for: what answers does so at once, also after others have used up the time.
    fn limit(&self) -> Duration {
        self.patience.each.min(self.time_left().max(PROMPT))
    }

    /// Whether it was done to a mount. What has blocked is not called again.
    fn call(&mut self, target: &Path, what: fn(&dyn LateSystem, &Path) -> bool) -> bool {
        if self.blocked.contains_key(target) {
            return false;
        }
        let (system, path) = (Arc::clone(self.system), target.to_owned());
        within(self.limit(), move || what(&*system, &path)).unwrap_or_else(|call| {
            tracing::warn!(target = %target.display(), "a mount blocks; the others are not kept by it");
            self.blocked.insert(target.to_owned(), call);
            false
        })
    }
}

fn with_data(system: &dyn LateSystem) -> Vec<Mount> {
    system.mounts().into_iter().filter(has_data).collect()
}

fn has_data(mount: &Mount) -> bool {
    let is_read_only = mount.options.iter().any(|option| option == "ro");
    mount.target != Path::new("/") && !is_read_only && !WITHOUT_DATA.contains(&mount.filesystem.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::late::{Call, FakeLateSystem, KernelLateSystem};

    fn mount(target: &str, filesystem: &str, options: &str) -> Mount {
        Mount {
            source: "x".into(),
            target: target.into(),
            filesystem: filesystem.into(),
            options: options.split(',').map(str::to_owned).collect(),
        }
    }

    #[test]
    fn only_writable_filesystems_with_data_are_unmounted() {
        assert!(has_data(&mount("/var", "xfs", "rw,noatime")));
        assert!(has_data(&mount("/etc/cni", "overlay", "rw,lowerdir=/a")));
        assert!(!has_data(&mount("/", "squashfs", "ro")));
        assert!(!has_data(&mount("/", "overlay", "rw")));
        assert!(!has_data(&mount("/iso", "iso9660", "ro,relatime")));
        assert!(!has_data(&mount("/run", "tmpfs", "rw")));
    }

    /// It would end the processes of the host.
    #[test]
    fn a_process_that_is_not_the_first_ends_nobody() {
        end_processes(&KernelLateSystem);
    }

    #[test]
    fn processes_get_time_to_end_before_they_are_killed() {
        let polite = FakeLateSystem::default().with_process(true, None);
        end_processes(&polite);
        assert_eq!((polite.others_run(), polite.waited()), (false, Duration::ZERO));
        let stubborn = FakeLateSystem::default().with_process(true, None).with_process(false, None);
        end_processes(&stubborn);
        assert_eq!((stubborn.others_run(), stubborn.waited()), (false, TERMINATE));
        assert_eq!(stubborn.calls(), [Call::Signal(Ending::Politely), Call::Signal(Ending::ForGood)]);
    }

    fn machine() -> FakeLateSystem {
        FakeLateSystem::default()
            .with_mount("/", "squashfs", "ro")
            .with_mount("/run", "tmpfs", "rw")
            .with_mount("/var", "xfs", "rw")
            .with_mount("/etc/cni", "overlay", "rw")
            .with_mount("/var/lib/pod", "xfs", "rw")
    }

    fn unmount_all_of(system: &Arc<FakeLateSystem>, patience: Patience) -> Vec<PathBuf> {
        let system: Arc<dyn LateSystem> = Arc::clone(system) as _;
        unmount_all(&system, patience)
    }

    /// The machine never ended, and what was written to other disks was lost when it was switched off.
    #[test]
    fn a_mount_that_blocks_keeps_neither_other_mounts_nor_the_end() {
        let patience = Patience { each: Duration::from_millis(50), all: Duration::from_millis(200) };
        let system = Arc::new(machine().with_mount("/var/lib/nfs", "nfs4", "rw").with_blocked("/var/lib/nfs"));
        let begun = Instant::now();
        assert_eq!(unmount_all_of(&system, patience), [PathBuf::from("/var/lib/nfs")]);
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        let calls = system.calls();
        for done in [Call::Unmount("/etc/cni".into()), Call::ReadOnly("/var".into()), Call::Sync] {
            assert!(calls.contains(&done), "{done:?} of {calls:?}");
        }
        let blocked: Vec<_> = calls.iter().filter(|call| format!("{call:?}").contains("nfs")).collect();
        assert_eq!(blocked, [&Call::Unmount("/var/lib/nfs".into())]);
        system.end(crate::power::End::Reboot);
    }

    #[test]
    fn mounts_on_top_go_first() {
        let system = Arc::new(machine());
        assert_eq!(unmount_all_of(&system, Patience::default()), Vec::<PathBuf>::new());
        let unmounts = ["/var/lib/pod", "/etc/cni", "/var"].map(|target| Call::Unmount(target.into()));
        assert_eq!(system.calls()[..3], unmounts);
        assert_eq!(system.calls()[3..], [Call::Sync]);
    }

    #[test]
    fn what_stays_in_use_is_made_read_only_or_named() {
        let written = Arc::new(machine().with_process(false, Some("/var")));
        assert_eq!(unmount_all_of(&written, Patience::default()), [PathBuf::from("/var")]);
        // What cannot be unmounted below /var keeps it as well; both can be read only.
        let stuck = Arc::new(machine().with_stuck("/var/lib/pod"));
        assert_eq!(unmount_all_of(&stuck, Patience::default()), [PathBuf::from("/var/lib/pod")]);
        assert!(stuck.calls().contains(&Call::ReadOnly("/var".into())), "{:?}", stuck.calls());
    }
}
