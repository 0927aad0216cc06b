//! What is remembered of a cluster between commands: one JSON file in the cluster's folder, and the folder's layout.
//!
//! The file is written before anything is made and replaced as a whole, so a killed command leaves a readable one.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::error::ProvisionError;
use crate::plan::{Plan, Role, check_name};
use crate::spec::Limits;

/// How far a cluster's creation came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    Creating,
    Created,
    Destroying,
}

/// What is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    pub phase: Phase,
    pub plan: Plan,
    pub image: PathBuf,
    /// The OCI layout that the registry serves.
    pub bundle: Option<PathBuf>,
    /// The discovery server's program.
    pub discoveryd: Option<PathBuf>,
    pub kubernetes_version: Option<String>,
    pub kubernetes_endpoint: Option<String>,
    /// What nodes were given, by role.
    #[serde(default)]
    pub limits: BTreeMap<Role, Limits>,
}

/// The folder of a cluster and where things are in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(root: &Path, name: &str) -> Result<Self, ProvisionError> {
        check_name(name).map_err(ProvisionError::Plan)?;
        Ok(Self(root.join(name)))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn state_file(&self) -> PathBuf {
        self.0.join("state.json")
    }

    /// Where the node image is mounted.
    pub(crate) fn root(&self) -> PathBuf {
        self.0.join("root")
    }

    pub(crate) fn namespace(&self, node: &str) -> PathBuf {
        self.0.join("netns").join(node)
    }

    pub(crate) fn runc(&self) -> PathBuf {
        self.0.join("runc")
    }

    pub(crate) fn node(&self, node: &str) -> PathBuf {
        self.0.join("nodes").join(node)
    }

    pub(crate) fn bundle(&self, node: &str) -> PathBuf {
        self.node(node).join("bundle")
    }

    /// Who the node's init is, written when it was started.
    pub(crate) fn init(&self, node: &str) -> PathBuf {
        self.node(node).join("init.json")
    }

    /// Who the agent is, written by itself.
    pub(crate) fn agent(&self) -> PathBuf {
        self.0.join("agent.json")
    }

    /// Held by the agent while it lives.
    pub(crate) fn agent_lock(&self) -> PathBuf {
        self.0.join("agent.lock")
    }

    /// Who the agent's guard is, written by itself.
    pub(crate) fn guard(&self) -> PathBuf {
        self.0.join("guard.json")
    }

    /// Held by the agent's guard while it lives.
    pub(crate) fn guard_lock(&self) -> PathBuf {
        self.0.join("guard.lock")
    }

    /// Who the discovery server is, written by the agent.
    pub(crate) fn discoveryd(&self) -> PathBuf {
        self.0.join("discoveryd.json")
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.0.join("logs")
    }

    pub(crate) fn log(&self, node: &str) -> PathBuf {
        self.logs().join(format!("{node}.log"))
    }
}

/// Keeps other commands away from a folder until it is dropped or its process ends.
#[derive(Debug)]
pub(crate) struct FolderLock {
    _folder: File,
}

impl FolderLock {
    /// Waits for the lock of the folder of all clusters; it is held for moments only.
    pub(crate) fn of_all(root: &Path) -> Result<Self, ProvisionError> {
        let folder = File::open(root).map_err(ProvisionError::io("opening", root))?;
        flock(&folder, FlockOperation::LockExclusive).map_err(|e| ProvisionError::io("locking", root)(e.into()))?;
        Ok(Self { _folder: folder })
    }

    /// Takes the lock of one cluster, or says that somebody has it.
    pub(crate) fn of_cluster(folder: &Folder, name: &str) -> Result<Self, ProvisionError> {
        let path = folder.path();
        let file = File::open(path).map_err(ProvisionError::io("opening", path))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _folder: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(ProvisionError::Busy { name: name.to_owned() }),
            Err(error) => Err(ProvisionError::io("locking", path)(error.into())),
        }
    }

    /// As [`Self::of_cluster`], but somebody who lets go of it soon is waited for.
    pub(crate) fn of_cluster_within(folder: &Folder, name: &str, patience: Duration) -> Result<Self, ProvisionError> {
        const STEP: Duration = Duration::from_millis(50);
        for _ in 0..patience.as_millis() / STEP.as_millis() {
            match Self::of_cluster(folder, name) {
                Err(ProvisionError::Busy { .. }) => std::thread::park_timeout(STEP),
                other => return other,
            }
        }
        Self::of_cluster(folder, name)
    }
}

impl State {
    /// Reads the state of a cluster; none when its folder has no state yet.
    pub(crate) fn read(folder: &Folder) -> Result<Option<Self>, ProvisionError> {
        let path = folder.state_file();
        match std::fs::read(&path) {
            Ok(bytes) => {
                let decode = |source| ProvisionError::Decode { path: folder.path().to_path_buf(), source };
                serde_json::from_slice(&bytes).map(Some).map_err(decode)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(ProvisionError::io("reading", &path)(error)),
        }
    }

    /// Replaces the state of a cluster.
    pub(crate) fn write(&self, folder: &Folder) -> Result<(), ProvisionError> {
        let encode = |source| ProvisionError::Encode { subject: "cluster state", source };
        let bytes = serde_json::to_vec_pretty(self).map_err(encode)?;
        write_private(&folder.state_file(), &bytes)
    }
}

/// Every cluster below `root` whose state can be read; those that cannot are somebody's broken folders, by name.
pub(crate) fn siblings(root: &Path) -> Vec<(String, Option<State>)> {
    let Ok(entries) = std::fs::read_dir(root) else { return Vec::new() };
    entries
        .filter_map(Result::ok)
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let folder = Folder::new(root, &name).ok()?;
            Some((name, State::read(&folder).ok().flatten()))
        })
        .collect()
}

/// Makes a folder, and its parents, that only its owner can read.
pub(crate) fn make_folder(path: &Path) -> Result<(), ProvisionError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(ProvisionError::io("making folder", path))
}

/// Writes a file that only its owner can read, as a whole or not at all.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> Result<(), ProvisionError> {
    let new = path.with_extension("new");
    let write = || {
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&new, path)
    };
    write().map_err(ProvisionError::io("writing", path))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::plan::NodeSpec;

    pub(crate) fn state(name: &str) -> State {
        State {
            phase: Phase::Creating,
            plan: Plan::new(name, "10.5.0.0/24", 1500, &NodeSpec { controlplanes: 1, workers: 1 }).unwrap(),
            image: PathBuf::from("/image"),
            bundle: None,
            discoveryd: None,
            kubernetes_version: Some("1.30.14".to_owned()),
            kubernetes_endpoint: None,
            limits: BTreeMap::from([(Role::Worker, Limits { milli_cpus: Some(2000), memory: None })]),
        }
    }

    #[test]
    fn state_is_read_back_as_it_was_written() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::new(root.path(), "one").unwrap();
        make_folder(folder.path()).unwrap();
        assert_eq!(State::read(&folder).unwrap(), None);
        state("one").write(&folder).unwrap();
        assert_eq!(State::read(&folder).unwrap(), Some(state("one")));
        make_folder(&root.path().join("two")).unwrap();
        let mut all = siblings(root.path());
        all.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(all, [("one".to_owned(), Some(state("one"))), ("two".to_owned(), None)]);
    }

    #[test]
    fn a_broken_state_names_its_folder() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::new(root.path(), "one").unwrap();
        make_folder(folder.path()).unwrap();
        std::fs::write(folder.state_file(), "{").unwrap();
        let error = State::read(&folder).unwrap_err();
        assert!(matches!(&error, ProvisionError::Decode { path, .. } if path == folder.path()), "{error}");
    }

    #[test]
    fn a_cluster_is_worked_on_by_one_command_at_a_time() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::new(root.path(), "one").unwrap();
        make_folder(folder.path()).unwrap();
        let lock = FolderLock::of_cluster(&folder, "one").unwrap();
        let busy = FolderLock::of_cluster(&folder, "one").unwrap_err();
        assert!(matches!(busy, ProvisionError::Busy { .. }), "{busy}");
        drop(lock);
        FolderLock::of_cluster(&folder, "one").unwrap();
    }

    #[test]
    fn a_name_cannot_lead_out_of_the_folder_of_clusters() {
        let refused = Folder::new(Path::new("/clusters"), "../etc").unwrap_err();
        assert!(matches!(refused, ProvisionError::Plan(_)), "{refused}");
    }
}
