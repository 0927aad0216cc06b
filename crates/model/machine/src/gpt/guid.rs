//! GUIDs in the byte order of partition tables.

use std::fmt;
use std::str::FromStr;

/// A GUID as its 16 bytes on the disk: the first three groups little-endian, the others as written.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Guid([u8; 16]);

/// The place of each pair of digits of the text among the bytes on the disk.
const ORDER: [usize; 16] = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];

/// A text that is not a GUID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a GUID (32 hexadecimal digits, in groups of 8, 4, 4, 4 and 12)")]
pub struct ParseGuidError;

impl Guid {
    /// All zero: the type of an unused entry.
    pub const NIL: Self = Self([0; 16]);

    /// A GUID of version 4 from random bytes.
    #[must_use]
    pub const fn from_random(random: [u8; 16]) -> Self {
        let mut bytes = random;
        // Byte 7 holds the version because the third group is little-endian.
        bytes[7] = (bytes[7] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        Self(bytes)
    }

    /// A GUID from its bytes on the disk.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes on the disk.
    #[must_use]
    pub const fn bytes(self) -> [u8; 16] {
        self.0
    }

    /// A GUID of this program's own text.
    ///
    /// # Panics
    /// At compile time, for a text that is not a GUID.
    #[expect(clippy::panic, reason = "evaluated at compile time")]
    pub(crate) const fn constant(text: &str) -> Self {
        let Some(guid) = Self::parse(text.as_bytes()) else { panic!("not a GUID") };
        guid
    }

    const fn parse(text: &[u8]) -> Option<Self> {
        if text.len() != 36 {
            return None;
        }
        let mut bytes = [0; 16];
        let (mut at, mut pair) = (0, 0);
        while at < 36 {
            if matches!(at, 8 | 13 | 18 | 23) {
                if text[at] != b'-' {
                    return None;
                }
                at += 1;
                continue;
            }
            let (Some(high), Some(low)) = (digit(text[at]), digit(text[at + 1])) else { return None };
            bytes[ORDER[pair]] = high << 4 | low;
            pair += 1;
            at += 2;
        }
        Some(Self(bytes))
    }
}

const fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

impl FromStr for Guid {
    type Err = ParseGuidError;

    fn from_str(text: &str) -> Result<Self, ParseGuidError> {
        Self::parse(text.as_bytes()).ok_or(ParseGuidError)
    }
}

/// Lower case, as the kernel and udev print it.
impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, place) in ORDER.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{:02x}", self.0[*place])?;
        }
        Ok(())
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
