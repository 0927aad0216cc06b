//! File systems of other systems, and the old partition table.

use super::Content;
use super::fields::{bytes, has, is_block_size, le16, le32, le64, text};

/// The end of a sector that firmware boots from.
fn is_boot_sector(head: &[u8]) -> bool {
    has(head, 510, &[0x55, 0xaa])
}

/// There is no signature beside that of any boot sector: the numbers have to make sense together.
pub(super) fn vfat(head: &[u8]) -> Option<Content> {
    if !is_boot_sector(head) {
        return None;
    }
    let sector = u32::from(le16(head, 11)?);
    let (cluster, fats, media) = (*head.get(13)?, *head.get(16)?, *head.get(21)?);
    let makes_sense = (512..=4096).contains(&sector)
        && sector.is_power_of_two()
        && cluster.is_power_of_two()
        && le16(head, 14)? > 0
        && (1..=2).contains(&fats)
        && (media == 0xf0 || media >= 0xf8);
    if !makes_sense {
        return None;
    }
    let is_fat32 = le16(head, 22)? == 0;
    let (kind_at, label_at, id_at) = if is_fat32 { (82, 71, 67) } else { (54, 43, 39) };
    if !has(head, kind_at, b"FAT") && !has(head, 3, b"MSDOS") {
        return None;
    }
    let sectors = match le16(head, 19)? {
        0 => u64::from(le32(head, 32)?),
        few => u64::from(few),
    };
    let label = Some(text(head, label_at, 11)).filter(|label| label != "NO NAME").unwrap_or_default();
    let id = le32(head, id_at)?;
    Some(Content {
        name: "vfat",
        label,
        uuid: if id == 0 { String::new() } else { format!("{:04X}-{:04X}", id >> 16, id & 0xffff) },
        block_size: sector,
        filesystem_block_size: sector * u32::from(cluster),
        size: sectors.saturating_mul(u64::from(sector)),
    })
}

/// Volume descriptors follow each other from sector 16; the primary one has the label.
pub(super) fn iso9660(head: &[u8]) -> Option<Content> {
    const SECTOR: usize = 2048;
    const PRIMARY: u8 = 1;
    const END: u8 = 255;
    for sector in 16..32 {
        let descriptor = bytes(head, sector * SECTOR, SECTOR)?;
        if !has(descriptor, 1, b"CD001") || descriptor[0] == END {
            return None;
        }
        if descriptor[0] != PRIMARY {
            continue;
        }
        let block = u32::from(le16(descriptor, 128)?);
        if !is_block_size(block) {
            return None;
        }
        return Some(Content {
            name: "iso9660",
            label: text(descriptor, 40, 32),
            uuid: String::new(),
            block_size: block,
            filesystem_block_size: block,
            size: u64::from(le32(descriptor, 80)?).saturating_mul(u64::from(block)),
        });
    }
    None
}

pub(super) fn exfat(head: &[u8]) -> Option<Content> {
    if !has(head, 3, b"EXFAT   ") || !is_boot_sector(head) {
        return None;
    }
    let shift = *head.get(108)?;
    let sector = 1_u32.checked_shl(shift.into()).filter(|size| is_block_size(*size))?;
    let size = le64(head, 72)?.saturating_mul(u64::from(sector));
    Some(Content { name: "exfat", block_size: sector, size, ..Content::default() })
}

pub(super) fn ntfs(head: &[u8]) -> Option<Content> {
    if !has(head, 3, b"NTFS    ") || !is_boot_sector(head) {
        return None;
    }
    let sector = u32::from(le16(head, 11)?);
    if !is_block_size(sector) {
        return None;
    }
    let size = le64(head, 40)?.saturating_mul(u64::from(sector));
    Some(Content { name: "ntfs", block_size: sector, size, ..Content::default() })
}

/// A partition table of the old kind with at least one partition. The protective one of a GUID partition table counts:
/// where that table is damaged, the disk is not empty.
pub(super) fn dos(head: &[u8]) -> Option<Content> {
    if !is_boot_sector(head) {
        return None;
    }
    let entries = bytes(head, 446, 64)?.chunks_exact(16);
    let (used, empty): (Vec<_>, Vec<_>) = entries.partition(|entry| entry[4] != 0);
    let makes_sense = !used.is_empty()
        && used.iter().all(|entry| matches!(entry[0], 0 | 0x80) && le32(entry, 12).is_some_and(|sectors| sectors > 0))
        && empty.iter().all(|entry| entry[8..].iter().all(|byte| *byte == 0));
    makes_sense.then(|| Content { name: "dos", block_size: 512, ..Content::default() })
}
