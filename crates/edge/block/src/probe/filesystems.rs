//! File systems and swap areas of Linux.

use super::Content;
use super::fields::{be16, be32, be64, bytes, has, is_block_size, le32, le64, text, uuid};

pub(super) fn xfs(head: &[u8]) -> Option<Content> {
    if !has(head, 0, b"XFSB") {
        return None;
    }
    let (block, sector) = (be32(head, 4)?, u32::from(be16(head, 102)?));
    if !is_block_size(block) || !is_block_size(sector) {
        return None;
    }
    // An internal log is not for data.
    let log = if be64(head, 48)? == 0 { 0 } else { u64::from(be32(head, 96)?) };
    Some(Content {
        name: "xfs",
        label: text(head, 108, 12),
        uuid: uuid(head, 32),
        block_size: sector,
        filesystem_block_size: block,
        size: be64(head, 8)?.saturating_sub(log).saturating_mul(u64::from(block)),
    })
}

pub(super) fn ext(head: &[u8]) -> Option<Content> {
    let head = head.get(1024..)?;
    if !has(head, 56, &[0x53, 0xef]) {
        return None;
    }
    let shift = le32(head, 24).filter(|shift| *shift <= 6)?;
    let block = 1024_u32 << shift;
    let has_64_bits = le32(head, 96)? & 0x80 != 0;
    let high = if has_64_bits { u64::from(le32(head, 0x150)?) << 32 } else { 0 };
    let blocks = high | u64::from(le32(head, 4)?);
    Some(Content {
        name: "extfs",
        label: text(head, 120, 16),
        uuid: uuid(head, 104),
        block_size: block,
        filesystem_block_size: block,
        size: blocks.saturating_mul(u64::from(block)),
    })
}

pub(super) fn btrfs(head: &[u8]) -> Option<Content> {
    let head = head.get(65536..)?;
    if !has(head, 64, b"_BHRfS_M") {
        return None;
    }
    let sector = le32(head, 144).filter(|size| is_block_size(*size))?;
    Some(Content {
        name: "btrfs",
        label: text(head, 299, 256),
        uuid: uuid(head, 32),
        block_size: sector,
        filesystem_block_size: sector,
        size: le64(head, 112)?,
    })
}

pub(super) fn squashfs(head: &[u8]) -> Option<Content> {
    if !has(head, 0, b"hsqs") {
        return None;
    }
    let block = le32(head, 12).filter(|size| is_block_size(*size))?;
    let content = Content { name: "squashfs", block_size: block, filesystem_block_size: block, ..Content::default() };
    Some(Content { size: le64(head, 40)?, ..content })
}

/// The signature is at the end of the first page, whose size is that of the machine which made it.
pub(super) fn swap(head: &[u8]) -> Option<Content> {
    let pages = [4096_u32, 8192, 16384, 32768, 65536];
    let page = pages.into_iter().find(|page| {
        let at = *page as usize - 10;
        has(head, at, b"SWAPSPACE2") || has(head, at, b"SWAP-SPACE")
    })?;
    let (label, id) = if has(head, page as usize - 10, b"SWAPSPACE2") {
        (text(head, 1052, 16), uuid(head, 1036))
    } else {
        (String::new(), String::new())
    };
    let size = u64::from(le32(head, 1028)?).saturating_mul(u64::from(page));
    Some(Content { name: "swap", label, uuid: id, block_size: page, filesystem_block_size: page, size })
}

/// The uberblocks of the first label; there are many, of which a young pool has written few.
pub(super) fn zfs(head: &[u8]) -> Option<Content> {
    const MAGIC: u64 = 0x00ba_b10c;
    let written = (128 * 1024..256 * 1024).step_by(1024).any(|at| {
        let word: Option<[u8; 8]> = bytes(head, at, 8).and_then(|bytes| bytes.try_into().ok());
        word.is_some_and(|word| u64::from_le_bytes(word) == MAGIC || u64::from_be_bytes(word) == MAGIC)
    });
    written.then(|| Content { name: "zfs", ..Content::default() })
}
