//! The roles of the agent's two processes, each with a lock: the holder of the lock has the role exclusively.
//!
//! The kernel takes a lock away from a process that ends, however it ends. The files of the locks are made before the
//! processes, by [`make_locks`], and never by them: a process that comes late must not put a file into a folder that is
//! being removed.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::agent_record::AgentRecord;
use crate::error::HostError;
use crate::folder::Folder;
use crate::process::Identity;
use crate::program::Duty;

/// Between two attempts to take a lock.
const STEP: Duration = Duration::from_millis(10);
/// A probe of the lock holds it for a moment; a probe is not a holder.
const MOMENT: Duration = Duration::from_millis(100);
/// How long a process may take to end when it is asked, and again when it is killed.
const GRACE: Duration = Duration::from_secs(3);
/// Time between taking the lock and writing the identity.
const ANONYMOUS: Duration = Duration::from_secs(5);

/// The role of a process of the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Serves the cluster.
    Server,
    /// Starts the server again when it ended.
    Guard,
}

impl Role {
    /// As it stands in messages, after `the`.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Server => "agent",
            Self::Guard => "agent's guard",
        }
    }

    pub(super) fn duty(self) -> Duty<'static> {
        match self {
            Self::Server => Duty::Agent,
            Self::Guard => Duty::Guard,
        }
    }

    fn lock(self, folder: &Folder) -> PathBuf {
        match self {
            Self::Server => folder.agent_lock(),
            Self::Guard => folder.guard_lock(),
        }
    }

    /// The last process with this role; it may have ended.
    pub(super) fn process(self, folder: &Folder) -> Option<Identity> {
        match self {
            Self::Server => AgentRecord::read(folder).map(|record| record.process),
            Self::Guard => Identity::read(&folder.guard()),
        }
    }
}

/// Makes the files of the locks, where they are missing.
pub(super) fn make_locks(folder: &Folder) -> Result<(), HostError> {
    for role in [Role::Server, Role::Guard] {
        let path = role.lock(folder);
        let made = File::options().create(true).truncate(false).write(true).open(&path);
        made.map_err(HostError::io("making", &path))?;
    }
    Ok(())
}

/// Having a role, until this value is dropped or its process ends.
#[derive(Debug)]
pub(super) struct RoleLock {
    file: File,
    path: PathBuf,
}

impl RoleLock {
    /// Takes the role; none when another process has it.
    pub(super) fn take(folder: &Folder, role: Role) -> Result<Option<Self>, HostError> {
        let mut lock = Self::open(folder, role)?;
        for _ in 0..MOMENT.as_millis() / STEP.as_millis() {
            lock = match lock.lock()? {
                Ok(lock) => return Ok(Some(lock)),
                Err(open) => open,
            };
            std::thread::park_timeout(STEP);
        }
        Ok(lock.lock()?.ok())
    }

    /// Waits, for as long as it takes, until no process has the role.
    pub(super) fn until_free(folder: &Folder, role: Role) -> Result<(), HostError> {
        let Self { file, path } = Self::open(folder, role)?;
        loop {
            match flock(&file, FlockOperation::LockExclusive) {
                Ok(()) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(HostError::io("locking", &path)(error.into())),
            }
        }
    }

    /// Takes the role from its holder, which is ended.
    pub(super) fn seize(folder: &Folder, role: Role) -> Result<Self, HostError> {
        let mut lock = Self::open(folder, role)?;
        // One that is ended may have started another just before, which is ended too; there is no third.
        for _ in 0..ANONYMOUS.as_millis() / STEP.as_millis() {
            lock = match lock.lock()? {
                Ok(lock) => return Ok(lock),
                Err(open) => open,
            };
            match role.process(folder).filter(Identity::is_alive) {
                Some(process) if !process.end(GRACE) => break,
                Some(_) => {}
                None => std::thread::park_timeout(STEP),
            }
        }
        let processes = role.process(folder).map(|process| process.pid.unsigned_abs()).into_iter().collect();
        Err(HostError::StillRunning { owner: format!("the {}", role.as_str()), processes })
    }

    /// Whether the folder is still the one that the lock was taken in.
    pub(super) fn is_current(&self) -> bool {
        let (Ok(own), Ok(there)) = (self.file.metadata(), std::fs::metadata(&self.path)) else { return false };
        (own.dev(), own.ino()) == (there.dev(), there.ino())
    }

    fn open(folder: &Folder, role: Role) -> Result<Self, HostError> {
        let path = role.lock(folder);
        let file = File::options().write(true).open(&path).map_err(HostError::io("opening", &path))?;
        Ok(Self { file, path })
    }

    /// Takes the lock, or gives the open file back.
    fn lock(self) -> Result<Result<Self, Self>, HostError> {
        match flock(&self.file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Ok(self)),
            Err(Errno::WOULDBLOCK | Errno::INTR) => Ok(Err(self)),
            Err(error) => Err(HostError::io("locking", &self.path)(error.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::command::{CP, start};
    use crate::folder::{make_folder, write_private};

    fn folder(root: &Path) -> Folder {
        let folder = Folder::new(root, "one").unwrap();
        make_folder(folder.path()).unwrap();
        folder
    }

    #[test]
    fn each_part_is_one_process_and_free_when_that_is_gone() {
        let root = tempfile::tempdir().unwrap();
        let folder = folder(root.path());
        make_locks(&folder).unwrap();
        let server = RoleLock::take(&folder, Role::Server).unwrap().unwrap();
        assert!(RoleLock::take(&folder, Role::Server).unwrap().is_none());
        let _guard = RoleLock::take(&folder, Role::Guard).unwrap().unwrap();
        make_locks(&folder).unwrap();
        assert!(RoleLock::take(&folder, Role::Server).unwrap().is_none(), "existing files are unchanged");
        drop(server);
        RoleLock::until_free(&folder, Role::Server).unwrap();
        RoleLock::take(&folder, Role::Server).unwrap().unwrap();
    }

    #[test]
    fn a_lock_whose_file_is_missing_is_not_made() {
        let root = tempfile::tempdir().unwrap();
        let folder = folder(root.path());
        let missing = RoleLock::take(&folder, Role::Guard).unwrap_err();
        assert!(matches!(&missing, HostError::Io { path, .. } if *path == folder.guard_lock()), "{missing}");
        assert!(!folder.guard_lock().exists());
    }

    #[test]
    fn a_folder_that_was_removed_and_made_again_is_another() {
        let root = tempfile::tempdir().unwrap();
        let folder = folder(root.path());
        make_locks(&folder).unwrap();
        let lock = RoleLock::take(&folder, Role::Server).unwrap().unwrap();
        assert!(lock.is_current());
        std::fs::rename(folder.path(), root.path().join("away")).unwrap();
        assert!(!lock.is_current());
        make_folder(folder.path()).unwrap();
        make_locks(&folder).unwrap();
        assert!(!lock.is_current());
    }

    #[test]
    fn who_has_a_role_is_ended_for_another() {
        let root = tempfile::tempdir().unwrap();
        let folder = folder(root.path());
        make_locks(&folder).unwrap();
        // A process that has the lock as its standard output, and as long as it lives.
        let lock = RoleLock::take(&folder, Role::Guard).unwrap().unwrap();
        let mut child = start(&CP.find().unwrap().with_file_name("sleep"), ["60"], &lock.file).unwrap();
        drop(lock);
        assert!(RoleLock::take(&folder, Role::Guard).unwrap().is_none());
        let identity = Identity::of(i32::try_from(child.id()).unwrap()).unwrap();
        write_private(&folder.guard(), &serde_json::to_vec(&identity).unwrap()).unwrap();
        let _seized = RoleLock::seize(&folder, Role::Guard).unwrap();
        assert!(!identity.is_alive());
        child.wait().unwrap();
    }
}
