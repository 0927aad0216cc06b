//! Removal of a cluster in any state.
//!
//! Everything is found by the cluster's name and folder, everything is tried, and errors are collected.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::agent;
use crate::driver::{self, NodeDriver};
use crate::error::{HostError, ProvisionError};
use crate::folder::{Folder, FolderLock};
use crate::mounts;
use crate::program::{AgentProgram, Launcher};
use crate::state::{Contexts, Phase, State};

/// How long the agent may take to start a node again, which keeps other commands away.
const PATIENCE: Duration = Duration::from_secs(5);

/// Policy for parts that cannot be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leftovers {
    /// Keep the cluster's folder, so that it can be tried again.
    Keep,
    /// Remove the folder all the same.
    Forget,
}

/// Result of removing a cluster.
#[derive(Debug)]
pub struct Destroyed {
    /// Parts that could not be removed; empty if complete.
    pub errors: Vec<ProvisionError>,
    /// The cluster's contexts in the operator's files, which are left unchanged.
    pub contexts: Contexts,
}

/// Removes a cluster and everything that belongs to it on this host.
///
/// # Errors
///
/// When there is nothing of such a cluster, another command works on it, or a newer program made it and nothing shall be
/// forgotten. Remains are in the result.
pub async fn destroy(root: &Path, name: &str, leftovers: Leftovers) -> Result<Destroyed, ProvisionError> {
    let folder = Folder::new(root, name)?;
    let state = match State::read(&folder) {
        Ok(state) => state,
        Err(error @ ProvisionError::NewerState { .. }) if leftovers == Leftovers::Keep => return Err(error),
        Err(error) => {
            tracing::warn!(%error, "state of the cluster cannot be read, going by its name");
            None
        }
    };
    // Nothing is started here.
    let nothing = AgentProgram { program: "".into(), arguments: Vec::new() };
    let launcher = Launcher::of_file(nothing, root, name);
    let drivers = match &state {
        Some(state) => vec![driver::open(&state.driver, &folder, name, launcher)],
        // It may have been made by any of them.
        None => driver::all(&folder, name, &launcher),
    };
    destroy_with(root, name, leftovers, &folder, state, &drivers).await
}

async fn destroy_with(
    root: &Path,
    name: &str,
    leftovers: Leftovers,
    folder: &Folder,
    state: Option<State>,
    drivers: &[Arc<dyn NodeDriver>],
) -> Result<Destroyed, ProvisionError> {
    let contexts = state.as_ref().map(|state| state.contexts.clone()).unwrap_or_default();
    if !folder.path().exists() {
        if !drivers.iter().any(|driver| driver.has_traces()) {
            return Err(ProvisionError::NoSuchCluster { name: name.to_owned(), root: root.to_path_buf() });
        }
        return Ok(Destroyed { errors: remove_all(drivers).await, contexts });
    }
    let lock = FolderLock::of_cluster_within(folder, name, PATIENCE)?;
    let mut errors: Vec<ProvisionError> = Vec::new();
    // The former holder of the lock may have written more.
    let state = State::read(folder).ok().flatten().or(state);
    let contexts = state.as_ref().map_or(contexts, |state| state.contexts.clone());
    // On a full disk this fails, and nothing gives the room back but what follows.
    let unmarked = state.and_then(|state| State { phase: Phase::Destroying, ..state }.write(folder).err());
    let stopped = agent::stop(folder, &mut errors);
    errors.extend(remove_all(drivers).await);
    // After a failure the folder stays: the next attempt needs it.
    if errors.is_empty() || leftovers == Leftovers::Forget {
        remove_folder(folder, &mut errors);
    } else {
        errors.extend(unmarked.map(Into::into));
    }
    drop((stopped, lock));
    Ok(Destroyed { errors, contexts })
}

async fn remove_all(drivers: &[Arc<dyn NodeDriver>]) -> Vec<ProvisionError> {
    let mut errors = Vec::new();
    for driver in drivers {
        errors.extend(driver.remove_all().await.into_iter().map(ProvisionError::from));
    }
    errors
}

/// Removes the folder, but never through a mount that is still there.
fn remove_folder(folder: &Folder, errors: &mut Vec<ProvisionError>) {
    let path = folder.path();
    let removed = mounts::below(path).and_then(|left| match left.first() {
        None => std::fs::remove_dir_all(path).map_err(HostError::io("removing", path)),
        Some(mount) => {
            let busy = std::io::Error::from(std::io::ErrorKind::ResourceBusy);
            Err(HostError::io("removing", mount)(busy))
        }
    });
    errors.extend(removed.err().map(Into::into));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::fake::{Call, FakeDriver};
    use crate::folder::make_folder;
    use crate::state::WrittenContext;
    use crate::state::tests::state;

    async fn destroy(root: &Path, leftovers: Leftovers, driver: &Arc<FakeDriver>) -> Result<Destroyed, ProvisionError> {
        let folder = Folder::new(root, "one").unwrap();
        let state = State::read(&folder).unwrap();
        let driver: Arc<dyn NodeDriver> = driver.clone();
        destroy_with(root, "one", leftovers, &folder, state, &[driver]).await
    }

    #[tokio::test]
    async fn what_cannot_be_removed_keeps_the_folder_marked_until_it_is_forgotten() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::new(root.path(), "one").unwrap();
        make_folder(folder.path()).unwrap();
        let written = WrittenContext {
            file: "/talosconfig".into(),
            name: "one".to_owned(),
            authority: "ca".to_owned(),
            previous: String::new(),
        };
        let contexts = Contexts { talosconfig: Some(written), kubeconfig: None };
        State { contexts: contexts.clone(), ..state("one") }.write(&folder).unwrap();
        let driver = FakeDriver::new();
        driver.leave("a cgroup");
        let destroyed = destroy(root.path(), Leftovers::Keep, &driver).await.unwrap();
        assert_eq!((destroyed.errors.len(), destroyed.contexts), (1, contexts.clone()));
        assert_eq!(State::read(&folder).unwrap().unwrap().phase, Phase::Destroying);
        driver.leave("a cgroup");
        let destroyed = destroy(root.path(), Leftovers::Forget, &driver).await.unwrap();
        assert_eq!((destroyed.errors.len(), destroyed.contexts, folder.path().exists()), (1, contexts, false));
        assert_eq!(driver.calls(), [Call::RemoveAll, Call::RemoveAll]);
        let gone = destroy(root.path(), Leftovers::Keep, &driver).await.unwrap_err();
        assert!(matches!(gone, ProvisionError::NoSuchCluster { .. }), "{gone}");
    }

    #[tokio::test]
    async fn a_cluster_is_removed_where_its_state_cannot_be_written() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::new(root.path(), "one").unwrap();
        make_folder(folder.path()).unwrap();
        state("one").write(&folder).unwrap();
        // As on a full disk.
        std::fs::create_dir(folder.state_file().with_extension("new")).unwrap();
        let driver = FakeDriver::new();
        driver.leave("a cgroup");
        let destroyed = destroy(root.path(), Leftovers::Keep, &driver).await.unwrap();
        assert_eq!((destroyed.errors.len(), folder.path().exists()), (2, true), "{:?}", destroyed.errors);
        let destroyed = destroy(root.path(), Leftovers::Keep, &driver).await.unwrap();
        assert_eq!((destroyed.errors.len(), folder.path().exists()), (0, false), "{:?}", destroyed.errors);
    }

    #[tokio::test]
    async fn a_cluster_of_a_newer_program_is_left_alone_unless_it_is_forgotten() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::new(root.path(), "one").unwrap();
        make_folder(folder.path()).unwrap();
        std::fs::write(folder.state_file(), r#"{"version":99}"#).unwrap();
        let refused = super::destroy(root.path(), "one", Leftovers::Keep).await.unwrap_err();
        assert!(matches!(refused, ProvisionError::NewerState { version: 99, .. }), "{refused}");
        assert!(folder.state_file().exists());
    }
}
