//! The two processes of an agent, told apart by a lock each: whoever has the lock is that part, and nobody else can be.
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

use crate::error::ProvisionError;
use crate::process::Identity;
use crate::state::Folder;

/// Between two attempts to take a lock.
const STEP: Duration = Duration::from_millis(10);
/// Whoever only looks whether a lock is free has it for a moment; that is not somebody who keeps it.
const MOMENT: Duration = Duration::from_millis(100);
/// How long a process may take to end when it is asked, and again when it is killed.
const GRACE: Duration = Duration::from_secs(3);
/// How long a process may have a lock before it says who it is.
const ANONYMOUS: Duration = Duration::from_secs(5);

/// What a process of the agent is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// Serves the cluster.
    Server,
    /// Starts the server again when it ended.
    Guard,
}

impl Part {
    /// As it stands in messages, after `the`.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Server => "agent",
            Self::Guard => "agent's guard",
        }
    }

    fn lock(self, folder: &Folder) -> PathBuf {
        match self {
            Self::Server => folder.agent_lock(),
            Self::Guard => folder.guard_lock(),
        }
    }

    /// Who said last that it is this part; it need not live any more.
    pub(super) fn process(self, folder: &Folder) -> Option<Identity> {
        match self {
            Self::Server => super::read_card(folder).map(|card| card.process),
            Self::Guard => Identity::read(&folder.guard()),
        }
    }
}

/// Makes the files of the locks, where they are missing.
pub(super) fn make_locks(folder: &Folder) -> Result<(), ProvisionError> {
    for part in [Part::Server, Part::Guard] {
        let path = part.lock(folder);
        let made = File::options().create(true).truncate(false).write(true).open(&path);
        made.map_err(ProvisionError::io("making", &path))?;
    }
    Ok(())
}

/// Being a part, until this value is dropped or its process ends.
#[derive(Debug)]
pub(super) struct Hold {
    file: File,
    path: PathBuf,
}

impl Hold {
    /// Becomes the part; none when another process is it.
    pub(super) fn take(folder: &Folder, part: Part) -> Result<Option<Self>, ProvisionError> {
        let mut hold = Self::open(folder, part)?;
        for _ in 0..MOMENT.as_millis() / STEP.as_millis() {
            hold = match hold.lock()? {
                Ok(hold) => return Ok(Some(hold)),
                Err(open) => open,
            };
            std::thread::park_timeout(STEP);
        }
        Ok(hold.lock()?.ok())
    }

    /// Waits, for as long as it takes, until no process is the part.
    pub(super) fn until_free(folder: &Folder, part: Part) -> Result<(), ProvisionError> {
        let Self { file, path } = Self::open(folder, part)?;
        loop {
            match flock(&file, FlockOperation::LockExclusive) {
                Ok(()) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(ProvisionError::io("locking", &path)(error.into())),
            }
        }
    }

    /// Becomes the part in place of whoever is it, who is ended.
    pub(super) fn seize(folder: &Folder, part: Part) -> Result<Self, ProvisionError> {
        let mut hold = Self::open(folder, part)?;
        // One that is ended may have started another just before, which is ended too; there is no third.
        for _ in 0..ANONYMOUS.as_millis() / STEP.as_millis() {
            hold = match hold.lock()? {
                Ok(hold) => return Ok(hold),
                Err(open) => open,
            };
            match part.process(folder).filter(Identity::is_alive) {
                Some(process) if !process.end(GRACE) => break,
                Some(_) => {}
                None => std::thread::park_timeout(STEP),
            }
        }
        let processes = part.process(folder).map(|process| process.pid.unsigned_abs()).into_iter().collect();
        Err(ProvisionError::StillRunning { name: part.as_str().to_owned(), processes })
    }

    /// Whether the folder is still the one that the lock was taken in.
    pub(super) fn is_current(&self) -> bool {
        let (Ok(own), Ok(there)) = (self.file.metadata(), std::fs::metadata(&self.path)) else { return false };
        (own.dev(), own.ino()) == (there.dev(), there.ino())
    }

    fn open(folder: &Folder, part: Part) -> Result<Self, ProvisionError> {
        let path = part.lock(folder);
        let file = File::options().write(true).open(&path).map_err(ProvisionError::io("opening", &path))?;
        Ok(Self { file, path })
    }

    /// Takes the lock, or gives the open file back.
    fn lock(self) -> Result<Result<Self, Self>, ProvisionError> {
        match flock(&self.file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Ok(self)),
            Err(Errno::WOULDBLOCK | Errno::INTR) => Ok(Err(self)),
            Err(error) => Err(ProvisionError::io("locking", &self.path)(error.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::command::{CP, start};
    use crate::state::{make_folder, write_private};

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
        let server = Hold::take(&folder, Part::Server).unwrap().unwrap();
        assert!(Hold::take(&folder, Part::Server).unwrap().is_none());
        let _guard = Hold::take(&folder, Part::Guard).unwrap().unwrap();
        make_locks(&folder).unwrap();
        assert!(Hold::take(&folder, Part::Server).unwrap().is_none(), "files that are there stay the same");
        drop(server);
        Hold::until_free(&folder, Part::Server).unwrap();
        Hold::take(&folder, Part::Server).unwrap().unwrap();
    }

    #[test]
    fn a_lock_whose_file_is_missing_is_not_made() {
        let root = tempfile::tempdir().unwrap();
        let folder = folder(root.path());
        let missing = Hold::take(&folder, Part::Guard).unwrap_err();
        assert!(matches!(&missing, ProvisionError::Io { path, .. } if *path == folder.guard_lock()), "{missing}");
        assert!(!folder.guard_lock().exists());
    }

    #[test]
    fn a_folder_that_was_removed_and_made_again_is_another() {
        let root = tempfile::tempdir().unwrap();
        let folder = folder(root.path());
        make_locks(&folder).unwrap();
        let hold = Hold::take(&folder, Part::Server).unwrap().unwrap();
        assert!(hold.is_current());
        std::fs::rename(folder.path(), root.path().join("away")).unwrap();
        assert!(!hold.is_current());
        make_folder(folder.path()).unwrap();
        make_locks(&folder).unwrap();
        assert!(!hold.is_current());
    }

    #[test]
    fn who_is_a_part_is_ended_for_another() {
        let root = tempfile::tempdir().unwrap();
        let folder = folder(root.path());
        make_locks(&folder).unwrap();
        // A process that has the lock as its standard output, and as long as it lives.
        let lock = Hold::take(&folder, Part::Guard).unwrap().unwrap();
        let mut child = start(&CP.find().unwrap().with_file_name("sleep"), ["60"], &lock.file).unwrap();
        drop(lock);
        assert!(Hold::take(&folder, Part::Guard).unwrap().is_none());
        let identity = Identity::of(i32::try_from(child.id()).unwrap()).unwrap();
        write_private(&folder.guard(), &serde_json::to_vec(&identity).unwrap()).unwrap();
        let _seized = Hold::seize(&folder, Part::Guard).unwrap();
        assert!(!identity.is_alive());
        child.wait().unwrap();
    }
}
