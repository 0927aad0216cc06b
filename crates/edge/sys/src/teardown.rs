//! The last acts before a machine ends: nothing runs any more, and nothing that was written is lost.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::late::{Ending, LateSystem};
use crate::mounts::Mount;

/// Time for processes to end by themselves.
const TERMINATE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(50);
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

/// Unmounts everything with data on it, the mounts on top first; what is still in use is made read-only. Returns what could
/// be neither.
pub fn unmount_all(system: &dyn LateSystem) -> Vec<PathBuf> {
    for _ in 0..PASSES {
        let unmounted = with_data(system).iter().rev().filter(|mount| system.unmount(&mount.target).is_ok()).count();
        if unmounted == 0 {
            break;
        }
    }
    let left: BTreeSet<PathBuf> = with_data(system).into_iter().map(|mount| mount.target).collect();
    let left = left.into_iter().filter(|target| system.make_read_only(target).is_err()).collect();
    system.sync();
    left
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

    #[test]
    fn mounts_on_top_go_first() {
        let system = machine();
        assert_eq!(unmount_all(&system), Vec::<PathBuf>::new());
        let unmounts = ["/var/lib/pod", "/etc/cni", "/var"].map(|target| Call::Unmount(target.into()));
        assert_eq!(system.calls()[..3], unmounts);
        assert_eq!(system.calls()[3..], [Call::Sync]);
    }

    #[test]
    fn what_stays_in_use_is_made_read_only_or_named() {
        let written = machine().with_process(false, Some("/var"));
        assert_eq!(unmount_all(&written), [PathBuf::from("/var")]);
        // What cannot be unmounted below /var keeps it as well; both can be read only.
        let stuck = machine().with_stuck("/var/lib/pod");
        assert_eq!(unmount_all(&stuck), [PathBuf::from("/var/lib/pod")]);
        assert!(stuck.calls().contains(&Call::ReadOnly("/var".into())), "{:?}", stuck.calls());
    }
}
