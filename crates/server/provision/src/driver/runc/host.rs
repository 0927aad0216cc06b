//! Capabilities of the host for containers: capabilities, cgroups, limits. Reads only.

use std::path::Path;

use rustix::process::{Resource, getrlimit};
use sys::capabilities::NAMES;

/// Which cgroup hierarchy has the controllers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cgroups {
    V1,
    V2,
}

/// Capabilities available to containers here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Host {
    pub(super) capabilities: Vec<&'static str>,
    pub(super) cgroups: Cgroups,
    /// Hard limit of open files.
    pub(super) open_files: u64,
}

impl Host {
    pub(super) fn inspect() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        Self {
            capabilities: bounding(&status),
            cgroups: if unified { Cgroups::V2 } else { Cgroups::V1 },
            open_files: getrlimit(Resource::Nofile).maximum.unwrap_or(1 << 20),
        }
    }

    /// Restrictions of nodes, one sentence each.
    fn lacks(&self) -> Vec<String> {
        let mut lacks = Vec::new();
        let missing: Vec<_> = NAMES.iter().filter(|c| !self.capabilities.contains(c)).copied().collect();
        if !missing.is_empty() {
            let effect = if missing.contains(&"CAP_SYS_RESOURCE") {
                "; OOM scores cannot be lowered and limits cannot be raised"
            } else {
                ""
            };
            lacks.push(format!("this machine does not give {}{effect}", missing.join(", ")));
        }
        if self.cgroups == Cgroups::V1 {
            lacks.push("this machine has its cgroup controllers in version 1".to_owned());
        }
        if self.open_files < 65536 {
            lacks.push(format!("at most {} open files for each process of a node", self.open_files));
        }
        lacks
    }
}

/// Missing prerequisites of this machine, one sentence each; nodes run in spite of them.
pub(super) fn notices() -> Vec<String> {
    let mut notices = Host::inspect().lacks();
    if !Path::new("/dev/kmsg").exists() {
        notices.push("this machine has no /dev/kmsg, kubelet will not start".to_owned());
    }
    notices
}

fn bounding(status: &str) -> Vec<&'static str> {
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("CapBnd:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    NAMES.iter().enumerate().filter(|(bit, _)| mask >> bit & 1 == 1).map(|(_, name)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_capabilities_of_the_bounding_set_are_asked_for() {
        let all = bounding("CapBnd:\t000001ffffffffff\n");
        assert_eq!(all.len(), 41);
        let here = bounding("CapEff:\t0\nCapBnd:\t000001fffeffffff\n");
        assert_eq!(here.len(), 40);
        assert!(!here.contains(&"CAP_SYS_RESOURCE"));
        let host = Host { capabilities: here, cgroups: Cgroups::V2, open_files: 1 << 20 };
        assert_eq!(
            host.lacks(),
            ["this machine does not give CAP_SYS_RESOURCE; OOM scores cannot be lowered and limits cannot be raised"]
        );
    }
}
