//! Makes the XFS of an image depend on its content only: `mkfs.xfs` writes the current time and random generation numbers
//! into the inodes of files that it adds. This finds the inodes, replaces both, and renews their checksums.

use std::io::{Read, Seek, SeekFrom, Write};

use crate::EPOCH;

/// Smallest size and alignment of inodes.
const STEP: usize = 512;

/// Bytes of an inode that are looked at.
const CORE: usize = 176;

/// Read at once.
const CHUNK: usize = 1 << 20;

/// Sets times to [`crate::EPOCH`] and generations to 0 in all inodes of the XFS that begins at `start` and has `size` bytes;
/// returns how many there were.
///
/// # Errors
/// No XFS there, or a failed read or write.
pub fn normalize(image: &mut (impl Read + Write + Seek), start: u64, size: u64) -> std::io::Result<usize> {
    let mut head = [0; STEP];
    image.seek(SeekFrom::Start(start))?;
    image.read_exact(&mut head)?;
    let no_xfs = || std::io::Error::other("not an XFS with checksums");
    let version = u16::from_be_bytes([head[100], head[101]]) & 0xf;
    let inode = usize::from(u16::from_be_bytes([head[104], head[105]]));
    if !head.starts_with(b"XFSB") || version != 5 || !(STEP..=2048).contains(&inode) || !inode.is_power_of_two() {
        return Err(no_xfs());
    }
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&head[32..48]);
    let mut buffer = vec![0; CHUNK];
    let mut found = 0;
    let mut at = 0;
    while at < size {
        let length = usize::try_from((size - at).min(CHUNK as u64)).unwrap_or(CHUNK);
        let chunk = &mut buffer[..length];
        image.seek(SeekFrom::Start(start + at))?;
        image.read_exact(chunk)?;
        let mut changed = 0;
        for node in chunk.chunks_exact_mut(inode) {
            changed += usize::from(is_inode(node, &uuid) && change(node));
        }
        if changed > 0 {
            image.seek(SeekFrom::Start(start + at))?;
            image.write_all(&buffer[..length])?;
        }
        found += changed;
        at += length as u64;
    }
    Ok(found)
}

/// Whether these are the bytes of an inode with a right checksum.
fn is_inode(node: &[u8], uuid: &[u8; 16]) -> bool {
    node.len() >= CORE && node.starts_with(b"IN") && node[4] == 3 && node[160..176] == uuid[..] && {
        let stored = u32::from_le_bytes([node[100], node[101], node[102], node[103]]);
        checksum(node) == stored
    }
}

fn change(node: &mut [u8]) -> bool {
    // Bit 3 of the second flags: times are nanoseconds since 1901, not seconds and nanoseconds.
    let wide = node[127] & 8 != 0;
    let time = if wide {
        ((u64::from(EPOCH) + (1 << 31)) * 1_000_000_000).to_be_bytes()
    } else {
        (u64::from(EPOCH) << 32).to_be_bytes()
    };
    for at in [32, 40, 48, 144] {
        node[at..at + 8].copy_from_slice(&time);
    }
    node[92..96].fill(0);
    let sum = checksum(node);
    node[100..104].copy_from_slice(&sum.to_le_bytes());
    true
}

/// CRC32C of an inode, its own field being zero.
fn checksum(node: &[u8]) -> u32 {
    let bytes = node.iter().enumerate().map(|(at, byte)| if (100..104).contains(&at) { 0 } else { *byte });
    !bytes.fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| if sum & 1 == 1 { (sum >> 1) ^ 0x82f6_3b78 } else { sum >> 1 })
    })
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn image(generation: u8) -> Vec<u8> {
        let mut image = vec![0; 4 << 20];
        let start = 1 << 20;
        image[start..start + 4].copy_from_slice(b"XFSB");
        image[start + 32..start + 48].fill(7);
        image[start + 101] = 0xb5;
        image[start + 104..start + 106].copy_from_slice(&512_u16.to_be_bytes());
        for (at, uuid) in [(start + 8192, 7), (start + 16_384, 8)] {
            let node = &mut image[at..at + 512];
            node[..2].copy_from_slice(b"IN");
            node[4] = 3;
            node[127] = 8;
            node[35] = generation;
            node[95] = generation;
            node[160..176].fill(uuid);
            let sum = checksum(node);
            node[100..104].copy_from_slice(&sum.to_le_bytes());
        }
        image
    }

    #[test]
    fn inodes_of_the_file_system_lose_what_differs_from_run_to_run() {
        let [mut one, mut two] = [image(1), image(2)];
        for image in [&mut one, &mut two] {
            assert_eq!(normalize(&mut Cursor::new(&mut image[..]), 1 << 20, 3 << 20).unwrap(), 1);
        }
        let node = (1 << 20) + 8192;
        assert!(one[node..node + 512] == two[node..node + 512]);
        assert!(is_inode(&one[node..node + 512], &[7; 16]));
        // Of another file system: left alone.
        assert_eq!(one[(1 << 20) + 16_384 + 95], 1);
        let error = normalize(&mut Cursor::new(&mut one[..]), 0, 1 << 20).unwrap_err();
        assert_eq!(error.to_string(), "not an XFS with checksums");
    }

    #[test]
    fn the_checksum_is_crc32c() {
        let mut bytes = vec![0; 100];
        bytes.extend([0; 4]);
        assert_eq!(checksum(&bytes[..0]), 0);
        // 32 zeros, from RFC 3720.
        assert_eq!(checksum(&bytes[..32]), 0x8a91_36aa);
    }
}
