//! Forms of disk images: from a raw image, which is sparse, a qcow2 or VHD file, and any of them compressed. Equal inputs
//! give equal bits: identifiers come from the content, times are [`crate::EPOCH`].

use std::io::{Read, Seek, SeekFrom, Write};

use crate::EPOCH;

/// Size of a cluster of qcow2, the default of its own tools.
const CLUSTER: usize = 1 << 16;

/// The second form of an image: how it is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    None,
    Xz,
    Gzip,
    Zstd,
    /// A tar archive with the file `disk.raw`, by gzip, as clouds take it.
    TarGzip,
}

/// The file in an archive.
const ARCHIVED: &str = "disk.raw";

/// Copies `from` to `to`, compressed as `compression` says.
///
/// # Errors
/// A failed read or write.
pub fn compress(from: &mut (impl Read + Seek), to: &mut impl Write, compression: Compression) -> std::io::Result<()> {
    match compression {
        Compression::None => {
            std::io::copy(from, to)?;
        }
        Compression::Xz => {
            // Nearly all of an image is compressed already or zero: higher levels gain nothing.
            let mut encoder = liblzma::write::XzEncoder::new(to, 1);
            std::io::copy(from, &mut encoder)?;
            encoder.finish()?;
        }
        Compression::Gzip => {
            let mut encoder = flate2::GzBuilder::new().write(to, flate2::Compression::new(4));
            std::io::copy(from, &mut encoder)?;
            encoder.finish()?;
        }
        Compression::TarGzip => {
            let size = from.seek(SeekFrom::End(0))?;
            from.seek(SeekFrom::Start(0))?;
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            header.set_mtime(u64::from(EPOCH));
            header.set_size(size);
            let encoder = flate2::GzBuilder::new().write(to, flate2::Compression::new(4));
            let mut archive = tar::Builder::new(encoder);
            archive.append_data(&mut header, ARCHIVED, from)?;
            archive.into_inner()?.finish()?;
        }
        Compression::Zstd => {
            let mut encoder = zstd::stream::write::Encoder::new(to, 9)?;
            std::io::copy(from, &mut encoder)?;
            encoder.finish()?;
        }
    }
    Ok(())
}

/// Writes the raw image `raw` of `size` bytes as qcow2 of version 3: clusters of zeros take no room.
///
/// # Errors
/// A failed read or write, or an image too large for one block of counters (128 TiB).
pub fn qcow2(raw: &mut (impl Read + Seek), size: u64, out: &mut impl Write) -> std::io::Result<()> {
    let too_large = || std::io::Error::other("the image is too large");
    let clusters = usize::try_from(size.div_ceil(CLUSTER as u64)).map_err(|_| too_large())?;
    let used = used_clusters(raw, clusters)?;
    let tables = clusters.div_ceil(CLUSTER / 8);
    let l1_clusters = (tables * 8).div_ceil(CLUSTER).max(1);
    // Header, table of counters, their blocks, first table, second tables, data.
    let data = used.iter().filter(|used| **used).count();
    let mut blocks = 1;
    while 2 + blocks + l1_clusters + tables + data > blocks * (CLUSTER / 2) {
        blocks += 1;
    }
    if blocks > CLUSTER / 8 {
        return Err(too_large());
    }
    let l1 = 2 + blocks;
    let l2 = l1 + l1_clusters;
    let first = l2 + tables;
    let total = first + data;

    let mut header = Vec::new();
    header.extend(b"QFI\xfb");
    header.extend(3_u32.to_be_bytes());
    header.extend([0; 12]);
    header.extend(16_u32.to_be_bytes());
    header.extend(size.to_be_bytes());
    header.extend([0; 4]);
    header.extend(u32::try_from(tables).map_err(|_| too_large())?.to_be_bytes());
    header.extend(offset(l1).to_be_bytes());
    header.extend(offset(1).to_be_bytes());
    header.extend(1_u32.to_be_bytes());
    header.extend([0; 36]);
    header.extend(4_u32.to_be_bytes());
    header.extend(104_u32.to_be_bytes());
    write_padded(out, &header)?;
    let table: Vec<u8> = (0..blocks).flat_map(|index| offset(2 + index).to_be_bytes()).collect();
    write_padded(out, &table)?;
    let counters: Vec<u8> = (0..total).flat_map(|_| 1_u16.to_be_bytes()).collect();
    write_padded(out, &counters)?;
    out.write_all(&vec![0; blocks * CLUSTER - counters.len().next_multiple_of(CLUSTER)])?;
    let copied = 1 << 63;
    let first_table: Vec<u8> = (0..tables).flat_map(|index| (offset(l2 + index) | copied).to_be_bytes()).collect();
    write_padded(out, &first_table)?;
    let mut next = first;
    for chunk in used.chunks(CLUSTER / 8) {
        let mut second = Vec::with_capacity(CLUSTER);
        for used in chunk {
            second.extend(if *used { offset(next) | copied } else { 0 }.to_be_bytes());
            next += usize::from(*used);
        }
        write_padded(out, &second)?;
    }
    let mut buffer = vec![0; CLUSTER];
    for (index, _) in used.iter().enumerate().filter(|(_, used)| **used) {
        raw.seek(SeekFrom::Start(offset(index)))?;
        let length = fill(raw, &mut buffer)?;
        buffer[length..].fill(0);
        out.write_all(&buffer)?;
    }
    Ok(())
}

/// Which clusters have other content than zeros.
fn used_clusters(raw: &mut (impl Read + Seek), clusters: usize) -> std::io::Result<Vec<bool>> {
    raw.seek(SeekFrom::Start(0))?;
    let mut buffer = vec![0; CLUSTER];
    (0..clusters)
        .map(|_| {
            let length = fill(raw, &mut buffer)?;
            Ok(buffer[..length].iter().any(|byte| *byte != 0))
        })
        .collect()
}

fn fill(from: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match from.read(&mut buffer[length..])? {
            0 => break,
            more => length += more,
        }
    }
    Ok(length)
}

fn offset(cluster: usize) -> u64 {
    cluster as u64 * CLUSTER as u64
}

fn write_padded(out: &mut impl Write, bytes: &[u8]) -> std::io::Result<()> {
    out.write_all(bytes)?;
    out.write_all(&vec![0; bytes.len().next_multiple_of(CLUSTER) - bytes.len()])
}

/// The last sector of a VHD of fixed size, which follows the raw image of `size` bytes; `id` names the disk.
#[must_use]
pub fn vhd_footer(size: u64, id: [u8; 16]) -> [u8; 512] {
    /// Seconds of 1970 to 2000, the format's epoch.
    const MILLENNIUM: u32 = 946_684_800;
    let mut footer = [0; 512];
    footer[..8].copy_from_slice(b"conectix");
    footer[11] = 2;
    footer[13] = 1;
    footer[16..24].fill(0xff);
    footer[24..28].copy_from_slice(&(EPOCH - MILLENNIUM).to_be_bytes());
    footer[28..32].copy_from_slice(b"tlos");
    footer[33] = 1;
    footer[36..40].copy_from_slice(b"Wi2k");
    footer[40..48].copy_from_slice(&size.to_be_bytes());
    footer[48..56].copy_from_slice(&size.to_be_bytes());
    footer[56..60].copy_from_slice(&geometry(size));
    footer[63] = 2;
    footer[68..84].copy_from_slice(&id);
    let sum: u32 = footer.iter().map(|byte| u32::from(*byte)).sum();
    footer[64..68].copy_from_slice(&(!sum).to_be_bytes());
    footer
}

/// Cylinders, heads and sectors as the specification of VHD computes them.
fn geometry(size: u64) -> [u8; 4] {
    let total = (size / 512).min(65_535 * 16 * 255);
    let fits = |tracks: u64, heads: u64| heads <= 16 && tracks < heads * 1024;
    let few = (total / 17).div_ceil(1024).max(4);
    let (sectors, heads) = if total >= 65_535 * 16 * 63 {
        (255, 16)
    } else if fits(total / 17, few) {
        (17, few)
    } else if fits(total / 31, 16) {
        (31, 16)
    } else {
        (63, 16)
    };
    let cylinders = u16::try_from(total / sectors / heads).unwrap_or(u16::MAX).to_be_bytes();
    [cylinders[0], cylinders[1], heads.to_le_bytes()[0], sectors.to_le_bytes()[0]]
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn word(bytes: &[u8], at: usize) -> usize {
        usize::try_from(u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap()) & !(1 << 63)).unwrap()
    }

    /// Reads a qcow2 file by its tables.
    fn read(file: &[u8]) -> Vec<u8> {
        assert_eq!(&file[..8], b"QFI\xfb\0\0\0\x03");
        let size = word(file, 24);
        let mut raw = Vec::new();
        for index in 0..size.div_ceil(CLUSTER) {
            let second = word(file, word(file, 40) + index / (CLUSTER / 8) * 8);
            match word(file, second + index % (CLUSTER / 8) * 8) {
                0 => raw.resize(raw.len() + CLUSTER, 0),
                at => raw.extend(&file[at..at + CLUSTER]),
            }
        }
        raw.truncate(size);
        raw
    }

    #[test]
    fn qcow2_holds_the_image_without_its_zeros() {
        let mut raw = vec![0; 600 << 20];
        for at in [5, 100_000, 536_870_912, raw.len() - 1] {
            raw[at] = 7;
        }
        let mut file = Vec::new();
        qcow2(&mut Cursor::new(&raw), raw.len() as u64, &mut file).unwrap();
        assert!(read(&file) == raw);
        // Header, counters and their table, first table, two second tables, four clusters; each is counted once.
        assert_eq!(file.len(), 10 * CLUSTER);
        let counters = word(&file, word(&file, 48));
        assert!(file[counters..counters + 20].chunks(2).all(|counter| counter == [0, 1]));
        assert_eq!(file[counters + 20..counters + 22], [0, 0]);
    }

    #[test]
    fn an_image_that_ends_within_a_cluster_is_whole() {
        let raw: Vec<u8> = (0..100_000_u32).map(|index| index.to_le_bytes()[0]).collect();
        let mut file = Vec::new();
        qcow2(&mut Cursor::new(&raw), raw.len() as u64, &mut file).unwrap();
        assert!(read(&file) == raw);
    }

    #[test]
    fn the_footer_of_a_vhd_sums_up() {
        let mut footer = vhd_footer(1246 << 20, [9; 16]);
        assert_eq!(&footer[..8], b"conectix");
        assert_eq!(footer[48..56], (1246_u64 << 20).to_be_bytes());
        assert_eq!(footer[68..84], [9; 16]);
        let stored = u32::from_be_bytes(footer[64..68].try_into().unwrap());
        footer[64..68].fill(0);
        assert_eq!(stored, !footer.iter().map(|byte| u32::from(*byte)).sum::<u32>());
    }

    #[test]
    fn the_geometry_of_a_vhd_is_that_of_its_specification() {
        for (mebibytes, wanted) in [(4_u64, (120, 4, 17)), (1246, (2531, 16, 63)), (8192, (16_644, 16, 63))] {
            let [high, low, heads, sectors] = geometry(mebibytes << 20);
            assert_eq!((u16::from_be_bytes([high, low]), heads, sectors), wanted);
        }
        assert_eq!(geometry(10 << 40), [255, 255, 16, 255]);
    }

    #[test]
    fn compressed_images_are_unpacked_by_their_tools() {
        let content = [&[1; 5000][..], &[0; 100_000]].concat();
        let packed = |compression| {
            let mut out = Vec::new();
            compress(&mut Cursor::new(&content), &mut out, compression).unwrap();
            out
        };
        let mut plain = Vec::new();
        liblzma::read::XzDecoder::new(&packed(Compression::Xz)[..]).read_to_end(&mut plain).unwrap();
        assert!(plain == content);
        plain.clear();
        flate2::read::GzDecoder::new(&packed(Compression::Gzip)[..]).read_to_end(&mut plain).unwrap();
        assert!(plain == content);
        assert!(zstd::decode_all(&packed(Compression::Zstd)[..]).unwrap() == content);
        assert!(packed(Compression::None) == content);
        let packed = packed(Compression::TarGzip);
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(&packed[..]));
        let mut names = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            names.push(entry.path().unwrap().display().to_string());
            plain.clear();
            entry.read_to_end(&mut plain).unwrap();
            assert!(plain == content);
        }
        assert_eq!(names, ["disk.raw"]);
    }
}
