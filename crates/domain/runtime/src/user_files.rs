//! `machine.files`: files that the configuration wants on the machine, written at each boot.
//!
//! They lie below `/var`, or among the static manifests of the kubelet, which services own and pods reach: no link is
//! followed. A file of the image, which is read-only, is changed by a copy that is bound over it until the next boot, such as
//! the certificates of authorities. containerd's customization is a file of this list too, but not written as one: see
//! [`crate::cri_parts`].

use std::path::{Path, PathBuf};

use config::v1alpha1::{FilePlace, MachineFile};
use sys::files::{self, Access, FileError};
use sys::mounts::{MountError, bind, is_mounted};

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
    #[error(transparent)]
    Mount(#[from] MountError),
}

/// Where files are.
#[derive(Debug, Clone)]
pub struct Places {
    /// The volume EPHEMERAL.
    pub volume: PathBuf,
    /// The image: `/`.
    pub image: PathBuf,
    /// Copies of the image's files (`/system/files`); on a file system without links of others, gone with the boot.
    pub copies: PathBuf,
}

/// Writes the files in their order. Waits for a disk.
///
/// # Errors
/// The first that cannot be written; those before it are.
pub fn write(files: &[MachineFile], places: &Places) -> Result<(), UserFileError> {
    for file in files {
        match file.place() {
            None => return Err(UserFileError::Path(file.path.clone())),
            Some(FilePlace::Customization) => check_customization(&file.content)?,
            Some(FilePlace::Volume(below)) => write_file(file, &places.volume.join(below))?,
            Some(FilePlace::Manifest(name)) => write_file(file, &PathBuf::from(FilePlace::MANIFESTS).join(name))?,
            Some(FilePlace::Image(below)) => cover(file, &places.image, below, &places.copies)?,
        }
    }
    Ok(())
}

fn write_file(file: &MachineFile, path: &Path) -> Result<(), UserFileError> {
    let (content, access) = changed(file, path)?;
    files::write_atomic(path, &content, access)?;
    Ok(())
}

/// Binds a changed copy over a file of the image. Names there may be links, all of them the image's own.
fn cover(file: &MachineFile, image: &Path, below: &Path, copies: &Path) -> Result<(), UserFileError> {
    if matches!(file.op.as_str(), "" | "create") {
        return Err(UserFileError::Path(file.path.clone()));
    }
    let missing = || UserFileError::Missing { path: file.path.clone(), op: file.op.clone() };
    let target = image.join(below).canonicalize().ok().filter(|target| target.is_file()).ok_or_else(missing)?;
    let copy = copies.join(target.strip_prefix(image).map_err(|_| missing())?);
    let (content, access) = changed(file, &target)?;
    // The file is what a bound copy shows: one that another of these files, or an earlier try, has changed is changed again.
    if copy.exists() && is_mounted(&target) {
        files::write_in_place(&copy, &content)?;
        return Ok(());
    }
    files::write_atomic(&copy, &content, access)?;
    bind(&copy, &target)?;
    Ok(())
}

/// The content of a file after the operation. One that is appended to or overwritten keeps its owner, and its mode where none
/// is given.
fn changed(file: &MachineFile, path: &Path) -> Result<(Vec<u8>, Access), UserFileError> {
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
    Ok((content, Access { mode, ..access }))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, symlink};

    use super::*;

    fn file(path: &str, op: &str, content: &str) -> MachineFile {
        MachineFile { path: path.to_owned(), op: op.to_owned(), content: content.to_owned(), permissions: None }
    }

    fn places(volume: &Path) -> Places {
        Places { volume: volume.into(), image: volume.join("image"), copies: volume.join("copies") }
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
            write(&files, &places(volume)).unwrap();
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
        let error =
            write(&[file("/var/../etc/passwd", "create", "x")], &places(&volume.path().join("var"))).unwrap_err();
        assert!(matches!(&error, UserFileError::Path(refused) if refused == "/var/../etc/passwd"), "{error}");
        assert_eq!(std::fs::read_dir(volume.path()).unwrap().count(), 0);
    }

    #[test]
    fn nothing_is_written_through_a_link_or_without_a_file_to_change() {
        let (volume, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        symlink(other.path(), volume.path().join("link")).unwrap();
        let error = write(&[file("/var/link/x", "create", "x")], &places(volume.path())).unwrap_err();
        assert!(matches!(error, UserFileError::File(_)), "{error}");
        assert_eq!(std::fs::read_dir(other.path()).unwrap().count(), 0);
        for op in ["append", "overwrite"] {
            let error = write(&[file("/var/none", op, "x")], &places(volume.path())).unwrap_err();
            assert!(matches!(&error, UserFileError::Missing { op: asked, .. } if asked == op), "{error}");
        }
        let error = write(&[file("/var/x", "truncate", "x")], &places(volume.path())).unwrap_err();
        assert!(matches!(error, UserFileError::Operation { .. }), "{error}");
    }

    #[test]
    fn a_customization_that_containerd_could_not_read_is_refused() {
        let error =
            write(&[file(FilePlace::CUSTOMIZATION, "create", "[broken")], &places(Path::new("/nowhere"))).unwrap_err();
        assert!(matches!(error, UserFileError::Customization(_)), "{error}");
    }
}
