//! The administrator's kubeconfig as nodes send it: the file alone, or packed as `tar.gz`.

use std::io::{self, Read as _};

use crate::connection::MAX_MESSAGE_SIZE;

/// The text of the file. Packed data starts with gzip's mark; of an archive the first file counts, up to the size of a
/// message, so that a small answer cannot become a large one.
pub(crate) fn text_of(bytes: &[u8]) -> io::Result<String> {
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return utf8(bytes.to_vec());
    }
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(bytes));
    for entry in archive.entries()? {
        let entry = entry?;
        if entry.header().entry_type().is_file() {
            let mut content = Vec::new();
            entry.take(MAX_MESSAGE_SIZE as u64).read_to_end(&mut content)?;
            return utf8(content);
        }
    }
    Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive holds no file"))
}

fn utf8(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn packed(kind: tar::EntryType) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(5);
        header.set_entry_type(kind);
        builder.append_data(&mut header, "kubeconfig", &b"a: b\n"[..]).unwrap();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(&builder.into_inner().unwrap()).unwrap();
        gzip.finish().unwrap()
    }

    #[test]
    fn the_file_comes_out_of_its_archive_or_is_taken_as_it_is() {
        assert_eq!(text_of(&packed(tar::EntryType::Regular)).unwrap(), "a: b\n");
        assert_eq!(text_of(b"a: b\n").unwrap(), "a: b\n");
    }

    #[test]
    fn what_is_no_text_file_is_refused() {
        let kind = |bytes: &[u8]| text_of(bytes).unwrap_err().kind();
        assert_eq!(kind(b"\xff\xfe"), io::ErrorKind::InvalidData);
        assert_eq!(kind(&packed(tar::EntryType::Directory)), io::ErrorKind::UnexpectedEof);
        assert_eq!(kind(&packed(tar::EntryType::Regular)[..20]), io::ErrorKind::UnexpectedEof);
    }
}
