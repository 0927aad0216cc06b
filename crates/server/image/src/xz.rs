//! The xz container around data that is compressed already: its chunks are stored, so that unpacking is copying. The
//! kernel unpacks an initramfs of that kind at the speed of memory, and every tool that reads `.xz` can, too.

use flate2::Crc;

/// Check of the stream: CRC32, the only one that the kernel knows beside none.
const FLAGS: [u8; 2] = [0, 1];

/// One LZMA2 filter with a dictionary of 1 MiB; size of the header, no further flags, filter 0x21 with one property.
const BLOCK: [u8; 8] = [2, 0, 0x21, 1, 16, 0, 0, 0];

/// Most that a stored chunk can hold.
const CHUNK: usize = 1 << 16;

/// `content` as an xz stream.
#[must_use]
pub fn stored(content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len() + content.len() / 8192 + 128);
    out.extend_from_slice(b"\xfd7zXZ\0");
    out.extend_from_slice(&FLAGS);
    out.extend_from_slice(&checksum(&FLAGS));
    let start = out.len();
    out.extend_from_slice(&BLOCK);
    out.extend_from_slice(&checksum(&BLOCK));
    for (index, chunk) in content.chunks(CHUNK).enumerate() {
        // The first chunk resets the dictionary.
        out.push(if index == 0 { 1 } else { 2 });
        let length = u16::try_from(chunk.len() - 1).unwrap_or(u16::MAX);
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(chunk);
    }
    out.push(0);
    let unpadded = out.len() - start + 4;
    pad(&mut out, start);
    out.extend_from_slice(&checksum(content));

    let index = out.len();
    out.extend_from_slice(&[0, 1]);
    number(&mut out, unpadded);
    number(&mut out, content.len());
    pad(&mut out, index);
    let sum = checksum(&out[index..]);
    out.extend_from_slice(&sum);

    let words = u32::try_from((out.len() - index) / 4 - 1).unwrap_or(u32::MAX);
    let mut footer = words.to_le_bytes().to_vec();
    footer.extend_from_slice(&FLAGS);
    out.extend_from_slice(&checksum(&footer));
    out.extend_from_slice(&footer);
    out.extend_from_slice(b"YZ");
    out
}

fn checksum(bytes: &[u8]) -> [u8; 4] {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum().to_le_bytes()
}

/// Pads to a multiple of four bytes since `start`.
fn pad(out: &mut Vec<u8>, start: usize) {
    out.resize(start + (out.len() - start).next_multiple_of(4), 0);
}

/// A number of seven bits a byte, the lowest first.
fn number(out: &mut Vec<u8>, mut value: usize) {
    while value > 0x7f {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn what_is_stored_is_unpacked_by_other_implementations() {
        for length in [0, 1, 3, 4, 65_535, 65_536, 65_537, 300_000] {
            let content: Vec<u8> = (0..length).map(|index: u32| index.to_le_bytes()[index as usize % 3]).collect();
            let mut plain = Vec::new();
            liblzma::read::XzDecoder::new(&stored(&content)[..]).read_to_end(&mut plain).unwrap();
            assert!(plain == content, "length {length}");
        }
    }

    #[test]
    fn damage_is_found_when_it_is_unpacked() {
        let mut bytes = stored(&[7; 1000]);
        bytes[500] ^= 1;
        let error = liblzma::read::XzDecoder::new(&bytes[..]).read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
    }
}
