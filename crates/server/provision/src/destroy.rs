//! Removing a cluster, however far its creation came and whatever happened since.
//!
//! Everything is found by the cluster's name and folder, everything is tried, and errors are collected.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::agent;
use crate::error::ProvisionError;
use crate::host;
use crate::mounts;
use crate::network;
use crate::node;
use crate::plan::cgroup_name;
use crate::state::{Folder, FolderLock, Phase, State};

/// How long processes that were killed may take to go.
const PATIENCE: Duration = Duration::from_secs(10);
const STEP: Duration = Duration::from_millis(20);

/// What to do about what cannot be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leftovers {
    /// Keep the cluster's folder, so that it can be tried again.
    Keep,
    /// Remove the folder all the same.
    Forget,
}

/// What became of a cluster that was to be removed.
#[derive(Debug)]
pub struct Destroyed {
    /// What could not be removed; empty when nothing is left.
    pub errors: Vec<ProvisionError>,
}

/// Removes a cluster and everything that belongs to it.
///
/// # Errors
///
/// When there is nothing of such a cluster, or another command works on it. What could not be removed is in the result.
pub fn destroy(root: &Path, name: &str, leftovers: Leftovers) -> Result<Destroyed, ProvisionError> {
    let folder = Folder::new(root, name)?;
    let mut errors = Vec::new();
    if !folder.path().exists() {
        if network::links(name).is_empty() {
            return Err(ProvisionError::NoSuchCluster { name: name.to_owned(), root: root.to_path_buf() });
        }
        network::remove(name, &mut errors);
        remove_cgroups(name, &mut errors);
        return Ok(Destroyed { errors });
    }
    let lock = FolderLock::of_cluster(&folder, name)?;
    let state = match State::read(&folder) {
        Ok(state) => state,
        Err(error) => {
            tracing::warn!(%error, "state of the cluster cannot be read, going by its name");
            None
        }
    };
    if let Some(state) = &state
        && let Err(error) = (State { phase: Phase::Destroying, ..state.clone() }).write(&folder)
    {
        errors.push(error);
    }
    agent::stop(&folder, &mut errors);
    node::remove_all(&folder, &mut errors);
    wait_for_processes(name, &mut errors);
    remove_cgroups(name, &mut errors);
    mounts::unmount_below(folder.path(), &mut errors);
    network::remove(name, &mut errors);
    restore_forwarding(state.as_ref(), &mut errors);
    // While something failed, the folder stays: it is what the next attempt goes by.
    if errors.is_empty() || leftovers == Leftovers::Forget {
        remove_folder(&folder, &mut errors);
    }
    drop(lock);
    Ok(Destroyed { errors })
}

/// The last cluster that goes leaves the host's forwarding as the first one found it. Clusters whose state is elsewhere
/// count too, by their bridges.
fn restore_forwarding(state: Option<&State>, errors: &mut Vec<ProvisionError>) {
    if state.is_some_and(|state| state.forwarding_was_off)
        && !network::any_bridge()
        && let Err(error) = host::set_forwarding(false)
    {
        errors.push(ProvisionError::io("writing", Path::new(host::FORWARDING))(error));
    }
}

/// Removes the folder, but never through a mount that is still there.
fn remove_folder(folder: &Folder, errors: &mut Vec<ProvisionError>) {
    let path = folder.path();
    match mounts::below(path) {
        Ok(left) if left.is_empty() => {
            if let Err(error) = std::fs::remove_dir_all(path) {
                errors.push(ProvisionError::io("removing", path)(error));
            }
        }
        Ok(left) => {
            let busy = std::io::Error::from(std::io::ErrorKind::ResourceBusy);
            errors.extend(left.first().map(|mount| ProvisionError::io("removing", mount)(busy)));
        }
        Err(error) => errors.push(error),
    }
}

/// Waits until what was killed is gone; the kernel and the host's init need a moment for that.
fn wait_for_processes(name: &str, errors: &mut Vec<ProvisionError>) {
    let mut left = Vec::new();
    for _ in 0..PATIENCE.as_millis() / STEP.as_millis() {
        left = processes(name);
        if left.is_empty() {
            return;
        }
        std::thread::park_timeout(STEP);
    }
    // A dead process whose parent does not care for it holds nothing.
    left.retain(|pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        !stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'))
    });
    if left.is_empty() {
        return;
    }
    errors.push(ProvisionError::StillRunning { name: name.to_owned(), processes: left });
}

/// Processes in the cluster's cgroups, dead ones that nobody waited for included.
fn processes(name: &str) -> Vec<u32> {
    let group = format!(":/{}/", cgroup_name(name));
    let entries = std::fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    let numbers = entries.filter_map(|entry| entry.file_name().to_string_lossy().parse::<u32>().ok());
    let belongs = |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|g| g.contains(&group));
    numbers.filter(belongs).collect()
}

/// Removes the cluster's cgroups in every hierarchy; those of containers are gone, empty parents and strays are not.
fn remove_cgroups(name: &str, errors: &mut Vec<ProvisionError>) {
    for path in cgroups(name) {
        if let Err(error) = remove_cgroup(&path)
            && path.exists()
        {
            errors.push(ProvisionError::io("removing cgroup", &path)(error));
        }
    }
}

fn cgroups(name: &str) -> Vec<PathBuf> {
    let hierarchies = Path::new("/sys/fs/cgroup");
    let name = cgroup_name(name);
    let own = std::iter::once(hierarchies.join(&name));
    let entries = std::fs::read_dir(hierarchies).into_iter().flatten().filter_map(Result::ok);
    own.chain(entries.map(|entry| entry.path().join(&name))).filter(|path| path.is_dir()).collect()
}

fn remove_cgroup(path: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(path)?.filter_map(Result::ok) {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&entry.path())?;
        }
    }
    std::fs::remove_dir(path)
}
