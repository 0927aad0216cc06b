//! The folder of a cluster: where things are in it, the locks that keep commands apart, and how files are written there.

use std::fs::{DirBuilder, File};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use crate::error::{HostError, ProvisionError};
use crate::plan::check_name;

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

    /// A folder for each node.
    pub(crate) fn nodes(&self) -> PathBuf {
        self.0.join("nodes")
    }

    pub(crate) fn node(&self, node: &str) -> PathBuf {
        self.nodes().join(node)
    }

    pub(crate) fn bundle(&self, node: &str) -> PathBuf {
        self.node(node).join("bundle")
    }

    /// The last start of the node: its init and the process that watches it.
    pub(crate) fn launched(&self, node: &str) -> PathBuf {
        self.node(node).join("init.json")
    }

    /// How the init of the last start ended.
    pub(crate) fn exit(&self, node: &str) -> PathBuf {
        self.node(node).join("exit.json")
    }

    /// The agent, recorded by itself.
    pub(crate) fn agent(&self) -> PathBuf {
        self.0.join("agent.json")
    }

    /// Held by the agent while it lives.
    pub(crate) fn agent_lock(&self) -> PathBuf {
        self.0.join("agent.lock")
    }

    /// The agent's guard, recorded by itself.
    pub(crate) fn guard(&self) -> PathBuf {
        self.0.join("guard.json")
    }

    /// Held by the agent's guard while it lives.
    pub(crate) fn guard_lock(&self) -> PathBuf {
        self.0.join("guard.lock")
    }

    /// The discovery server, recorded by the agent.
    pub(crate) fn discoveryd(&self) -> PathBuf {
        self.0.join("discoveryd.json")
    }

    /// The key service, recorded by the agent.
    pub(crate) fn kmsd(&self) -> PathBuf {
        self.0.join("kmsd.json")
    }

    /// The key of the key service: with it go the disks that it sealed.
    pub(crate) fn kms_key(&self) -> PathBuf {
        self.0.join("kms.key")
    }

    /// Configurations that machines fetch, by the secret in their address.
    pub(crate) fn configurations(&self) -> PathBuf {
        self.0.join("configurations")
    }

    /// What the disks of machines begin with, where that was compressed.
    pub(crate) fn disk_image(&self) -> PathBuf {
        self.0.join("image.disk")
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
        let folder = File::open(root).map_err(HostError::io("opening", root))?;
        flock(&folder, FlockOperation::LockExclusive).map_err(|e| HostError::io("locking", root)(e.into()))?;
        Ok(Self { _folder: folder })
    }

    /// Takes the lock of a cluster, or fails if it is held.
    pub(crate) fn of_cluster(folder: &Folder, name: &str) -> Result<Self, ProvisionError> {
        let path = folder.path();
        let file = File::open(path).map_err(HostError::io("opening", path))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _folder: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(ProvisionError::Busy { name: name.to_owned() }),
            Err(error) => Err(HostError::io("locking", path)(error.into()).into()),
        }
    }

    /// As [`Self::of_cluster`], but waits for a short-lived holder.
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

/// Makes a folder, and its parents, that only its owner can read.
pub(crate) fn make_folder(path: &Path) -> Result<(), HostError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(HostError::io("making folder", path))
}

/// The names in a folder; none of one that is not there.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Writes a file that only its owner can read, as a whole or not at all.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> Result<(), HostError> {
    let new = path.with_extension("new");
    let write = || {
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&new, path)
    };
    write().map_err(HostError::io("writing", path))
}

#[cfg(test)]
mod tests {
    use super::*;

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
