//! Replaces a file that a firmware or a boot loader reads, so that a power cut leaves the old content or the new one.
//!
//! A rename over a file is not enough on VFAT, which removes one entry before it changes the other. The exchange of two files
//! of one directory changes where each entry's content begins: whichever of both entries reaches the disk first, each of them
//! leads to a whole file.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};

/// What the name of the new content ends in until it has its place.
const BESIDE: &str = "new";

/// The file cannot be replaced. It has its old content, or the new one.
#[derive(Debug, thiserror::Error)]
#[error("replacing {} (at {at})", path.display())]
pub struct ReplaceError {
    path: PathBuf,
    at: &'static str,
    #[source]
    source: io::Error,
}

/// Whether the file was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replaced {
    Yes,
    /// It had this content.
    Unchanged,
}

/// Gives a file that exists another content. Each step is on the disk before the next one begins.
///
/// # Errors
/// [`ReplaceError`]; also where the file system cannot exchange files (VFAT: Linux 6.0).
pub fn replace(path: &Path, content: &[u8]) -> Result<Replaced, ReplaceError> {
    let failed = |at| move |source| ReplaceError { path: path.to_owned(), at, source };
    if std::fs::read(path).map_err(failed("reading"))? == content {
        return Ok(Replaced::Unchanged);
    }
    let directory = path.parent().unwrap_or(Path::new("/"));
    let beside = path.with_extension(BESIDE);
    let write = || -> io::Result<()> {
        // One of an earlier upgrade that was cut off.
        let mut file = File::options().write(true).create(true).truncate(true).open(&beside)?;
        file.write_all(content)?;
        file.sync_all()?;
        sync(directory)
    };
    write().map_err(failed("writing the new content"))?;
    let exchange = || -> io::Result<()> {
        renameat_with(CWD, &beside, CWD, path, RenameFlags::EXCHANGE)?;
        File::open(path)?.sync_all()?;
        sync(directory)
    };
    exchange().map_err(failed("exchanging"))?;
    // It has the old content now.
    let remove = || -> io::Result<()> {
        std::fs::remove_file(&beside)?;
        sync(directory)
    };
    remove().map_err(failed("removing the old content"))?;
    Ok(Replaced::Yes)
}

/// The whole file system: VFAT keeps the place of a file's content in its directory.
fn sync(directory: &Path) -> io::Result<()> {
    let directory = File::open(directory)?;
    directory.sync_all()?;
    Ok(rustix::fs::syncfs(&directory)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_gets_its_new_content_and_nothing_stays_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("BOOTX64.EFI");
        std::fs::write(&path, "old").unwrap();
        // What a power cut has left.
        std::fs::write(folder.path().join("BOOTX64.new"), "half of another one").unwrap();
        assert_eq!(replace(&path, b"new").unwrap(), Replaced::Yes);
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        let written = std::fs::metadata(&path).unwrap().modified().unwrap();
        assert_eq!(replace(&path, b"new").unwrap(), Replaced::Unchanged);
        assert_eq!(std::fs::metadata(&path).unwrap().modified().unwrap(), written);
    }

    #[test]
    fn a_file_that_is_not_there_is_an_error_and_is_not_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("BOOTX64.EFI");
        let error = replace(&path, b"new").unwrap_err();
        assert_eq!((error.at, error.source.kind()), ("reading", io::ErrorKind::NotFound));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
