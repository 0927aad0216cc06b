//! Writes cpio archives in the form "newc" that the kernel unpacks as its first root. Owner is root and the time
//! [`crate::EPOCH`], so that equal content gives equal bits.

use crate::EPOCH;
use crate::tree::{Kind, Tree};

/// `tree` as an archive. Directories come before their content.
#[must_use]
pub fn archive(tree: &Tree) -> Vec<u8> {
    let mut out = Vec::new();
    let mut number = 0;
    for (path, node) in tree.iter() {
        number += 1;
        let (kind, links, content) = match &node.kind {
            Kind::Dir => (0o040_000, 2, &[][..]),
            Kind::File(content) => (0o100_000, 1, &content[..]),
            Kind::Link(to) => (0o120_000, 1, to.as_bytes()),
        };
        entry(&mut out, path.trim_start_matches('/'), number, kind | u32::from(node.mode), links, content);
    }
    entry(&mut out, "TRAILER!!!", 0, 0, 1, &[]);
    out
}

fn entry(out: &mut Vec<u8>, name: &str, number: u32, mode: u32, links: u32, content: &[u8]) {
    let time = if mode == 0 { 0 } else { EPOCH };
    // Inode, mode, owner, group, links, time, size, device, device of the node, length of the name, no checksum.
    let fields =
        [number, mode, 0, 0, links, time, size(content.len()), 0, 0, 0, 0, size(name.len()).saturating_add(1), 0];
    out.extend_from_slice(b"070701");
    for field in fields {
        out.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    out.extend_from_slice(name.as_bytes());
    out.push(0);
    pad(out);
    out.extend_from_slice(content);
    pad(out);
}

/// A length as the format has it; larger files than it can express end as too large an image long before.
fn size(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Node;

    #[test]
    fn headers_are_aligned_and_say_what_follows() {
        let mut tree = Tree::default();
        tree.place("/dir/init", Node::file(*b"hello", true)).unwrap();
        tree.place("/dir/link", Node::link("init")).unwrap();
        let bytes = archive(&tree);
        let mut at = 0;
        let mut seen = Vec::new();
        loop {
            let field = |index: usize| {
                let text = std::str::from_utf8(&bytes[at + 6 + index * 8..at + 14 + index * 8]).unwrap();
                usize::from_str_radix(text, 16).unwrap()
            };
            assert_eq!(&bytes[at..at + 6], b"070701");
            let (mode, length, name) = (field(1), field(6), field(11));
            let text = String::from_utf8(bytes[at + 110..at + 110 + name - 1].to_vec()).unwrap();
            let start = (at + 110 + name).next_multiple_of(4);
            if text == "TRAILER!!!" {
                assert_eq!(start, bytes.len());
                break;
            }
            seen.push((text, mode, bytes[start..start + length].to_vec()));
            at = (start + length).next_multiple_of(4);
        }
        let wanted = [
            ("dir".to_owned(), 0o040_755, vec![]),
            ("dir/init".to_owned(), 0o100_755, b"hello".to_vec()),
            ("dir/link".to_owned(), 0o120_777, b"init".to_vec()),
        ];
        assert_eq!(seen, wanted);
    }
}
