//! An open device or file, whose errors name it.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::DiskError;

#[derive(Debug)]
pub(super) struct NamedFile {
    pub(super) file: File,
    path: PathBuf,
}

impl NamedFile {
    pub(super) fn new(file: File, path: &Path) -> Self {
        Self { file, path: path.to_owned() }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.path.clone()
    }

    pub(super) fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        let length = buffer.len();
        let error = |source| DiskError::Read { path: self.path(), offset, length, source };
        self.file.read_exact_at(buffer, offset).map_err(error)
    }

    pub(super) fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let error = |source| DiskError::Write { path: self.path(), offset, length: bytes.len(), source };
        self.file.write_all_at(bytes, offset).map_err(error)
    }
}
