//! The permission to found a new etcd cluster on this node: given once by the bootstrap call, spent by the first member.
//!
//! It is kept in a file once the volume for that is mounted, so that a node that crashes between the call and the first member still founds the cluster that it
//! was asked for, and a node whose data is gone does not found a second one.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use sys::files::{self, Access, FileError};
use tokio::sync::watch;

/// Why a cluster is not bootstrapped here.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    #[error("etcd data directory is not empty")]
    AlreadyBootstrapped,
    #[error("bootstrap is already in progress")]
    InProgress,
    #[error("bootstrap can only be performed on a control plane node")]
    NotControlPlane,
    /// The permission cannot be kept.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Opened by the API's bootstrap call, waited for by `etcd.MembershipController`, spent by the etcd service. Cheap to clone;
/// clones are one.
#[derive(Debug, Clone)]
pub struct BootstrapGate {
    open: Arc<watch::Sender<bool>>,
    /// Exists while the permission is given and not spent; not set, it is in memory alone.
    file: Arc<OnceLock<PathBuf>>,
}

impl Default for BootstrapGate {
    /// A gate that is forgotten with the process.
    fn default() -> Self {
        Self { open: Arc::new(watch::Sender::new(false)), file: Arc::default() }
    }
}

impl BootstrapGate {
    /// Keeps the permission in a file from now on: it is given where that exists. The first call decides. Waits for a disk.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn keep_in(&self, file: PathBuf) -> Result<(), FileError> {
        let is_given = files::read(&file)?.is_some();
        if self.file.set(file).is_ok() && is_given {
            self.open.send_replace(true);
        }
        Ok(())
    }

    /// Lets etcd found a new cluster. Waits for a disk.
    ///
    /// # Errors
    /// When it was let already, when there is data of a member, or when the permission cannot be kept.
    pub fn open(&self, data_directory: &Path) -> Result<(), BootstrapError> {
        if has_member(data_directory) {
            return Err(BootstrapError::AlreadyBootstrapped);
        }
        if self.is_open() {
            return Err(BootstrapError::InProgress);
        }
        if let Some(file) = self.file.get() {
            files::write_atomic(file, b"", Access::SECRET)?;
        }
        let was_closed = self.open.send_if_modified(|open| !std::mem::replace(open, true));
        if was_closed { Ok(()) } else { Err(BootstrapError::InProgress) }
    }

    /// Whether a new cluster may be founded.
    pub fn is_open(&self) -> bool {
        *self.open.borrow()
    }

    /// Tells when that changes.
    pub fn changes(&self) -> watch::Receiver<bool> {
        self.open.subscribe()
    }

    /// Takes the permission back, as there is a member now.
    ///
    /// # Errors
    /// The file cannot be removed: the permission is still given then, also after a restart.
    pub fn spend(&self) -> Result<(), FileError> {
        if let Some(file) = self.file.get() {
            files::remove(file)?;
        }
        self.open.send_replace(false);
        Ok(())
    }
}

/// Whether a data directory holds an etcd member: one with a log. etcd makes the log whole before it gives it its name, and
/// founds a cluster where there is none.
pub fn has_member(data_directory: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(data_directory.join("member/wal")) else { return false };
    entries.flatten().any(|entry| Path::new(&entry.file_name()).extension().is_some_and(|end| end == "wal"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept_in(file: &Path) -> BootstrapGate {
        let gate = BootstrapGate::default();
        gate.clone().keep_in(file.to_owned()).unwrap();
        gate
    }

    fn make_member(data: &Path) {
        std::fs::create_dir_all(data.join("member/wal")).unwrap();
        std::fs::write(data.join("member/wal/0000000000000000-0000000000000000.wal"), "").unwrap();
    }

    #[test]
    fn a_gate_opens_once_and_not_over_data() {
        let dir = tempfile::tempdir().unwrap();
        let gate = BootstrapGate::default();
        assert!(!gate.is_open());
        let changes = gate.changes();
        gate.open(dir.path()).unwrap();
        assert!(changes.has_changed().unwrap());
        assert!(matches!(gate.open(dir.path()), Err(BootstrapError::InProgress)));
        make_member(dir.path());
        assert!(matches!(gate.open(dir.path()), Err(BootstrapError::AlreadyBootstrapped)));
    }

    #[test]
    fn a_permission_that_was_spent_founds_no_second_cluster() {
        let dir = tempfile::tempdir().unwrap();
        let (file, data) = (dir.path().join("bootstrap"), dir.path().join("etcd"));
        let gate = kept_in(&file);
        gate.open(&data).unwrap();
        make_member(&data);
        gate.spend().unwrap();
        std::fs::remove_dir_all(&data).unwrap();
        assert!(!gate.is_open() && !has_member(&data), "the emptied directory would found a cluster");
        assert!(!kept_in(&file).is_open(), "also after a restart");
    }

    #[test]
    fn a_permission_outlives_a_crash_before_there_is_a_member() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("state/bootstrap");
        kept_in(&file).open(dir.path()).unwrap();
        let after = kept_in(&file);
        assert!(after.is_open());
        assert!(matches!(after.open(dir.path()), Err(BootstrapError::InProgress)));
    }

    #[test]
    fn a_directory_without_a_log_is_no_member() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("member/wal.tmp")).unwrap();
        assert!(!has_member(dir.path()));
        make_member(dir.path());
        assert!(has_member(dir.path()));
    }
}
