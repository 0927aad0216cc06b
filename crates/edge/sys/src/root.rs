//! The change from the root of an initramfs to that of the system.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::mounts::MountError;

/// The variable by which init tells machined when it started: milliseconds since the kernel did.
pub const INIT_STARTED: &str = "INIT_STARTED_MS";

/// The root cannot be changed.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    #[error(transparent)]
    Mount(#[from] MountError),
    #[error("process {0} is not the first one on an initramfs: its root is not given up")]
    NotInitramfs(u32),
    #[error("changing the root to {}", root.display())]
    Change {
        root: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Moves a mount to another directory.
///
/// # Errors
/// `Mount` with the kernel's reason.
pub fn move_mount(from: &Path, to: &Path) -> Result<(), MountError> {
    rustix::mount::mount_move(from, to).map_err(|source| MountError::Mount {
        what: from.display().to_string(),
        target: to.to_owned(),
        source: source.into(),
    })
}

/// Removes the files of the present root, whose memory is then free, and makes the mount at `root` the new one.
///
/// # Errors
/// [`RootError`]; files that cannot be removed only cost memory.
pub fn switch(root: &Path) -> Result<(), RootError> {
    if !is_initramfs() {
        return Err(RootError::NotInitramfs(std::process::id()));
    }
    let error = |source| RootError::Change { root: root.to_owned(), source };
    empty(Path::new("/"));
    std::env::set_current_dir(root).map_err(error)?;
    move_mount(Path::new("."), Path::new("/"))?;
    rustix::process::chroot(".").map_err(|source| error(source.into()))?;
    std::env::set_current_dir("/").map_err(error)
}

/// Whether this is the first process, and its root is in memory.
fn is_initramfs() -> bool {
    const IN_MEMORY: [i64; 2] = [0x8584_58f6, 0x0102_1994];
    let kind = rustix::fs::statfs("/").map(|found| found.f_type);
    std::process::id() == 1 && kind.is_ok_and(|kind| IN_MEMORY.contains(&kind))
}

/// Removes all files on the filesystem of a directory, below it, and no mount.
fn empty(directory: &Path) {
    let Ok(own) = std::fs::symlink_metadata(directory).map(|found| found.dev()) else { return };
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        match std::fs::symlink_metadata(&path) {
            Ok(found) if found.dev() != own => {}
            Ok(found) if found.is_dir() => {
                empty(&path);
                std::fs::remove_dir(&path).ok();
            }
            Ok(_) => drop(std::fs::remove_file(&path)),
            Err(_) => {}
        }
    }
}

/// Replaces this process by a program, with exactly this environment. Returns only with an error.
#[must_use]
pub fn exec(program: &Path, environment: &[(&str, String)]) -> io::Error {
    use std::os::unix::process::CommandExt as _;
    #[expect(clippy::disallowed_methods, reason = "no child: this process itself goes on as the program")]
    let mut command = std::process::Command::new(program);
    command.env_clear().envs(environment.iter().map(|(name, value)| (*name, value.as_str()))).exec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_other_process_gives_up_its_root() {
        let error = switch(Path::new("/tmp")).unwrap_err();
        assert!(matches!(error, RootError::NotInitramfs(_)), "{error}");
    }

    #[test]
    fn a_program_that_is_not_there_leaves_this_process() {
        assert_eq!(exec(Path::new("/no/such/program"), &[]).kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn files_and_directories_below_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join("modules/a")).unwrap();
        std::fs::write(directory.path().join("modules/a/x.ko.xz"), "x").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", directory.path().join("link")).unwrap();
        empty(directory.path());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        assert!(Path::new("/etc/passwd").exists());
    }
}
