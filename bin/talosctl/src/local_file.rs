//! Files on the operator's machine: read with their name in the error, and never overwritten by accident.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::command_error::CommandError;

/// What to do with a file that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Overwrite {
    Refuse,
    Allow,
}

/// Who may read a new file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Owner,
    Everybody,
}

impl Overwrite {
    pub(crate) fn forced(force: bool) -> Self {
        if force { Self::Allow } else { Self::Refuse }
    }
}

pub(crate) fn read(path: &Path) -> Result<String, CommandError> {
    let read = || {
        if path == Path::new("-") { io::read_to_string(io::stdin().lock()) } else { fs::read_to_string(path) }
    };
    read().map_err(|error| CommandError::usage(format!("reading {}", path.display())).caused_by(error))
}

pub(crate) fn read_bytes(path: &Path) -> Result<Vec<u8>, CommandError> {
    fs::read(path).map_err(|error| CommandError::usage(format!("reading {}", path.display())).caused_by(error))
}

/// Refuses when one of the files exists, so that a command writes all of its files or none.
pub(crate) fn check_absent<'a>(
    paths: impl IntoIterator<Item = &'a Path>,
    overwrite: Overwrite,
) -> Result<(), CommandError> {
    let existing = paths.into_iter().find(|path| overwrite == Overwrite::Refuse && path.exists());
    match existing {
        None => Ok(()),
        Some(path) => {
            Err(CommandError::usage(format!("{} exists already", path.display())).hint("overwrite it with --force"))
        }
    }
}

pub(crate) fn write(path: &Path, data: &[u8], access: Access, overwrite: Overwrite) -> Result<(), CommandError> {
    check_absent([path], overwrite)?;
    let mode = match access {
        Access::Owner => 0o600,
        Access::Everybody => 0o644,
    };
    let write = || -> io::Result<()> {
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            fs::create_dir_all(parent)?;
        }
        let mut options = fs::OpenOptions::new();
        options.write(true).mode(mode);
        match overwrite {
            Overwrite::Refuse => options.create_new(true),
            Overwrite::Allow => options.create(true).truncate(true),
        };
        options.open(path)?.write_all(data)
    };
    write().map_err(|error| CommandError::failed(format!("writing {}", path.display())).caused_by(error))
}

/// Replaces a file as a whole or not at all; a symlink is followed, the mode is kept.
pub(crate) fn replace(path: &Path, data: &[u8]) -> Result<(), CommandError> {
    let replace = || -> io::Result<()> {
        let target = fs::canonicalize(path)?;
        let mut name = target.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.new", std::process::id()));
        let temporary = target.with_file_name(name);
        let written = (|| {
            let mut options = fs::OpenOptions::new();
            let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
            file.write_all(data)?;
            file.set_permissions(fs::metadata(&target)?.permissions())?;
            file.sync_all()?;
            fs::rename(&temporary, &target)
        })();
        if written.is_err() {
            // The first error is the one that matters.
            fs::remove_file(&temporary).ok();
        }
        written
    };
    replace().map_err(|error| CommandError::failed(format!("writing {}", path.display())).caused_by(error))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn an_existing_file_is_kept_unless_forced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/key");
        write(&path, b"one", Access::Owner, Overwrite::Refuse).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let error = write(&path, b"two", Access::Owner, Overwrite::Refuse).unwrap_err();
        assert_eq!(error.hints, ["overwrite it with --force"]);
        assert_eq!(read(&path).unwrap(), "one");
        write(&path, b"2", Access::Owner, Overwrite::Allow).unwrap();
        assert_eq!(read(&path).unwrap(), "2");
    }
}
