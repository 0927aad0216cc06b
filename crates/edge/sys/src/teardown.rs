//! The last acts before a machine ends: nothing runs any more, and nothing that was written is lost.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::mount::{MountFlags, UnmountFlags};

use crate::mounts::{self, Mount};

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

/// Ends all processes but this one: politely, then for good. For process 1 of a machine alone.
pub fn end_processes() {
    if std::process::id() != 1 {
        return;
    }
    signal_all(libc::SIGTERM);
    let mut waited = Duration::ZERO;
    while others_run() && waited < TERMINATE {
        pause();
        waited += POLL;
    }
    signal_all(libc::SIGKILL);
    let mut waited = Duration::ZERO;
    while others_run() && waited < TERMINATE {
        pause();
        waited += POLL;
    }
}

#[expect(clippy::disallowed_methods, reason = "nothing else runs any more")]
fn pause() {
    std::thread::sleep(POLL);
}

fn signal_all(signal: libc::c_int) {
    // SAFETY: no memory is passed. -1 is every process but this one.
    unsafe { libc::kill(-1, signal) };
}

/// Whether another process than this runs; those of the kernel have no memory map, and the dead are nobody's.
fn others_run() -> bool {
    let own = std::process::id();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut pids =
        entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).filter(|pid| *pid != own);
    pids.any(|pid| std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty()))
}

/// Unmounts everything with data on it, the mounts on top first; what is still in use is made read-only. Returns what could
/// be neither.
pub fn unmount_all() -> Vec<PathBuf> {
    for _ in 0..PASSES {
        let unmounted = with_data().iter().rev().filter(|mount| unmount(&mount.target)).count();
        if unmounted == 0 {
            break;
        }
    }
    let left: BTreeSet<PathBuf> = with_data().into_iter().map(|mount| mount.target).collect();
    let left = left.into_iter().filter(|target| !make_read_only(target)).collect();
    rustix::fs::sync();
    left
}

fn with_data() -> Vec<Mount> {
    let table = mounts::table().unwrap_or_default();
    table.into_iter().filter(has_data).collect()
}

fn has_data(mount: &Mount) -> bool {
    let is_read_only = mount.options.iter().any(|option| option == "ro");
    mount.target != Path::new("/") && !is_read_only && !WITHOUT_DATA.contains(&mount.filesystem.as_str())
}

fn unmount(target: &Path) -> bool {
    rustix::mount::unmount(target, UnmountFlags::NOFOLLOW).is_ok()
}

fn make_read_only(target: &Path) -> bool {
    rustix::mount::mount_remount(target, MountFlags::RDONLY, c"").is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

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
        end_processes();
    }
}
