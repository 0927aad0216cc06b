//! GUID partition tables: reading tables that anybody may have written, and writing our own (128 entries at LBA 2).
//!
//! The bytes come from and go to the caller. Where partitions are put is decided by [`crate::layout`].

mod guid;
mod mbr;
mod read;
mod write;

pub use guid::{Guid, ParseGuidError};
pub use mbr::{BOOT_CODE_SIZE, ProtectiveEntry, protective_mbr, set_boot_code};
pub use read::{Copy, Damage, Found, ReadTableError, read};
pub use write::{Region, writes};

/// Entries of the tables that are written here, and the size of each in bytes.
pub const ENTRIES: u32 = 128;
pub(crate) const ENTRY_SIZE: u32 = 128;
/// Most UTF-16 units of a partition's name.
pub const NAME_UNITS: usize = 36;
/// Attribute bit 2: a BIOS may boot from this partition.
pub const LEGACY_BIOS_BOOTABLE: u64 = 1 << 2;

/// A disk's size in its own units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    sector_size: u32,
    sectors: u64,
}

/// A size for which no table can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GeometryError {
    #[error("sectors of {0} bytes are not supported: must be a power of two from 512 to 65536")]
    SectorSize(u32),
    #[error("a disk of {bytes} bytes is too small for a partition table")]
    TooSmall { bytes: u64 },
}

impl Geometry {
    /// The geometry of a disk with sectors of `sector_size` bytes; a rest that fills no sector is ignored.
    ///
    /// # Errors
    /// Sizes that no disk has, and a disk too small for both copies of a table.
    pub const fn new(sector_size: u32, bytes: u64) -> Result<Self, GeometryError> {
        if !sector_size.is_power_of_two() || sector_size < 512 || sector_size > 65536 {
            return Err(GeometryError::SectorSize(sector_size));
        }
        let geometry = Self { sector_size, sectors: bytes / sector_size as u64 };
        if geometry.sectors < 2 * geometry.entry_sectors() + 4 {
            return Err(GeometryError::TooSmall { bytes });
        }
        Ok(geometry)
    }

    /// Bytes of a sector.
    #[must_use]
    pub const fn sector_size(self) -> u32 {
        self.sector_size
    }

    /// Number of sectors.
    #[must_use]
    pub const fn sectors(self) -> u64 {
        self.sectors
    }

    /// Bytes of all sectors.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.sectors * self.sector_size as u64
    }

    /// Sectors of an array of [`ENTRIES`] entries.
    const fn entry_sectors(self) -> u64 {
        (ENTRIES as u64 * ENTRY_SIZE as u64).div_ceil(self.sector_size as u64)
    }

    /// The first sector that a partition may use.
    #[must_use]
    pub const fn first_usable(self) -> u64 {
        2 + self.entry_sectors()
    }

    /// The last sector that a partition may use.
    #[must_use]
    pub const fn last_usable(self) -> u64 {
        self.sectors - self.entry_sectors() - 2
    }
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Its number, from 1: `/dev/sda1`.
    pub number: u32,
    pub kind: Guid,
    pub id: Guid,
    /// First and last sector, both part of it.
    pub first: u64,
    pub last: u64,
    pub attributes: u64,
    /// The name, at most [`NAME_UNITS`] UTF-16 units. From a foreign table it may hold any character.
    pub name: String,
}

impl Partition {
    /// Number of its sectors.
    #[must_use]
    pub const fn sectors(&self) -> u64 {
        self.last - self.first + 1
    }

    /// Its offset on the disk in bytes.
    #[must_use]
    pub const fn offset(&self, geometry: Geometry) -> u64 {
        self.first * geometry.sector_size as u64
    }

    /// Its size in bytes.
    #[must_use]
    pub const fn size(&self, geometry: Geometry) -> u64 {
        self.sectors() * geometry.sector_size as u64
    }
}

/// A partition table: what both of its copies say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    pub disk: Guid,
    pub geometry: Geometry,
    /// In the order of their numbers.
    pub partitions: Vec<Partition>,
}

impl Table {
    /// An empty table.
    #[must_use]
    pub const fn new(disk: Guid, geometry: Geometry) -> Self {
        Self { disk, geometry, partitions: Vec::new() }
    }

    /// The first partition of that name.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<&Partition> {
        self.partitions.iter().find(|partition| partition.name == name)
    }

    /// The end of the free space after this partition: the last sector before the next partition, or the last usable one.
    #[must_use]
    pub fn last_free_after(&self, partition: &Partition) -> u64 {
        let next = self.partitions.iter().filter(|other| other.first > partition.last).map(|other| other.first).min();
        next.map_or(self.geometry.last_usable(), |next| next - 1)
    }
}

#[cfg(test)]
mod tests;
