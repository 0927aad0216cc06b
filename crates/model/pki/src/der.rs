//! A minimal DER encoder for certificates and requests, and a reader for PKCS#8.
//!
//! Encoding concatenates: each function returns the bytes of one value. Whole certificates are parsed by `x509-parser`.

pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const SEQUENCE: u8 = 0x30;

/// One value: tag, length, content.
pub(crate) fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len() + 6);
    out.push(tag);
    let len = content.len();
    if len < 0x80 {
        out.push(len.to_le_bytes()[0]);
    } else {
        let bytes = len.to_be_bytes();
        let skip = bytes.iter().take_while(|b| **b == 0).count();
        out.push(0x80 | (bytes.len() - skip).to_le_bytes()[0]);
        out.extend_from_slice(&bytes[skip..]);
    }
    out.extend_from_slice(content);
    out
}

pub(crate) fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    tlv(SEQUENCE, &parts.concat())
}

pub(crate) fn set(parts: &[&[u8]]) -> Vec<u8> {
    tlv(0x31, &parts.concat())
}

/// An explicit context tag around a value.
pub(crate) fn explicit(number: u8, content: &[u8]) -> Vec<u8> {
    tlv(0xa0 | number, content)
}

/// A non-negative integer from big-endian bytes.
pub(crate) fn unsigned(bytes: &[u8]) -> Vec<u8> {
    let first = bytes.iter().position(|b| *b != 0).unwrap_or(bytes.len());
    let mut content = Vec::with_capacity(bytes.len() + 1);
    if bytes.get(first).is_none_or(|b| b & 0x80 != 0) {
        content.push(0);
    }
    content.extend_from_slice(&bytes[first..]);
    tlv(INTEGER, &content)
}

pub(crate) fn octet_string(content: &[u8]) -> Vec<u8> {
    tlv(OCTET_STRING, content)
}

/// A bit string of whole bytes.
pub(crate) fn bit_string(content: &[u8]) -> Vec<u8> {
    let mut with_unused = vec![0];
    with_unused.extend_from_slice(content);
    tlv(0x03, &with_unused)
}

pub(crate) fn utf8(text: &str) -> Vec<u8> {
    tlv(0x0c, text.as_bytes())
}

pub(crate) fn boolean_true() -> Vec<u8> {
    vec![0x01, 0x01, 0xff]
}

/// An object identifier from its encoded content.
pub(crate) fn oid(content: &[u8]) -> Vec<u8> {
    tlv(0x06, content)
}

/// UTCTime until 2049, GeneralizedTime from 2050 on, as required by RFC 5280.
pub(crate) fn time(at: time::OffsetDateTime) -> Option<Vec<u8>> {
    let at = at.to_offset(time::UtcOffset::UTC);
    let rest =
        format!("{:02}{:02}{:02}{:02}{:02}Z", u8::from(at.month()), at.day(), at.hour(), at.minute(), at.second());
    match at.year() {
        year @ 1950..=2049 => Some(tlv(0x17, format!("{:02}{rest}", year % 100).as_bytes())),
        year @ 2050..=9999 => Some(tlv(0x18, format!("{year:04}{rest}").as_bytes())),
        _ => None,
    }
}

/// Splits off the first value: `(tag, content, rest)`. `None` for malformed bytes.
pub(crate) fn read(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (len, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let count = usize::from(first & 0x7f);
        if count == 0 || count > 4 {
            return None;
        }
        let (digits, rest) = rest.split_at_checked(count)?;
        (digits.iter().fold(0usize, |len, b| len << 8 | usize::from(*b)), rest)
    };
    let (content, rest) = rest.split_at_checked(len)?;
    Some((tag, content, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lengths_and_high_bits_follow_der() {
        assert_eq!(tlv(4, &[7; 200])[..3], [4, 0x81, 200]);
        assert_eq!(tlv(4, &[7; 300])[..4], [4, 0x82, 1, 44]);
        assert_eq!(unsigned(&[0, 0x80]), [2, 2, 0, 0x80]);
        assert_eq!(unsigned(&[0, 0]), [2, 1, 0]);
        assert_eq!(unsigned(&[1, 2]), [2, 2, 1, 2]);
    }

    #[test]
    fn reading_refuses_what_is_cut_off() {
        assert_eq!(read(&[4, 2, 1, 2, 9]), Some((4, &[1u8, 2][..], &[9u8][..])));
        assert_eq!(read(&[4, 3, 1, 2]), None);
        assert_eq!(read(&[4, 0x85, 1, 1, 1, 1, 1]), None);
        assert_eq!(read(&[]), None);
    }

    #[test]
    fn years_from_2050_take_the_long_form() {
        let at = time::OffsetDateTime::from_unix_timestamp(2_524_608_000).unwrap();
        assert_eq!(time(at).unwrap(), tlv(0x18, b"20500101000000Z"));
        let at = time::OffsetDateTime::from_unix_timestamp(2_524_607_999).unwrap();
        assert_eq!(time(at).unwrap(), tlv(0x17, b"491231235959Z"));
    }
}
