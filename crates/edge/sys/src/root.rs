//! The change from the root of an initramfs to that of the system.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::mounts::MountError;

/// The variable by which init tells machined when it started: milliseconds since the kernel did.
pub const INIT_STARTED: &str = "INIT_STARTED_MS";
/// The variable by which it tells its [`InitSteps`].
pub const INIT_STEPS: &str = "INIT_STEPS_MS";

/// The steps of init, and what each took. As text: `name=milliseconds`, separated by spaces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InitSteps(Vec<(String, Duration)>);

impl InitSteps {
    /// More steps than init has are none of its own.
    const MOST: usize = 16;

    /// Adds a step.
    pub fn push(&mut self, name: &str, took: Duration) {
        self.0.push((name.to_owned(), took));
    }

    /// Reads the text. What is no step is left out.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let steps = text.split_whitespace().filter_map(|step| {
            let (name, millis) = step.split_once('=')?;
            Some((name.to_owned(), Duration::from_millis(millis.parse().ok()?)))
        });
        Self(steps.take(Self::MOST).collect())
    }

    /// In their order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Duration)> {
        self.0.iter().map(|(name, took)| (name.as_str(), *took))
    }
}

impl std::fmt::Display for InitSteps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, (name, took)) in self.iter().enumerate() {
            let space = if index == 0 { "" } else { " " };
            write!(f, "{space}{name}={}", took.as_millis())?;
        }
        Ok(())
    }
}

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
    fn steps_are_read_as_they_are_written() {
        let mut steps = InitSteps::default();
        steps.push("modules", Duration::from_millis(120));
        steps.push("rootfs", Duration::from_micros(1900));
        assert_eq!(steps.to_string(), "modules=120 rootfs=1");
        let read = InitSteps::parse("modules=120 x y=z rootfs=1");
        let expected = [("modules", Duration::from_millis(120)), ("rootfs", Duration::from_millis(1))];
        assert!(read.iter().eq(expected), "{read:?}");
        assert_eq!(InitSteps::parse(&"a=1 ".repeat(100)).iter().count(), InitSteps::MOST);
    }

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
