//! Writing of tables, in an order that survives a power cut.

use super::{ENTRIES, ENTRY_SIZE, NAME_UNITS, ProtectiveEntry, Table, protective_mbr};

/// Bytes for a place of the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region {
    /// In bytes from the start of the disk.
    pub offset: u64,
    pub bytes: Vec<u8>,
}

/// What to write for a table, in this order and with a flush of the disk after each: the backup first, so that one of both
/// copies is whole at any time. The second region starts with the MBR, whose boot code is kept from `boot_code`.
///
/// With sectors of 512 bytes, the MBR, the header and the first 24 entries are the first 4 KiB of the second region; a disk
/// with physical sectors of that size replaces them at once.
#[must_use]
pub fn writes(table: &Table, entry: ProtectiveEntry, boot_code: &[u8]) -> [Region; 2] {
    let geometry = table.geometry;
    let sector = geometry.sector_size as usize;
    let size = u64::from(geometry.sector_size);
    let last = geometry.sectors - 1;
    let mut entries = entries(table);
    let crc = crc32fast::hash(&entries);
    let array_sectors = usize::try_from(geometry.entry_sectors()).unwrap_or_default();
    entries.resize(array_sectors * sector, 0);

    let backup_entries = geometry.last_usable() + 1;
    let mut backup = entries.clone();
    backup.extend(header(table, last, 1, backup_entries, crc));

    let mut mbr = protective_mbr(geometry, entry);
    super::set_boot_code(&mut mbr, boot_code);
    let mut primary = mbr.to_vec();
    primary.resize(sector, 0);
    primary.extend(header(table, 1, last, 2, crc));
    primary.extend(entries);
    [Region { offset: backup_entries * size, bytes: backup }, Region { offset: 0, bytes: primary }]
}

fn entries(table: &Table) -> Vec<u8> {
    let mut entries = vec![0; (ENTRIES * ENTRY_SIZE) as usize];
    for partition in &table.partitions {
        let Some(index) = partition.number.checked_sub(1).filter(|index| *index < ENTRIES) else { continue };
        let entry = &mut entries[(index * ENTRY_SIZE) as usize..][..ENTRY_SIZE as usize];
        entry[..16].copy_from_slice(&partition.kind.bytes());
        entry[16..32].copy_from_slice(&partition.id.bytes());
        entry[32..40].copy_from_slice(&partition.first.to_le_bytes());
        entry[40..48].copy_from_slice(&partition.last.to_le_bytes());
        entry[48..56].copy_from_slice(&partition.attributes.to_le_bytes());
        for (unit, place) in partition.name.encode_utf16().take(NAME_UNITS).zip(entry[56..].chunks_exact_mut(2)) {
            place.copy_from_slice(&unit.to_le_bytes());
        }
    }
    entries
}

/// The sector with a header at `own`.
fn header(table: &Table, own: u64, other: u64, entries_at: u64, entries_crc: u32) -> Vec<u8> {
    let geometry = table.geometry;
    let mut header = Vec::with_capacity(geometry.sector_size as usize);
    header.extend(b"EFI PART");
    for number in [0x0001_0000u32, 92, 0, 0] {
        header.extend(number.to_le_bytes());
    }
    for number in [own, other, geometry.first_usable(), geometry.last_usable()] {
        header.extend(number.to_le_bytes());
    }
    header.extend(table.disk.bytes());
    header.extend(entries_at.to_le_bytes());
    for number in [ENTRIES, ENTRY_SIZE, entries_crc] {
        header.extend(number.to_le_bytes());
    }
    let crc = crc32fast::hash(&header);
    header[16..20].copy_from_slice(&crc.to_le_bytes());
    header.resize(geometry.sector_size as usize, 0);
    header
}
