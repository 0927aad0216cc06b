use std::convert::Infallible;

use proptest::prelude::*;

use super::*;

const MIB: u64 = 1 << 20;

fn table(sector_size: u32, bytes: u64) -> Table {
    let geometry = Geometry::new(sector_size, bytes).unwrap();
    let mut table = Table::new(Guid::from_random([7; 16]), geometry);
    let mib = MIB / u64::from(sector_size);
    for (number, name, first) in [(1, "EFI", 1), (2, "BIOS", 3), (5, "EPHEMERAL", 6)] {
        table.partitions.push(Partition {
            number,
            kind: crate::layout::LINUX_DATA,
            id: Guid::from_random([u8::try_from(number).unwrap(); 16]),
            first: first * mib,
            last: (first + 1) * mib - 1,
            attributes: if name == "BIOS" { LEGACY_BIOS_BOOTABLE } else { 0 },
            name: name.into(),
        });
    }
    table
}

fn disk(table: &Table) -> Vec<u8> {
    let mut disk = vec![0; usize::try_from(table.geometry.bytes()).unwrap()];
    for region in writes(table, ProtectiveEntry::Inactive, b"code") {
        put(&mut disk, &region);
    }
    disk
}

fn put(disk: &mut [u8], region: &Region) {
    let at = usize::try_from(region.offset).unwrap();
    disk[at..at + region.bytes.len()].copy_from_slice(&region.bytes);
}

fn read_bytes(geometry: Geometry, disk: &[u8]) -> Result<Found, ReadTableError<Infallible>> {
    read(geometry, |offset, buffer| {
        let at = usize::try_from(offset).unwrap();
        buffer.copy_from_slice(&disk[at..at + buffer.len()]);
        Ok(())
    })
}

#[test]
fn a_table_is_read_as_it_was_written() {
    for sector_size in [512, 4096] {
        let table = table(sector_size, 16 * MIB);
        let disk = disk(&table);
        let found = read_bytes(table.geometry, &disk).unwrap();
        assert_eq!(found.table, table);
        assert_eq!((found.copy, found.needs_repair()), (Copy::Primary, false));
        assert_eq!(&disk[..4], b"code");
        assert_eq!(disk[510..512], [0x55, 0xaa]);
    }
}

#[test]
fn a_damaged_primary_copy_is_replaced_by_the_backup() {
    let table = table(512, 16 * MIB);
    for at in [512, 600, 1024 + 60] {
        let mut disk = disk(&table);
        disk[at] ^= 1;
        let found = read_bytes(table.geometry, &disk).unwrap();
        assert_eq!((&found.table, found.copy, found.needs_repair()), (&table, Copy::Backup, true));
    }
}

#[test]
fn a_disk_that_has_grown_needs_its_backup_moved() {
    let small = table(512, 16 * MIB);
    let mut disk = disk(&small);
    disk.resize(usize::try_from(20 * MIB).unwrap(), 0);
    let found = read_bytes(Geometry::new(512, 20 * MIB).unwrap(), &disk).unwrap();
    assert!(found.needs_repair());
    assert_eq!(found.table.partitions, small.partitions);
    let last = found.table.by_name("EPHEMERAL").unwrap();
    assert_eq!(found.table.last_free_after(last), found.table.geometry.last_usable());
}

#[test]
fn a_power_cut_between_the_writes_leaves_one_whole_table() {
    let old = table(512, 16 * MIB);
    let mut new = old.clone();
    new.partitions.truncate(1);
    let regions = writes(&new, ProtectiveEntry::Inactive, b"");
    // Every prefix of the sectors that are written, in order.
    let sectors: Vec<Region> = regions
        .iter()
        .flat_map(|region| {
            region
                .bytes
                .chunks(512)
                .zip(0u64..)
                .map(|(chunk, index)| Region { offset: region.offset + 512 * index, bytes: chunk.to_vec() })
        })
        .collect();
    let mut disk = disk(&old);
    for sector in &sectors {
        put(&mut disk, sector);
        let found = read_bytes(old.geometry, &disk).unwrap();
        assert!(found.table == old || found.table == new);
    }
    assert_eq!(read_bytes(old.geometry, &disk).unwrap().table, new);
}

/// Changes a header and mends its checksum, as somebody would who wants it to be believed.
fn forged(change: impl FnOnce(&mut [u8])) -> Result<Found, ReadTableError<Infallible>> {
    let table = table(512, 16 * MIB);
    let mut disk = disk(&table);
    let end = disk.len();
    disk[end - 512..].fill(0);
    let header = &mut disk[512..1024];
    change(header);
    header[16..20].fill(0);
    let crc = crc32fast::hash(&header[..92]);
    header[16..20].copy_from_slice(&crc.to_le_bytes());
    read_bytes(table.geometry, &disk)
}

#[test]
fn numbers_of_a_forged_header_reserve_no_memory_and_read_no_foreign_place() {
    type Change = (usize, &'static [u8], fn(&Damage) -> bool);
    let changes: [Change; 5] = [
        (80, &[0xff; 4], |damage| matches!(damage, Damage::Entries { count: u32::MAX, .. })),
        (84, &[0xff; 4], |damage| matches!(damage, Damage::Entries { size: u32::MAX, .. })),
        (72, &[0xff; 8], |damage| matches!(damage, Damage::EntriesOutside)),
        (24, &[9], |damage| matches!(damage, Damage::Misplaced(9))),
        (48, &[0; 8], |damage| matches!(damage, Damage::Outside { number: 1, .. })),
    ];
    for (at, bytes, expected) in changes {
        let result = forged(|header| header[at..at + bytes.len()].copy_from_slice(bytes));
        let Err(ReadTableError::Damaged { primary, .. }) = result else { panic!("{result:?}") };
        assert!(expected(&primary), "{primary:?}");
    }
}

#[test]
fn overlapping_partitions_are_damage() {
    let mut table = table(512, 16 * MIB);
    table.partitions[1].first = table.partitions[0].last;
    let result = read_bytes(table.geometry, &disk(&table));
    assert!(matches!(result, Err(ReadTableError::Damaged { primary: Damage::Overlap(1, 2), .. })), "{result:?}");
}

#[test]
fn an_empty_disk_has_no_table() {
    let geometry = Geometry::new(512, 16 * MIB).unwrap();
    let result = read_bytes(geometry, &vec![0; usize::try_from(16 * MIB).unwrap()]);
    assert!(matches!(result, Err(ReadTableError::None)), "{result:?}");
    assert_eq!(Geometry::new(512, 20 * 1024), Err(GeometryError::TooSmall { bytes: 20 * 1024 }));
    assert_eq!(Geometry::new(520, 16 * MIB), Err(GeometryError::SectorSize(520)));
}

#[test]
fn guids_have_the_byte_order_of_the_disk() {
    let guid: Guid = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B".parse().unwrap();
    assert_eq!(guid.bytes()[..8], [0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11]);
    assert_eq!(guid.to_string(), "c12a7328-f81f-11d2-ba4b-00a0c93ec93b");
    assert_eq!("c12a7328f81f11d2ba4b00a0c93ec93b".parse::<Guid>(), Err(ParseGuidError));
    let random = Guid::from_random([0xff; 16]).to_string();
    assert_eq!(random, "ffffffff-ffff-4fff-bfff-ffffffffffff");
}

/// The smallest disk: both copies, and few sectors between them.
fn small() -> Table {
    let geometry = Geometry::new(512, 512 * 100).unwrap();
    let mut table = Table::new(Guid::from_random([7; 16]), geometry);
    for (number, first) in [(1, 34), (2, 40)] {
        let id = Guid::from_random([u8::try_from(number).unwrap(); 16]);
        let kind = crate::layout::LINUX_DATA;
        table.partitions.push(Partition { number, kind, id, first, last: first + 3, attributes: 0, name: "A".into() });
    }
    table
}

/// What holds for a table of any disk, as nothing after the parser looks at its numbers again.
fn is_within_its_disk(geometry: Geometry, found: &Found) -> Result<(), TestCaseError> {
    let table = &found.table;
    prop_assert_eq!(table.geometry, geometry);
    for (index, one) in table.partitions.iter().enumerate() {
        prop_assert!(one.number >= 1 && one.first <= one.last && one.last < geometry.sectors(), "{:?}", one);
        prop_assert!(one.offset(geometry) + one.size(geometry) <= geometry.bytes(), "{:?}", one);
        for other in &table.partitions[..index] {
            prop_assert!(one.last < other.first || other.last < one.first, "{:?} and {:?}", one, other);
            prop_assert!(other.number < one.number, "{:?} and {:?}", one, other);
        }
    }
    Ok(())
}

/// Makes the checksums of a header right, so that what it says is looked at.
fn seal(disk: &mut [u8], header_at: usize) {
    let word = |disk: &[u8], at: usize| u32::from_le_bytes(disk[at..at + 4].try_into().unwrap());
    let size = usize::try_from(word(disk, header_at + 12)).unwrap();
    let entries_at = u64::from_le_bytes(disk[header_at + 72..header_at + 80].try_into().unwrap());
    let length = u64::from(word(disk, header_at + 80)) * u64::from(word(disk, header_at + 84));
    let range = entries_at.checked_mul(512).and_then(|at| {
        let end = at.checked_add(length)?;
        Some(usize::try_from(at).ok()?..usize::try_from(end).ok()?)
    });
    if let Some(entries) = range.and_then(|range| disk.get(range)) {
        let checksum = crc32fast::hash(entries);
        disk[header_at + 88..header_at + 92].copy_from_slice(&checksum.to_le_bytes());
    }
    disk[header_at + 16..header_at + 20].fill(0);
    if let Some(header) = disk.get(header_at..header_at + size) {
        let checksum = crc32fast::hash(header);
        disk[header_at + 16..header_at + 20].copy_from_slice(&checksum.to_le_bytes());
    }
}

proptest! {
    #[test]
    fn any_bytes_are_no_table_or_one_within_its_disk(bytes in prop::collection::vec(any::<u8>(), 512 * 100), signed: bool) {
        let geometry = small().geometry;
        let mut bytes = bytes;
        if signed {
            bytes[512..520].copy_from_slice(b"EFI PART");
            bytes[524..528].copy_from_slice(&92_u32.to_le_bytes());
            seal(&mut bytes, 512);
        }
        if let Ok(found) = read_bytes(geometry, &bytes) {
            is_within_its_disk(geometry, &found)?;
        }
    }

    /// Changes of the header and of the first entries, with checksums that are right.
    #[test]
    fn a_table_with_any_numbers_has_no_partition_outside_its_disk(
        header in prop::collection::vec((8_usize..92, any::<u8>()), 0..6),
        entries in prop::collection::vec((0_usize..512, any::<u8>()), 0..12),
        words in prop::collection::vec((0_usize..4, 0_usize..2, prop_oneof![0_u64..120, any::<u64>()]), 0..4),
    ) {
        let table = small();
        let mut disk = disk(&table);
        for (at, byte) in header {
            disk[512 + at] = byte;
        }
        for (at, byte) in entries {
            disk[1024 + at] = byte;
        }
        for (entry, which, word) in words {
            let at = 1024 + entry * 128 + 32 + which * 8;
            disk[at..at + 8].copy_from_slice(&word.to_le_bytes());
        }
        seal(&mut disk, 512);
        if let Ok(found) = read_bytes(table.geometry, &disk) {
            is_within_its_disk(table.geometry, &found)?;
        }
    }
}
