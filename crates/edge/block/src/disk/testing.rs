//! A disk in memory that loses what was not flushed, as a disk with a cache does when its power fails.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use machine::gpt::Geometry;
use machine::install::{Access, Disk};

use super::{DiskError, TargetDisk};

mod disks;

pub use disks::{Change, FakeDisks};

const SECTOR: usize = 512;

/// Sectors by number; those that are not here are zero.
type Sectors = BTreeMap<u64, [u8; SECTOR]>;

/// A disk in memory.
#[derive(Debug, Clone)]
pub struct FakeDisk {
    disk: Disk,
    /// Devices that are made of it.
    part_of: Vec<String>,
    durable: Sectors,
    /// What reads see: all that was written.
    current: Sectors,
    /// Writes since the last flush, in order.
    cached: Vec<(u64, [u8; SECTOR])>,
    /// Sectors that can still be written before the power fails.
    power: u64,
    /// Each sector that was written counts.
    pub written: u64,
}

impl FakeDisk {
    /// An empty disk of `bytes`.
    ///
    /// # Panics
    /// For a size that no disk has.
    #[must_use]
    #[expect(clippy::expect_used, reason = "a test's own size")]
    pub fn new(bytes: u64) -> Self {
        let geometry = Geometry::new(512, bytes).expect("a size that a disk can have");
        let disk =
            Disk { path: "/dev/fake".into(), geometry, alignment: 0, access: Access::Writable, used_by: Vec::new() };
        let (durable, current, part_of) = (Sectors::new(), Sectors::new(), Vec::new());
        Self { disk, part_of, durable, current, cached: Vec::new(), power: u64::MAX, written: 0 }
    }

    /// At another path than `/dev/fake`.
    #[must_use]
    pub fn at(mut self, path: &str) -> Self {
        path.clone_into(&mut self.disk.path);
        self
    }

    /// In use by something.
    #[must_use]
    pub fn used_by(mut self, user: &str) -> Self {
        self.disk.used_by.push(user.to_owned());
        self
    }

    /// In use by a device that is made of it.
    #[must_use]
    pub fn part_of(mut self, device: &str) -> Self {
        self.part_of.push(device.to_owned());
        self.used_by(&format!("part of {device}"))
    }

    /// Not to be written to.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.disk.access = Access::ReadOnly;
        self
    }

    /// Has the power fail after this many more sectors.
    #[must_use]
    pub fn failing_after(mut self, sectors: u64) -> Self {
        self.power = sectors;
        self
    }

    /// The disk after a power cut: of the writes since the last flush, only those have reached it that `survives` says, by
    /// their place in the order of writing.
    #[must_use]
    pub fn after_power_cut(mut self, mut survives: impl FnMut(usize) -> bool) -> Self {
        let cached = std::mem::take(&mut self.cached);
        for (index, (sector, bytes)) in cached.into_iter().enumerate() {
            if survives(index) {
                self.durable.insert(sector, bytes);
            }
        }
        self.current = self.durable.clone();
        self.power = u64::MAX;
        self
    }

    fn end(&self, offset: u64, length: usize) -> io::Result<()> {
        let inside = offset.checked_add(length as u64).is_some_and(|end| end <= self.disk.geometry.bytes());
        let aligned = offset.is_multiple_of(SECTOR as u64) && length.is_multiple_of(SECTOR);
        match (inside, aligned) {
            (false, _) => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
            // The kernel would read the rest of the sector first; the installer has no reason to need that.
            (true, false) => Err(io::Error::from(io::ErrorKind::InvalidInput)),
            (true, true) => Ok(()),
        }
    }
}

impl TargetDisk for FakeDisk {
    fn disk(&self) -> &Disk {
        &self.disk
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        let length = buffer.len();
        let error = |source| DiskError::Read { path: "/dev/fake".into(), offset, length, source };
        self.end(offset, length).map_err(error)?;
        for (chunk, sector) in buffer.chunks_mut(SECTOR).zip(offset / SECTOR as u64..) {
            chunk.copy_from_slice(self.current.get(&sector).unwrap_or(&[0; SECTOR]));
        }
        Ok(())
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let error = |source| DiskError::Write { path: "/dev/fake".into(), offset, length: bytes.len(), source };
        self.end(offset, bytes.len()).map_err(error)?;
        for (chunk, sector) in bytes.chunks(SECTOR).zip(offset / SECTOR as u64..) {
            if self.power == 0 {
                return Err(error(io::Error::from(io::ErrorKind::BrokenPipe)));
            }
            self.power -= 1;
            self.written += 1;
            let mut content = [0; SECTOR];
            content.copy_from_slice(chunk);
            self.cached.push((sector, content));
            self.current.insert(sector, content);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        if self.power == 0 {
            let source = io::Error::from(io::ErrorKind::BrokenPipe);
            return Err(DiskError::Flush { path: "/dev/fake".into(), source });
        }
        for (sector, bytes) in self.cached.drain(..) {
            self.durable.insert(sector, bytes);
        }
        Ok(())
    }

    fn discard(&mut self) {
        self.durable.clear();
        self.current.clear();
        self.cached.clear();
    }

    fn reread(&mut self) -> Result<(), DiskError> {
        Ok(())
    }

    fn partition_device(&self, _: u32) -> Option<PathBuf> {
        None
    }
}
