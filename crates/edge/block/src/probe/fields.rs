//! Fields of fixed structures, each read with a check of the bounds.

use super::LABEL;

pub(super) fn bytes(head: &[u8], at: usize, length: usize) -> Option<&[u8]> {
    head.get(at..at.checked_add(length)?)
}

pub(super) fn has(head: &[u8], at: usize, magic: &[u8]) -> bool {
    bytes(head, at, magic.len()) == Some(magic)
}

macro_rules! numbers {
    ($($name:ident: $type:ty, $from:ident;)*) => {$(
        pub(super) fn $name(head: &[u8], at: usize) -> Option<$type> {
            Some(<$type>::$from(bytes(head, at, size_of::<$type>())?.try_into().ok()?))
        }
    )*};
}

numbers! {
    le16: u16, from_le_bytes;
    le32: u32, from_le_bytes;
    le64: u64, from_le_bytes;
    be16: u16, from_be_bytes;
    be32: u32, from_be_bytes;
    be64: u64, from_be_bytes;
}

/// A text that ends with its field or at a NUL. Characters that could disturb a terminal are dropped.
pub(super) fn text(head: &[u8], at: usize, length: usize) -> String {
    let field = bytes(head, at, length).unwrap_or_default();
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    let text = String::from_utf8_lossy(&field[..end]);
    let printable: String = text.chars().filter(|c| !c.is_control()).take(LABEL).collect();
    printable.trim_end().to_owned()
}

/// 16 bytes as `8-4-4-4-12` digits; empty for zeros.
pub(super) fn uuid(head: &[u8], at: usize) -> String {
    let field = bytes(head, at, 16).unwrap_or_default();
    if field.iter().all(|byte| *byte == 0) {
        return String::new();
    }
    let mut out = String::with_capacity(36);
    for (index, byte) in field.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            out.push('-');
        }
        out.push_str(&format!("{byte:02x}"));
    }
    out
}

/// Whether a size of blocks or sectors is one that exists.
pub(super) fn is_block_size(size: u32) -> bool {
    size.is_power_of_two() && (512..=1 << 20).contains(&size)
}
