//! Disks of a machine in memory, which say in which order they were changed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use machine::install::{Contents, Disk};
use parking_lot::Mutex;

use super::FakeDisk;
use crate::disk::disks::{Disks, EmptyFileSystem};
use crate::disk::{DiskError, TargetDisk, contents};
use crate::format::FormatError;

/// A change of a disk, by its path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Discard(String),
    /// At this offset in bytes.
    Write(String, u64),
    Flush(String),
    Reread(String),
    /// Of a partition's device.
    Format(PathBuf, EmptyFileSystem),
}

/// Strict: a disk that is read-only or in use takes no writes, and only a partition that its disk's table has gets a file
/// system.
#[derive(Debug, Clone, Default)]
pub struct FakeDisks {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    disks: BTreeMap<PathBuf, FakeDisk>,
    changes: Vec<Change>,
    fails_at: Option<usize>,
}

impl FakeDisks {
    /// With a disk at the path that it says.
    #[must_use]
    pub fn with(self, disk: FakeDisk) -> Self {
        self.state.lock().disks.insert(PathBuf::from(&disk.disk().path), disk);
        self
    }

    /// The disk at a path, as it is now.
    #[must_use]
    pub fn disk(&self, path: &str) -> Option<FakeDisk> {
        self.state.lock().disks.get(Path::new(path)).cloned()
    }

    /// All changes, in order.
    #[must_use]
    pub fn changes(&self) -> Vec<Change> {
        self.state.lock().changes.clone()
    }

    /// The change of this number, from 0, fails.
    pub fn fail_at(&self, change: usize) {
        self.state.lock().fails_at = Some(change);
    }

    /// The device of each partition of each disk.
    fn partitions(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for disk in self.state.lock().disks.values() {
            let Ok(Contents::Table(table)) = contents(disk) else { continue };
            for partition in &table.partitions {
                found.push(device(disk.disk(), partition.number));
            }
        }
        found
    }

    /// Makes a change, unless the test has it fail or the disk does not take it.
    fn change<T>(
        &self,
        path: &str,
        change: Change,
        apply: impl FnOnce(&mut FakeDisk) -> Result<T, DiskError>,
    ) -> Result<T, DiskError> {
        let failed = |text: &str| DiskError::Write {
            path: path.into(),
            offset: 0,
            length: 0,
            source: std::io::Error::other(text.to_owned()),
        };
        let mut state = self.state.lock();
        let number = state.changes.len();
        state.changes.push(change);
        if state.fails_at == Some(number) {
            return Err(failed("made to fail"));
        }
        let disk = state.disks.get_mut(Path::new(path)).ok_or_else(|| DiskError::Absent { path: path.into() })?;
        let is_free = disk.disk().used_by.is_empty() && disk.disk().access == machine::install::Access::Writable;
        if is_free { apply(disk) } else { Err(failed("it is in use or read-only")) }
    }
}

fn device(disk: &Disk, number: u32) -> PathBuf {
    PathBuf::from(format!("{}p{number}", disk.path))
}

#[async_trait]
impl Disks for FakeDisks {
    fn open(&self, path: &Path) -> Result<Box<dyn TargetDisk>, DiskError> {
        let disk = self.state.lock().disks.get(path).map(|disk| disk.disk().clone());
        let disk = disk.ok_or_else(|| DiskError::Absent { path: path.to_owned() })?;
        Ok(Box::new(OpenDisk { disks: self.clone(), disk }))
    }

    fn part_of(&self, path: &Path) -> Vec<String> {
        self.state.lock().disks.get(path).map(|disk| disk.part_of.clone()).unwrap_or_default()
    }

    async fn format(&self, device: &Path, kind: EmptyFileSystem, _: &str) -> Result<(), FormatError> {
        let failed = |text: &str| FormatError::Prototype {
            path: device.to_owned(),
            source: std::io::Error::other(text.to_owned()),
        };
        if !self.partitions().iter().any(|known| known == device) {
            return Err(failed("no disk has this partition"));
        }
        let mut state = self.state.lock();
        let number = state.changes.len();
        state.changes.push(Change::Format(device.to_owned(), kind));
        if state.fails_at == Some(number) { Err(failed("made to fail")) } else { Ok(()) }
    }
}

/// A disk of [`FakeDisks`].
#[derive(Debug)]
struct OpenDisk {
    disks: FakeDisks,
    disk: Disk,
}

impl TargetDisk for OpenDisk {
    fn disk(&self) -> &Disk {
        &self.disk
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        let path = PathBuf::from(&self.disk.path);
        let state = self.disks.state.lock();
        state.disks.get(&path).ok_or(DiskError::Absent { path })?.read_at(offset, buffer)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let change = Change::Write(self.disk.path.clone(), offset);
        self.disks.change(&self.disk.path, change, |disk| disk.write_at(offset, bytes))
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        self.disks.change(&self.disk.path, Change::Flush(self.disk.path.clone()), FakeDisk::flush)
    }

    fn discard(&mut self) {
        let discard = |disk: &mut FakeDisk| {
            disk.discard();
            Ok(())
        };
        // A disk that cannot discard is as good as one that can.
        drop(self.disks.change(&self.disk.path, Change::Discard(self.disk.path.clone()), discard));
    }

    fn reread(&mut self) -> Result<(), DiskError> {
        self.disks.change(&self.disk.path, Change::Reread(self.disk.path.clone()), FakeDisk::reread)
    }

    fn partition_device(&self, number: u32) -> Option<PathBuf> {
        Some(device(&self.disk, number))
    }
}
