//! Control groups, v2 and the older v1 hierarchies alike, as directories below `/sys/fs/cgroup`.

use std::io;
use std::path::{Path, PathBuf};

/// Which hierarchies this machine has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hierarchy {
    /// One unified hierarchy at this root.
    V2(PathBuf),
    /// One root per controller, as found below `/sys/fs/cgroup`.
    V1(Vec<PathBuf>),
}

/// Finds the hierarchies below `root` (normally `/sys/fs/cgroup`).
pub fn detect(root: &Path) -> Hierarchy {
    if root.join("cgroup.controllers").exists() {
        return Hierarchy::V2(root.to_owned());
    }
    let mut roots: Vec<PathBuf> = std::fs::read_dir(root)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .filter(|path| path.join("tasks").exists())
        .collect();
    roots.sort();
    Hierarchy::V1(roots)
}

impl Hierarchy {
    /// Makes the group `name` ("system/apid") and returns the files that a process writes itself into to join it.
    ///
    /// # Errors
    /// The kernel's, when no hierarchy takes the group. On v1, hierarchies that refuse are left out.
    pub fn create(&self, name: &str) -> io::Result<Vec<PathBuf>> {
        match self {
            Self::V2(root) => {
                let group = root.join(name);
                std::fs::create_dir_all(&group)?;
                Ok(vec![group.join("cgroup.procs")])
            }
            Self::V1(roots) => {
                let mut files = Vec::new();
                let mut last = None;
                for root in roots {
                    let group = root.join(name);
                    match make_v1(root, &group) {
                        Ok(()) => files.push(group.join("cgroup.procs")),
                        Err(error) => last = Some(error),
                    }
                }
                match last {
                    Some(error) if files.is_empty() => Err(error),
                    _ => Ok(files),
                }
            }
        }
    }
}

/// A v1 `cpuset` group takes no process before it has CPUs and memory nodes: they come from the parent, level by level.
fn make_v1(root: &Path, group: &Path) -> io::Result<()> {
    let below = group.strip_prefix(root).map_err(io::Error::other)?;
    let mut parent = root.to_owned();
    for part in below {
        let child = parent.join(part);
        std::fs::create_dir_all(&child)?;
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if child.join(file).exists() && std::fs::read_to_string(child.join(file))?.trim().is_empty() {
                std::fs::write(child.join(file), std::fs::read(parent.join(file))?)?;
            }
        }
        parent = child;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_with_controllers_file_is_v2() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("cgroup.controllers"), "cpu").unwrap();
        assert_eq!(detect(dir.path()), Hierarchy::V2(dir.path().to_owned()));
        let files = detect(dir.path()).create("system/apid").unwrap();
        assert_eq!(files, [dir.path().join("system/apid/cgroup.procs")]);
    }

    #[test]
    fn v1_cpuset_groups_inherit_cpus_level_by_level() {
        let dir = tempfile::tempdir().unwrap();
        let cpuset = dir.path().join("cpuset");
        for group in ["", "system", "system/apid"] {
            std::fs::create_dir_all(cpuset.join(group)).unwrap();
            std::fs::write(cpuset.join(group).join("cpuset.cpus"), if group.is_empty() { "0-1" } else { "" }).unwrap();
        }
        std::fs::write(cpuset.join("tasks"), "").unwrap();
        detect(dir.path()).create("system/apid").unwrap();
        assert_eq!(std::fs::read_to_string(cpuset.join("system/apid/cpuset.cpus")).unwrap(), "0-1");
    }
}
