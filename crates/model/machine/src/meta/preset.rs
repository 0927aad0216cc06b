//! Values that an image brings for META, as text: `0xKEY=VALUE;…` in base64, compressed by gzip where that is asked for.
//! It is the value of the variable `INSTALLER_META_BASE64`.

use std::io::{Read as _, Write as _};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

use super::COPY_SIZE;

/// Texts above this size are compressed.
const COMPRESSED_ABOVE: usize = 256;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// A preset that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum PresetError {
    #[error("decoding values of META: they must be base64")]
    Base64(#[source] base64::DecodeError),
    #[error("decompressing values of META")]
    Gzip(#[source] std::io::Error),
    #[error("values of META exceed {COPY_SIZE} bytes")]
    TooLarge,
    #[error("values of META must be UTF-8")]
    Encoding,
    #[error("value {number} of META: {problem}; write KEY=VALUE with a key from 1 to 255, such as 0x0a=text")]
    Assignment { number: usize, problem: &'static str },
    #[error("the value of META key {key:#04x} contains a semicolon, which separates values")]
    Separator { key: u8 },
}

/// One value: `0x0a=text`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    pub key: u8,
    pub value: String,
}

impl std::str::FromStr for Assignment {
    type Err = PresetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(1, text)
    }
}

/// Decodes the text of the variable.
///
/// # Errors
/// [`PresetError`].
pub fn decode_preset(text: &str) -> Result<Vec<Assignment>, PresetError> {
    let raw = BASE64_STANDARD.decode(text.trim()).map_err(PresetError::Base64)?;
    let raw = if raw.starts_with(&GZIP_MAGIC) { decompress(&raw)? } else { raw };
    if raw.len() > COPY_SIZE {
        return Err(PresetError::TooLarge);
    }
    let text = String::from_utf8(raw).map_err(|_| PresetError::Encoding)?;
    let parts = text.split(';').enumerate().filter(|(_, part)| !part.is_empty());
    parts.map(|(index, part)| parse(index + 1, part)).collect()
}

/// The text of the variable for `values`.
///
/// # Errors
/// [`PresetError::Separator`].
pub fn encode_preset(values: &[Assignment]) -> Result<String, PresetError> {
    if let Some(bad) = values.iter().find(|one| one.value.contains(';')) {
        return Err(PresetError::Separator { key: bad.key });
    }
    let parts: Vec<String> = values.iter().map(|one| format!("{:#x}={}", one.key, one.value)).collect();
    let text = parts.join(";");
    if text.len() <= COMPRESSED_ABOVE {
        return Ok(BASE64_STANDARD.encode(text));
    }
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    packed.write_all(text.as_bytes()).map_err(PresetError::Gzip)?;
    Ok(BASE64_STANDARD.encode(packed.finish().map_err(PresetError::Gzip)?))
}

fn decompress(packed: &[u8]) -> Result<Vec<u8>, PresetError> {
    let mut raw = Vec::new();
    let limit = COPY_SIZE as u64 + 1;
    GzDecoder::new(packed).take(limit).read_to_end(&mut raw).map_err(PresetError::Gzip)?;
    Ok(raw)
}

fn parse(number: usize, text: &str) -> Result<Assignment, PresetError> {
    let problem = |problem| PresetError::Assignment { number, problem };
    let (key, value) = text.split_once('=').ok_or_else(|| problem("there is no equals sign"))?;
    let parsed = match key.strip_prefix("0x").or_else(|| key.strip_prefix("0X")) {
        Some(digits) => u8::from_str_radix(digits, 16),
        None => key.parse(),
    };
    match parsed {
        Ok(key) if key != 0 && !text.starts_with(['+', '-']) => Ok(Assignment { key, value: value.to_owned() }),
        _ => Err(problem("the key is not a number from 1 to 255")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn one(key: u8, value: &str) -> Assignment {
        Assignment { key, value: value.to_owned() }
    }

    #[test]
    fn texts_of_the_original_are_read_plain_and_compressed() {
        // printf '0xa=addresses: []\n;0xc=x' | base64 -w0
        let values = decode_preset("MHhhPWFkZHJlc3NlczogW10KOzB4Yz14").unwrap();
        assert_eq!(values, [one(10, "addresses: []\n"), one(12, "x")]);
        // printf '0xb=%0300d' 7 | gzip -9n | base64 -w0
        let long = encode_preset(&[one(11, &"0".repeat(300))]).unwrap();
        assert!(long.starts_with("H4sI") && long.len() < 100, "{long}");
        assert_eq!(decode_preset(&long).unwrap(), [one(11, &"0".repeat(300))]);
        assert_eq!(decode_preset("").unwrap(), []);
    }

    #[test]
    fn what_is_no_assignment_is_refused_with_its_number() {
        let decode = |text: &str| decode_preset(&BASE64_STANDARD.encode(text));
        assert!(matches!(decode("0xa=b;oops"), Err(PresetError::Assignment { number: 2, .. })));
        assert!(matches!(decode("0x100=b"), Err(PresetError::Assignment { number: 1, .. })));
        assert!(matches!(decode("0=b"), Err(PresetError::Assignment { .. })));
        assert!(matches!(decode("+7=b"), Err(PresetError::Assignment { .. })));
        assert!(matches!(decode_preset("%"), Err(PresetError::Base64(_))));
        assert!(matches!(decode_preset(&BASE64_STANDARD.encode([0x1f, 0x8b, 1])), Err(PresetError::Gzip(_))));
        assert!(matches!(encode_preset(&[one(10, "a;b")]), Err(PresetError::Separator { key: 10 })));
    }

    #[test]
    fn a_compressed_text_cannot_expand_without_bound() {
        let mut packed = GzEncoder::new(Vec::new(), Compression::best());
        packed.write_all(&vec![b'0'; 10 * COPY_SIZE]).unwrap();
        let bomb = BASE64_STANDARD.encode(packed.finish().unwrap());
        assert!(matches!(decode_preset(&bomb), Err(PresetError::TooLarge)));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(values in prop::collection::vec((1_u8.., "[^;]{0,80}"), 0..12)) {
            let values: Vec<_> = values.iter().map(|(key, value)| one(*key, value)).collect();
            prop_assert_eq!(decode_preset(&encode_preset(&values).unwrap()).unwrap(), values);
        }

        #[test]
        fn no_text_is_fatal(text in "\\PC{0,200}") {
            decode_preset(&text).ok();
            decode_preset(&BASE64_STANDARD.encode(&text)).ok();
        }
    }
}
