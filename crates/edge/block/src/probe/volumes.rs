//! What holds other content: encrypted, pooled and combined volumes; and META.

use machine::meta;

use super::Content;
use super::fields::{be16, bytes, has, le32, le64, text, uuid};

pub(super) fn luks(head: &[u8]) -> Option<Content> {
    if !has(head, 0, b"LUKS\xba\xbe") {
        return None;
    }
    let label = match be16(head, 6)? {
        1 => String::new(),
        2 => text(head, 24, 48),
        _ => return None,
    };
    Some(Content { name: "luks", label, uuid: text(head, 168, 40), ..Content::default() })
}

/// The label is in one of the first four sectors, and says where in it the header is.
pub(super) fn lvm2(head: &[u8]) -> Option<Content> {
    let groups = [6, 4, 4, 4, 4, 4, 6];
    (0..4).find_map(|sector| {
        let label = bytes(head, sector * 512, 512)?;
        if !has(label, 0, b"LABELONE") || !has(label, 24, b"LVM2 001") {
            return None;
        }
        let at = usize::try_from(le32(label, 20)?).ok()?;
        let id = bytes(label, at, 32)?;
        let size = bytes(label, at + 32, 8).and_then(|_| le64(label, at + 32))?;
        if !id.iter().all(u8::is_ascii_alphanumeric) {
            return None;
        }
        let mut rest = std::str::from_utf8(id).ok()?;
        let mut parts = Vec::with_capacity(groups.len());
        for length in groups {
            let (part, tail) = rest.split_at_checked(length)?;
            parts.push(part);
            rest = tail;
        }
        Some(Content { name: "lvm2-pv", uuid: parts.join("-"), size, ..Content::default() })
    })
}

pub(super) fn bluestore(head: &[u8]) -> Option<Content> {
    const MAGIC: &[u8] = b"bluestore block device\n";
    has(head, 0, MAGIC).then(|| {
        let id = text(head, MAGIC.len(), 36);
        let is_uuid = id.len() == 36 && id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
        Content { name: "bluestore", uuid: if is_uuid { id } else { String::new() }, ..Content::default() }
    })
}

/// Members of Linux' own RAID whose superblock is at the beginning (versions 1.1 and 1.2).
pub(super) fn raid(head: &[u8]) -> Option<Content> {
    const MAGIC: u32 = 0xa92b_4efc;
    [0, 4096].into_iter().find_map(|at| {
        let block = bytes(head, at, 256)?;
        if le32(block, 0)? != MAGIC || le32(block, 4)? != 1 {
            return None;
        }
        Some(Content { name: "linux-raid", label: text(block, 32, 32), uuid: uuid(block, 16), ..Content::default() })
    })
}

/// Either copy of META is whole.
pub(super) fn meta(head: &[u8]) -> Option<Content> {
    let is_meta = head.len() >= meta::COPY_SIZE && meta::Meta::parse(&head[..meta::COPY_SIZE]).copies[0].is_ok();
    is_meta.then(|| Content { name: "talosmeta", ..Content::default() })
}
