//! Control groups of a cluster and of its nodes, in every hierarchy of the host, by their path below the root.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::HostError;

/// How long processes that were killed may take to go.
const PATIENCE: Duration = Duration::from_secs(10);
const STEP: Duration = Duration::from_millis(20);

/// Waits for killed processes to disappear; the kernel and the host's init need a moment.
///
/// # Errors
///
/// The processes that run on.
pub(crate) fn wait_until_empty(group: &str) -> Result<(), Vec<u32>> {
    let mut left = Vec::new();
    for _ in 0..PATIENCE.as_millis() / STEP.as_millis() {
        left = processes(group);
        if left.is_empty() {
            return Ok(());
        }
        std::thread::park_timeout(STEP);
    }
    // A dead process whose parent does not care for it holds nothing.
    left.retain(|pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        !stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'))
    });
    if left.is_empty() { Ok(()) } else { Err(left) }
}

/// Processes in the group and its descendants, including zombies.
fn processes(group: &str) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    let numbers = entries.filter_map(|entry| entry.file_name().to_string_lossy().parse::<u32>().ok());
    let belongs = |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|g| is_in(&g, group));
    numbers.filter(belongs).collect()
}

/// Whether a process with this `/proc/PID/cgroup` is in the group or below it.
fn is_in(memberships: &str, group: &str) -> bool {
    let paths = memberships.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    let mut below = paths.filter_map(|path| path.strip_prefix('/')?.strip_prefix(group));
    below.any(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Removes the group and those below it in every hierarchy; those of containers are gone, empty parents and strays are not.
pub(crate) fn remove(group: &str, errors: &mut Vec<HostError>) {
    for path in folders(group) {
        if let Err(error) = remove_below(&path)
            && path.exists()
        {
            errors.push(HostError::io("removing cgroup", &path)(error));
        }
    }
}

fn folders(group: &str) -> Vec<PathBuf> {
    let hierarchies = Path::new("/sys/fs/cgroup");
    let own = std::iter::once(hierarchies.join(group));
    let entries = std::fs::read_dir(hierarchies).into_iter().flatten().filter_map(Result::ok);
    own.chain(entries.map(|entry| entry.path().join(group))).filter(|path| path.is_dir()).collect()
}

fn remove_below(path: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(path)?.filter_map(Result::ok) {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_below(&entry.path())?;
        }
    }
    std::fs::remove_dir(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_in_its_group_and_those_above_it_but_not_in_one_with_a_longer_name() {
        let memberships = "4:memory:/talos-a/a-worker-1/init\n0::/talos-a/a-worker-1\n";
        for group in ["talos-a", "talos-a/a-worker-1", "talos-a/a-worker-1/init"] {
            assert!(is_in(memberships, group), "{group}");
        }
        for group in ["talos", "talos-a/a-worker", "a-worker-1", "talos-a/a-worker-1/init/x"] {
            assert!(!is_in(memberships, group), "{group}");
        }
    }
}
