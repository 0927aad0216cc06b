//! `machine.files`: files that the configuration wants on the machine, written at each boot.
//!
//! They lie below `/var`, or among the static manifests of the kubelet, which services own and pods reach: no link is
//! followed. containerd's customization is a file of this list too, but not written as one: see [`crate::cri_parts`].

use std::path::{Path, PathBuf};

use config::v1alpha1::{FilePlace, MachineFile};
use sys::files::{self, Access, FileError};

use crate::cri_parts::{CustomizationError, check_customization};

/// The task of the boot sequence that calls [`write`].
pub const TASK: &str = "writeUserFiles";

/// Mode of a file without one.
const MODE: u32 = 0o644;

/// A file of the configuration that was not written.
#[derive(Debug, thiserror::Error)]
pub enum UserFileError {
    #[error("{0:?} cannot be the path of a file")]
    Path(String),
    #[error("unknown operation {op:?} for {path:?}: create, append or overwrite")]
    Operation { path: String, op: String },
    #[error("{path:?} does not exist: there is nothing to {op}")]
    Missing { path: String, op: String },
    #[error("containerd's customization")]
    Customization(#[from] CustomizationError),
    #[error(transparent)]
    File(#[from] FileError),
}

/// Writes the files in their order, with the volume EPHEMERAL at `volume`. Waits for a disk.
///
/// # Errors
/// The first that cannot be written; those before it are.
pub fn write(files: &[MachineFile], volume: &Path) -> Result<(), UserFileError> {
    for file in files {
        match file.place() {
            None => return Err(UserFileError::Path(file.path.clone())),
            Some(FilePlace::Customization) => check_customization(&file.content)?,
            Some(FilePlace::Volume(below)) => write_file(file, &volume.join(below))?,
            Some(FilePlace::Manifest(name)) => write_file(file, &PathBuf::from(FilePlace::MANIFESTS).join(name))?,
        }
    }
    Ok(())
}

/// A file that is appended to or overwritten keeps its owner, and its mode where none is given.
fn write_file(file: &MachineFile, path: &Path) -> Result<(), UserFileError> {
    let missing = || UserFileError::Missing { path: file.path.clone(), op: file.op.clone() };
    let (content, access) = match file.op.as_str() {
        "" | "create" => (file.content.clone().into_bytes(), Access { mode: MODE, owner: None }),
        "overwrite" => (file.content.clone().into_bytes(), files::access(path)?.ok_or_else(missing)?),
        "append" => {
            let access = files::access(path)?.ok_or_else(missing)?;
            let mut content = files::read(path)?.ok_or_else(missing)?;
            // It was appended at an earlier boot.
            if !content.ends_with(file.content.as_bytes()) {
                content.extend(file.content.as_bytes());
            }
            (content, access)
        }
        op => return Err(UserFileError::Operation { path: file.path.clone(), op: op.to_owned() }),
    };
    let mode = file.permissions.map_or(access.mode, |mode| mode & 0o7777);
    files::write_atomic(path, &content, Access { mode, ..access })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, symlink};

    use super::*;

    fn file(path: &str, op: &str, content: &str) -> MachineFile {
        MachineFile { path: path.to_owned(), op: op.to_owned(), content: content.to_owned(), permissions: None }
    }

    fn read(volume: &Path, path: &str) -> (String, u32) {
        let path = volume.join(path);
        (std::fs::read_to_string(&path).unwrap(), path.metadata().unwrap().mode() & 0o7777)
    }

    #[test]
    fn files_are_created_overwritten_and_appended_to_at_each_boot() {
        let volume = tempfile::tempdir().unwrap();
        let volume = volume.path();
        let mut created = file("/var/etc/my.conf", "create", "a = \"b\"\n");
        created.permissions = Some(0o640);
        std::fs::write(volume.join("log"), "first\n").unwrap();
        std::fs::write(volume.join("old"), "old").unwrap();
        std::os::unix::fs::chown(volume.join("old"), Some(60), Some(61)).unwrap();
        let files = [
            created,
            file("/var/log", "append", "second\n"),
            file("/var/old", "overwrite", "new"),
            file("/var/x", "", ""),
        ];
        for _boot in 0..2 {
            write(&files, volume).unwrap();
            assert_eq!(read(volume, "etc/my.conf"), ("a = \"b\"\n".to_owned(), 0o640));
            assert_eq!(read(volume, "log").0, "first\nsecond\n", "it is appended once");
            assert_eq!(read(volume, "old").0, "new");
            let owner = volume.join("old").metadata().unwrap();
            assert_eq!((owner.uid(), owner.gid()), (60, 61));
            assert_eq!(read(volume, "x"), (String::new(), 0o644));
        }
    }

    #[test]
    fn a_path_elsewhere_is_refused() {
        let volume = tempfile::tempdir().unwrap();
        let error = write(&[file("/var/../etc/passwd", "create", "x")], &volume.path().join("var")).unwrap_err();
        assert!(matches!(&error, UserFileError::Path(refused) if refused == "/var/../etc/passwd"), "{error}");
        assert_eq!(std::fs::read_dir(volume.path()).unwrap().count(), 0);
    }

    #[test]
    fn nothing_is_written_through_a_link_or_without_a_file_to_change() {
        let (volume, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        symlink(other.path(), volume.path().join("link")).unwrap();
        let error = write(&[file("/var/link/x", "create", "x")], volume.path()).unwrap_err();
        assert!(matches!(error, UserFileError::File(_)), "{error}");
        assert_eq!(std::fs::read_dir(other.path()).unwrap().count(), 0);
        for op in ["append", "overwrite"] {
            let error = write(&[file("/var/none", op, "x")], volume.path()).unwrap_err();
            assert!(matches!(&error, UserFileError::Missing { op: asked, .. } if asked == op), "{error}");
        }
        let error = write(&[file("/var/x", "truncate", "x")], volume.path()).unwrap_err();
        assert!(matches!(error, UserFileError::Operation { .. }), "{error}");
    }

    #[test]
    fn a_customization_that_containerd_could_not_read_is_refused() {
        let error = write(&[file(FilePlace::CUSTOMIZATION, "create", "[broken")], Path::new("/nowhere")).unwrap_err();
        assert!(matches!(error, UserFileError::Customization(_)), "{error}");
    }
}
