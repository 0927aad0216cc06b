//! Reading of tables: every number in them is checked before it is used.

use super::{ENTRY_SIZE, Geometry, Guid, NAME_UNITS, Partition, Table};

/// Most entries of a foreign table that are looked at. Common tables have 128; more than this is damage.
const MOST_ENTRIES: u32 = 1024;
const HEADER_SIZE: usize = 92;
const SIGNATURE: &[u8; 8] = b"EFI PART";

/// Which of both copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copy {
    Primary,
    Backup,
}

/// What is wrong with a copy of a table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    #[error("no signature")]
    NoSignature,
    #[error("a header of {0} bytes")]
    HeaderSize(u32),
    #[error("the checksum of the header is wrong")]
    HeaderChecksum,
    #[error("the header says that it is at sector {0}")]
    Misplaced(u64),
    #[error("{count} entries of {size} bytes")]
    Entries { count: u32, size: u32 },
    #[error("the entries lie outside the disk")]
    EntriesOutside,
    #[error("the checksum of the entries is wrong")]
    EntriesChecksum,
    #[error("partition {number} reaches from sector {first} to {last}, outside the disk")]
    Outside { number: u32, first: u64, last: u64 },
    #[error("partitions {0} and {1} overlap")]
    Overlap(u32, u32),
}

/// A table that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub table: Table,
    /// The copy that the table is from: the primary one unless that is damaged.
    pub copy: Copy,
    /// What the primary copy has where the table is from the backup.
    pub primary: Option<Damage>,
    /// The sector of the backup header according to the primary: not the last one where the disk has grown.
    pub backup_at: u64,
}

impl Found {
    /// Whether both copies would have to be written again: the primary is damaged, or the backup is not at the disk's end.
    #[must_use]
    pub const fn needs_repair(&self) -> bool {
        self.primary.is_some() || self.backup_at != self.table.geometry.sectors() - 1
    }
}

/// No table could be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadTableError<E> {
    /// Neither copy has a signature: the disk has no such table.
    #[error("no GUID partition table")]
    None,
    #[error("damaged partition table: primary: {primary}; backup: {backup}")]
    Damaged { primary: Damage, backup: Damage },
    #[error("reading the partition table")]
    Read(#[source] E),
}

struct Header {
    backup_at: u64,
    first_usable: u64,
    last_usable: u64,
    disk: Guid,
    entries_at: u64,
    count: u32,
    size: u32,
    entries_crc: u32,
}

/// Reads the table of a disk: the primary copy, else the backup at the disk's end. `read_at` fills a buffer from an offset
/// in bytes; what it is asked for lies within the disk and is never larger than 512 KiB.
///
/// # Errors
/// See [`ReadTableError`].
pub fn read<E>(
    geometry: Geometry,
    mut read_at: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
) -> Result<Found, ReadTableError<E>> {
    let primary = match read_copy(geometry, 1, &mut read_at).map_err(ReadTableError::Read)? {
        Ok((table, backup_at)) => return Ok(Found { table, copy: Copy::Primary, primary: None, backup_at }),
        Err(damage) => damage,
    };
    let last = geometry.sectors() - 1;
    match read_copy(geometry, last, &mut read_at).map_err(ReadTableError::Read)? {
        Ok((table, _)) => Ok(Found { table, copy: Copy::Backup, primary: Some(primary), backup_at: last }),
        Err(Damage::NoSignature) if primary == Damage::NoSignature => Err(ReadTableError::None),
        Err(backup) => Err(ReadTableError::Damaged { primary, backup }),
    }
}

/// The copy at a sector, with the place of the other one; or what is wrong with it.
type CopyResult = Result<(Table, u64), Damage>;

fn read_copy<E>(
    geometry: Geometry,
    at: u64,
    read_at: &mut impl FnMut(u64, &mut [u8]) -> Result<(), E>,
) -> Result<CopyResult, E> {
    let sector_size = u64::from(geometry.sector_size);
    let mut sector = vec![0; geometry.sector_size as usize];
    read_at(at * sector_size, &mut sector)?;
    let header = match header(&sector, at) {
        Ok(header) => header,
        Err(damage) => return Ok(Err(damage)),
    };
    let length = u64::from(header.count) * u64::from(header.size);
    let Some(offset) = header.entries_at.checked_mul(sector_size) else { return Ok(Err(Damage::EntriesOutside)) };
    if offset.checked_add(length).is_none_or(|end| end > geometry.bytes()) {
        return Ok(Err(Damage::EntriesOutside));
    }
    // At most 1024 entries of 512 bytes.
    let mut entries = vec![0; usize::try_from(length).unwrap_or_default()];
    read_at(offset, &mut entries)?;
    Ok(table(geometry, &header, &entries).map(|table| (table, header.backup_at)))
}

fn header(sector: &[u8], at: u64) -> Result<Header, Damage> {
    if sector.get(..8) != Some(SIGNATURE) {
        return Err(Damage::NoSignature);
    }
    let size = u32_at(sector, 12);
    let length = size as usize;
    if length < HEADER_SIZE || length > sector.len() {
        return Err(Damage::HeaderSize(size));
    }
    let mut summed = sector[..length].to_vec();
    summed[16..20].fill(0);
    if crc32fast::hash(&summed) != u32_at(sector, 16) {
        return Err(Damage::HeaderChecksum);
    }
    let own = u64_at(sector, 24);
    if own != at {
        return Err(Damage::Misplaced(own));
    }
    let header = Header {
        backup_at: u64_at(sector, 32),
        first_usable: u64_at(sector, 40),
        last_usable: u64_at(sector, 48),
        disk: guid_at(sector, 56),
        entries_at: u64_at(sector, 72),
        count: u32_at(sector, 80),
        size: u32_at(sector, 84),
        entries_crc: u32_at(sector, 88),
    };
    let sized = header.size.is_power_of_two() && (ENTRY_SIZE..=512).contains(&header.size);
    if header.count == 0 || header.count > MOST_ENTRIES || !sized {
        return Err(Damage::Entries { count: header.count, size: header.size });
    }
    Ok(header)
}

fn table(geometry: Geometry, header: &Header, entries: &[u8]) -> Result<Table, Damage> {
    if crc32fast::hash(entries) != header.entries_crc {
        return Err(Damage::EntriesChecksum);
    }
    let mut table = Table::new(header.disk, geometry);
    for (entry, number) in entries.chunks_exact(header.size as usize).zip(1..) {
        let kind = guid_at(entry, 0);
        if kind == Guid::NIL {
            continue;
        }
        let (first, last) = (u64_at(entry, 32), u64_at(entry, 40));
        let inside = first <= last && first >= header.first_usable && last <= header.last_usable;
        // A header may allow more than the disk has: a disk can be replaced by a smaller one.
        if !inside || first < 2 || last >= geometry.sectors {
            return Err(Damage::Outside { number, first, last });
        }
        let name = name(&entry[56..56 + 2 * NAME_UNITS]);
        table.partitions.push(Partition {
            number,
            kind,
            id: guid_at(entry, 16),
            first,
            last,
            attributes: u64_at(entry, 48),
            name,
        });
    }
    match overlap(&table.partitions) {
        Some((one, other)) => Err(Damage::Overlap(one, other)),
        None => Ok(table),
    }
}

fn overlap(partitions: &[Partition]) -> Option<(u32, u32)> {
    let mut sorted: Vec<_> = partitions.iter().collect();
    sorted.sort_unstable_by_key(|partition| partition.first);
    sorted.windows(2).find(|pair| pair[0].last >= pair[1].first).map(|pair| (pair[0].number, pair[1].number))
}

fn name(bytes: &[u8]) -> String {
    let units = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    let units: Vec<u16> = units.take_while(|unit| *unit != 0).collect();
    String::from_utf16_lossy(&units)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|slice| slice.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|slice| slice.try_into().ok()).map_or(0, u64::from_le_bytes)
}

fn guid_at(bytes: &[u8], at: usize) -> Guid {
    bytes.get(at..at + 16).and_then(|slice| slice.try_into().ok()).map_or(Guid::NIL, Guid::from_bytes)
}
