//! Disk images that are compressed (`.xz`, `.gz`, `.zst`): told by their first bytes, and unpacked once for all machines of a
//! cluster.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use crate::error::HostError;

/// The largest disk that an image may unpack to.
const LARGEST: u64 = 1 << 40;
/// What is written or left out at a time.
const BLOCK: usize = 64 << 10;

/// What the header of an archive's first file has, and no disk.
const TAR_MAGIC: &[u8] = b"ustar";
const TAR_MAGIC_AT: usize = 257;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compression {
    Xz,
    Gzip,
    Zstd,
}

impl Compression {
    fn of(start: &[u8]) -> Option<Self> {
        let known: [(&[u8], Self); 3] =
            [(b"\xfd7zXZ\0", Self::Xz), (b"\x1f\x8b\x08", Self::Gzip), (b"\x28\xb5\x2f\xfd", Self::Zstd)];
        known.into_iter().find(|(magic, _)| start.starts_with(magic)).map(|(_, compression)| compression)
    }

    fn reader(self, file: File) -> io::Result<Box<dyn Read>> {
        Ok(match self {
            Self::Xz => Box::new(liblzma::read::XzDecoder::new_multi_decoder(file)),
            Self::Gzip => Box::new(flate2::read::MultiGzDecoder::new(file)),
            Self::Zstd => Box::new(zstd::stream::read::Decoder::new(file)?),
        })
    }
}

/// Whether an image has to be unpacked.
pub(super) fn is_compressed(image: &Path) -> Result<bool, HostError> {
    compression(image).map(|found| found.is_some()).map_err(HostError::io("reading the disk image", image))
}

fn compression(image: &Path) -> io::Result<Option<Compression>> {
    let mut start = Vec::new();
    File::open(image)?.take(6).read_to_end(&mut start)?;
    Ok(Compression::of(&start))
}

/// Unpacks an image. Blocks of zeros take no room.
pub(super) fn unpack(image: &Path, target: &Path) -> Result<(), HostError> {
    let unpacked = || -> io::Result<()> {
        let file = File::open(image)?;
        let mut reader = match compression(image)? {
            Some(compression) => compression.reader(file)?,
            None => Box::new(file),
        };
        copy(&mut reader, &mut File::create(target)?, LARGEST)
    };
    unpacked().map_err(HostError::io("unpacking the disk image", image))
}

fn copy(from: &mut impl Read, to: &mut File, largest: u64) -> io::Result<()> {
    let mut block = vec![0; BLOCK];
    let mut size = 0_u64;
    loop {
        let mut filled = 0;
        while filled < block.len() {
            match from.read(&mut block[filled..])? {
                0 => break,
                length => filled += length,
            }
        }
        let data = &block[..filled];
        if data.is_empty() {
            return to.set_len(size);
        }
        if size == 0 && data.get(TAR_MAGIC_AT..).is_some_and(|rest| rest.starts_with(TAR_MAGIC)) {
            let problem = "it is a tar archive: unpack it, and name the disk image that is in it";
            return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
        }
        if data.iter().any(|byte| *byte != 0) {
            to.seek(SeekFrom::Start(size))?;
            to.write_all(data)?;
        }
        size += data.len() as u64;
        if size > largest {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("it unpacks to more than {largest} bytes"),
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn content() -> Vec<u8> {
        let mut content = vec![0; 40 * BLOCK + 5];
        content[..3].copy_from_slice(b"one");
        let end = content.len() - 1;
        content[end - BLOCK] = 7;
        content
    }

    fn compressed(compression: Compression, content: &[u8]) -> Vec<u8> {
        match compression {
            Compression::Xz => {
                let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
                encoder.write_all(content).unwrap();
                encoder.finish().unwrap()
            }
            Compression::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(content).unwrap();
                encoder.finish().unwrap()
            }
            Compression::Zstd => zstd::encode_all(content, 1).unwrap(),
        }
    }

    #[test]
    fn each_compression_is_known_by_its_first_bytes_and_unpacked_with_holes() {
        let folder = tempfile::tempdir().unwrap();
        let (image, target) = (folder.path().join("image"), folder.path().join("disk"));
        for compression in [Compression::Xz, Compression::Gzip, Compression::Zstd] {
            // Also in several parts, as tools that compress with several threads write them.
            let (first, second) = (content(), vec![9; 10]);
            let bytes = [compressed(compression, &first), compressed(compression, &second)].concat();
            std::fs::write(&image, bytes).unwrap();
            assert!(is_compressed(&image).unwrap(), "{compression:?}");
            unpack(&image, &target).unwrap();
            assert!(std::fs::read(&target).unwrap() == [first, second].concat(), "{compression:?}");
            assert!(std::fs::metadata(&target).unwrap().blocks() * 512 <= 8 * BLOCK as u64, "{compression:?}");
        }
        std::fs::write(&image, content()).unwrap();
        assert!(!is_compressed(&image).unwrap());
        std::fs::write(&image, b"a").unwrap();
        assert!(!is_compressed(&image).unwrap());
    }

    #[test]
    fn an_image_that_is_cut_is_refused_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        for compression in [Compression::Xz, Compression::Gzip, Compression::Zstd] {
            let bytes = compressed(compression, &content());
            std::fs::write(&image, &bytes[..bytes.len() - 9]).unwrap();
            let error = unpack(&image, &folder.path().join("disk")).unwrap_err();
            assert!(error.to_string().contains(&*image.to_string_lossy()), "{error}");
        }
    }

    #[test]
    fn an_archive_with_an_image_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("metal-amd64.raw.tar.gz");
        let mut archive = content();
        archive[257..265].copy_from_slice(b"ustar  \0");
        std::fs::write(&image, compressed(Compression::Gzip, &archive)).unwrap();
        let error = unpack(&image, &folder.path().join("disk")).unwrap_err();
        assert!(stdx::error_chain(&error).contains("is a tar archive"), "{error}");
    }

    #[test]
    fn an_image_that_does_not_end_is_refused() {
        let mut file = tempfile::tempfile().unwrap();
        let error = copy(&mut io::repeat(0), &mut file, 10 * BLOCK as u64).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    }
}
