//! A disk image in a file: installed to without privileges.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use machine::gpt::Geometry;
use machine::install::{Access, Disk};

use super::named_file::NamedFile;
use super::{DiskError, TargetDisk};

/// A file that holds a disk.
#[derive(Debug)]
pub struct ImageFile {
    file: NamedFile,
    disk: Disk,
}

impl ImageFile {
    /// Makes an empty disk of `bytes` in a file, which is replaced if it exists.
    ///
    /// # Errors
    /// The file cannot be made, or no disk has that size.
    pub fn create(path: &Path, bytes: u64) -> Result<Self, DiskError> {
        let open = |source| DiskError::Open { path: path.to_owned(), source };
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path).map_err(open)?;
        file.set_len(bytes).map_err(open)?;
        Self::new(file, path, bytes)
    }

    /// Opens the disk in a file.
    ///
    /// # Errors
    /// The file cannot be opened, or is too small.
    pub fn open(path: &Path) -> Result<Self, DiskError> {
        let open = |source| DiskError::Open { path: path.to_owned(), source };
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(open)?;
        let bytes = file.metadata().map_err(open)?.len();
        Self::new(file, path, bytes)
    }

    fn new(file: File, path: &Path, bytes: u64) -> Result<Self, DiskError> {
        let geometry =
            Geometry::new(512, bytes).map_err(|source| DiskError::Geometry { path: path.to_owned(), source })?;
        let disk = Disk {
            path: path.display().to_string(),
            geometry,
            alignment: 0,
            access: Access::Writable,
            used_by: Vec::new(),
        };
        Ok(Self { file: NamedFile::new(file, path), disk })
    }
}

impl TargetDisk for ImageFile {
    fn disk(&self) -> &Disk {
        &self.disk
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        self.file.read_at(offset, buffer)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.file.write_at(offset, bytes)
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        // An image that is being made is of no use to anybody before it is whole.
        Ok(())
    }

    fn discard(&mut self) {
        // Making the file shorter drops its blocks.
        let bytes = self.disk.geometry.bytes();
        let dropped = self.file.file.set_len(0).and_then(|()| self.file.file.set_len(bytes));
        if let Err(error) = dropped {
            tracing::debug!(%error, "content of an image file was not dropped");
        }
    }

    fn reread(&mut self) -> Result<(), DiskError> {
        Ok(())
    }

    fn partition_device(&self, _: u32) -> Option<PathBuf> {
        None
    }
}
