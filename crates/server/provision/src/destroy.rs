//! Removing a cluster, however far its creation came and whatever happened since.
//!
//! Everything is found by the cluster's name and folder, everything is tried, and errors are collected.

use std::path::Path;
use std::time::Duration;

use crate::agent;
use crate::cgroups;
use crate::error::ProvisionError;
use crate::mounts;
use crate::network;
use crate::node;
use crate::plan::cgroup_name;
use crate::state::{Folder, FolderLock, Phase, State};

/// How long the agent may take to start a node again, which keeps other commands away.
const PATIENCE: Duration = Duration::from_secs(5);

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
        cgroups::remove(&cgroup_name(name), &mut errors);
        return Ok(Destroyed { errors });
    }
    let lock = FolderLock::of_cluster_within(&folder, name, PATIENCE)?;
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
    let stopped = agent::stop(&folder, &mut errors);
    node::remove_all(&folder, &mut errors);
    let group = cgroup_name(name);
    if let Err(processes) = cgroups::wait_until_empty(&group) {
        errors.push(ProvisionError::StillRunning { name: name.to_owned(), processes });
    }
    cgroups::remove(&group, &mut errors);
    mounts::unmount_below(folder.path(), &mut errors);
    network::remove(name, &mut errors);
    // While something failed, the folder stays: it is what the next attempt goes by.
    if errors.is_empty() || leftovers == Leftovers::Forget {
        remove_folder(&folder, &mut errors);
    }
    drop((stopped, lock));
    Ok(Destroyed { errors })
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
