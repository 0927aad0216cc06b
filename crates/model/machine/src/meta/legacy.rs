//! The older format, that of syslinux: two copies of 512 bytes. Its values are read and deleted, never added to.

/// Both copies.
pub(super) const SIZE: usize = 2 * COPY;

const COPY: usize = 512;
const MAGIC_HEAD: u32 = 0x5a2d_2fa5;
const CHECKSUM_BASE: u32 = 0xa304_1767;
const MAGIC_TAIL: u32 = 0xdd28_bf64;
const DATA: std::ops::Range<usize> = 8..508;

/// The area as it is on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Legacy {
    area: [u8; SIZE],
    /// In the order of the area; the last one of a tag counts.
    values: Vec<(u8, Vec<u8>)>,
}

impl Default for Legacy {
    fn default() -> Self {
        Self { area: [0; SIZE], values: Vec::new() }
    }
}

impl Legacy {
    /// `area` is of [`SIZE`]. What cannot be read has no values and is kept as it is.
    pub(super) fn parse(area: &[u8]) -> Self {
        let mut legacy = Self::default();
        if area.len() == SIZE {
            legacy.area.copy_from_slice(area);
            legacy.values = parse_copy(&area[..COPY]).or_else(|| parse_copy(&area[COPY..])).unwrap_or_default();
        }
        legacy
    }

    pub(super) fn encode(&self) -> [u8; SIZE] {
        self.area
    }

    pub(super) fn get(&self, tag: u8) -> Option<&[u8]> {
        self.values.iter().rev().find(|(other, _)| *other == tag).map(|(_, value)| value.as_slice())
    }

    pub(super) fn values(&self) -> impl Iterator<Item = (u8, &[u8])> {
        self.values.iter().map(|(tag, value)| (*tag, value.as_slice()))
    }

    /// Deletes a value and renews both copies; false if there is none.
    pub(super) fn delete(&mut self, tag: u8) -> bool {
        let before = self.values.len();
        self.values.retain(|(other, _)| *other != tag);
        if self.values.len() == before {
            return false;
        }
        let copy = encode_copy(&self.values);
        self.area[..COPY].copy_from_slice(&copy);
        self.area[COPY..].copy_from_slice(&copy);
        true
    }
}

fn parse_copy(copy: &[u8]) -> Option<Vec<(u8, Vec<u8>)>> {
    let word = |at: usize| Some(u32::from_le_bytes(copy.get(at..at + 4)?.try_into().ok()?));
    if word(0)? != MAGIC_HEAD || word(DATA.end)? != MAGIC_TAIL || word(4)? != checksum(&copy[DATA]) {
        return None;
    }
    let mut values = Vec::new();
    let mut rest = &copy[DATA];
    while let [tag, length, tail @ ..] = rest
        && *tag != 0
    {
        // A value that exceeds the copy makes all of it unreliable.
        let value = tail.get(..usize::from(*length))?;
        values.push((*tag, value.to_vec()));
        rest = &tail[value.len()..];
    }
    Some(values)
}

fn encode_copy(values: &[(u8, Vec<u8>)]) -> [u8; COPY] {
    let mut data = Vec::new();
    for (tag, value) in values {
        // They were read from a copy of this size.
        data.extend_from_slice(&[*tag, u8::try_from(value.len()).unwrap_or(u8::MAX)]);
        data.extend_from_slice(value);
    }
    data.resize(DATA.len(), 0);
    let mut copy = [0; COPY];
    copy[..4].copy_from_slice(&MAGIC_HEAD.to_le_bytes());
    copy[4..8].copy_from_slice(&checksum(&data).to_le_bytes());
    copy[DATA].copy_from_slice(&data);
    copy[DATA.end..].copy_from_slice(&MAGIC_TAIL.to_le_bytes());
    copy
}

fn checksum(data: &[u8]) -> u32 {
    let words = data.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
    CHECKSUM_BASE.wrapping_sub(words.fold(0, u32::wrapping_add))
}

#[cfg(test)]
pub(super) fn sample_copy(values: &[(u8, Vec<u8>)]) -> [u8; COPY] {
    encode_copy(values)
}
