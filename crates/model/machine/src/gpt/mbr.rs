//! The protective MBR in front of a partition table, and the boot code in it.

use super::Geometry;

/// Bytes of the MBR that hold boot code; the signature of the disk and the partition entries follow.
pub const BOOT_CODE_SIZE: usize = 440;
const ENTRY: usize = 446;
const SIGNATURE: [u8; 2] = [0x55, 0xaa];

/// Whether the protective entry is marked active: some BIOSes boot only from a disk with an active entry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ProtectiveEntry {
    #[default]
    Inactive,
    Active,
}

/// A protective MBR without boot code.
#[must_use]
pub fn protective_mbr(geometry: Geometry, entry: ProtectiveEntry) -> [u8; 512] {
    let mut mbr = [0; 512];
    let sectors = u32::try_from(geometry.sectors() - 1).unwrap_or(u32::MAX);
    let line = &mut mbr[ENTRY..ENTRY + 16];
    line[0] = if entry == ProtectiveEntry::Active { 0x80 } else { 0 };
    // Cylinder, head and sector of LBA 1, then the type, then the largest address that this form has.
    line[1..8].copy_from_slice(&[0x00, 0x02, 0x00, 0xee, 0xff, 0xff, 0xff]);
    line[8..12].copy_from_slice(&1u32.to_le_bytes());
    line[12..16].copy_from_slice(&sectors.to_le_bytes());
    mbr[510..].copy_from_slice(&SIGNATURE);
    mbr
}

/// Puts boot code into an MBR, and leaves its entries as they are. Code beyond [`BOOT_CODE_SIZE`] is not taken.
pub fn set_boot_code(mbr: &mut [u8; 512], code: &[u8]) {
    let length = code.len().min(BOOT_CODE_SIZE);
    mbr[..BOOT_CODE_SIZE].fill(0);
    mbr[..length].copy_from_slice(&code[..length]);
}
