//! Files on the operator's machine: errors name the path, and nothing is overwritten by accident.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::command_error::CommandError;

/// Policy for existing files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Overwrite {
    Never,
    /// Only with `--force`, a flag of the command.
    Refuse,
    Allow,
}

/// Read permission of a new file.
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
    let content = if path == Path::new("-") { client::read_all(io::stdin().lock()) } else { client::read_file(path) };
    content.and_then(client::utf8).map_err(unreadable(path))
}

pub(crate) fn read_bytes(path: &Path) -> Result<Vec<u8>, CommandError> {
    client::read_file(path).map_err(unreadable(path))
}

fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> CommandError {
    move |error| CommandError::usage(format!("reading {}", path.display())).caused_by(error)
}

/// Fails if one of the files exists, or cannot be made for a file or directory in its place, so that a command writes all
/// of its files or none.
pub(crate) fn check_absent<'a>(
    paths: impl IntoIterator<Item = &'a Path>,
    overwrite: Overwrite,
) -> Result<(), CommandError> {
    paths.into_iter().try_for_each(|path| check_place(path, overwrite))
}

fn check_place(path: &Path, overwrite: Overwrite) -> Result<(), CommandError> {
    let shown = |path: &Path| path.display().to_string();
    if let Some(parent) = path.parent().filter(|parent| parent.exists() && !parent.is_dir()) {
        return Err(CommandError::usage(format!("{:?} is not a directory", shown(parent))));
    }
    if overwrite == Overwrite::Allow {
        let refused = || CommandError::usage(format!("{:?} is a directory", shown(path)));
        return if path.is_dir() { Err(refused()) } else { Ok(()) };
    }
    // A dangling symlink is in the way as well.
    if fs::symlink_metadata(path).is_err() {
        return Ok(());
    }
    let exists = format!("file {:?} already exists", path.display().to_string());
    Err(match overwrite {
        // Scripts match these words.
        Overwrite::Refuse => CommandError::usage(format!("{exists}, use --force to overwrite")),
        _ => CommandError::usage(exists).hint("choose another path, or remove it first"),
    })
}

/// Writes a file atomically. An overwritten file gets the mode of a new one: content that has become secret must not
/// stay readable.
pub(crate) fn write(path: &Path, data: &[u8], access: Access, overwrite: Overwrite) -> Result<(), CommandError> {
    check_absent([path], overwrite)?;
    let mode = match access {
        Access::Owner => 0o600,
        Access::Everybody => 0o644,
    };
    let written = match overwrite {
        Overwrite::Never | Overwrite::Refuse => create(path, data, mode),
        Overwrite::Allow => client::replace_file(path, data, mode),
    };
    written.map_err(|error| CommandError::failed(format!("writing {}", path.display())).caused_by(error))
}

/// Fails if the file appears in the meantime; removes a partly written one.
fn create(path: &Path, data: &[u8], mode: u32) -> io::Result<()> {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::create_dir_all(parent)?;
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    let written = file.write_all(data).and_then(|()| file.sync_all());
    if written.is_err() {
        // Report the first error.
        fs::remove_file(path).ok();
    }
    written
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_that_is_too_long_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk.img");
        let file = fs::File::create(&path).unwrap();
        for (length, fits) in [(client::MAX_FILE_SIZE, true), (client::MAX_FILE_SIZE + 1, false)] {
            file.set_len(length).unwrap();
            for read in [read(&path).map(|_| ()), read_bytes(&path).map(|_| ())] {
                let refused = read.map_err(|error| stdx::error_chain(error.error.as_ref()));
                let said = format!("reading {}: more than 67108864 bytes", path.display());
                assert_eq!(refused, if fits { Ok(()) } else { Err(said) });
            }
        }
    }

    #[test]
    fn a_place_where_no_file_can_be_is_told_before_anything_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let said = |path: &Path| {
            let refused = check_absent([path], Overwrite::Allow).map_err(|error| error.error.to_string());
            refused.map_err(|text| text.replace(&format!("{}/", dir.path().display()), ""))
        };
        assert_eq!(said(&file), Ok(()));
        assert_eq!(said(&dir.path().join("new/deep/file")), Ok(()));
        assert_eq!(said(Path::new("bare")), Ok(()));
        assert_eq!(said(&file.join("worker.yaml")), Err("\"file\" is not a directory".to_owned()));
        fs::create_dir(dir.path().join("worker.yaml")).unwrap();
        assert_eq!(said(&dir.path().join("worker.yaml")), Err("\"worker.yaml\" is a directory".to_owned()));
    }

    #[test]
    fn an_existing_file_is_kept_unless_forced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/key");
        write(&path, b"one", Access::Owner, Overwrite::Refuse).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let error = write(&path, b"two", Access::Owner, Overwrite::Refuse).unwrap_err();
        let expected = format!("file {:?} already exists, use --force to overwrite", path.display().to_string());
        assert_eq!(error.error.to_string(), expected);
        assert_eq!(read(&path).unwrap(), "one");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        write(&path, b"2", Access::Owner, Overwrite::Allow).unwrap();
        assert_eq!(read(&path).unwrap(), "2");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
