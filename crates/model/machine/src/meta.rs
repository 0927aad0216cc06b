//! META: a small set of tagged values on a raw partition, in the format of Talos 1.7.
//!
//! The partition begins with two equal copies of the values, each with its own checksum; its last KiB may hold values of the
//! older syslinux format, which are read and deleted here and never added to. Bytes in, bytes out: reading the partition
//! and writing its copies one after the other is done elsewhere.

mod legacy;
mod preset;

use std::collections::BTreeMap;

use aws_lc_rs::digest::{SHA256, digest};

use legacy::Legacy;
pub use preset::{Assignment, PresetError, decode_preset, encode_preset};

/// Size of one copy in bytes.
pub const COPY_SIZE: usize = 256 * 1024;
/// Offset of the second copy; the first one is at 0.
pub const SECOND_COPY: usize = COPY_SIZE;
/// Size of the older format's area at the end of the partition.
pub const LEGACY_SIZE: usize = legacy::SIZE;
/// The smallest partition that holds all of it; the installer makes 1 MiB.
pub const MINIMUM_SIZE: usize = SECOND_COPY + COPY_SIZE + LEGACY_SIZE;

const MAGIC_HEAD: u32 = 0x5a4b_3c2d;
const MAGIC_TAIL: u32 = 0xa5b4_c3d2;
const CHECKSUM_AT: usize = COPY_SIZE - 36;
const TAIL_AT: usize = COPY_SIZE - 4;
/// Both magic numbers, checksum and the closing tag with its length.
const CAPACITY: usize = COPY_SIZE - 40;
const FIXED: usize = 20;
const RECORD_HEADER: usize = 8;

/// Well-known tags.
pub mod tag {
    /// The way back after an upgrade: a slot or a file name.
    pub const UPGRADE: u8 = 6;
    /// Image of a staged upgrade.
    pub const STAGED_IMAGE: u8 = 7;
    /// Options of a staged upgrade, JSON.
    pub const STAGED_OPTIONS: u8 = 8;
    /// Encryption of STATE, JSON.
    pub const STATE_ENCRYPTION: u8 = 9;
    /// Network configuration of platform metal, YAML.
    pub const METAL_NETWORK: u8 = 10;
    /// The value of `${code}` in the URL of the configuration.
    pub const DOWNLOAD_CODE: u8 = 11;
    /// The machine's UUID in place of that of SMBIOS.
    pub const UUID_OVERRIDE: u8 = 15;
    /// A token that tells this machine from its copies.
    pub const MACHINE_TOKEN: u8 = 16;
    /// Ours: the last trial of a version, JSON ([`crate::trial::Record`]).
    pub const TRIAL: u8 = 0x54;
    /// Ours: what a node showed when an upgrade was staged, JSON ([`crate::staged`]).
    pub const STAGED_CHECKS: u8 = 0x55;
    /// Ours: certificates of the API's authorities, PEM, where STATE is encrypted: who may bring a key for it.
    pub const API_AUTHORITIES: u8 = 0x56;
}

/// The id of a tag's resource: `0x0a`.
#[must_use]
pub fn resource_id(tag: u8) -> String {
    format!("0x{tag:02x}")
}

/// A value that cannot be kept.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SetError {
    #[error("META key 0 ends the list of values and cannot be set")]
    Reserved,
    #[error("META has no room for {length} bytes under key {tag:#04x}: {free} bytes are left")]
    Full { tag: u8, length: usize, free: usize },
}

/// Why a copy holds no values.
#[derive(Debug, Clone, Copy, thiserror::Error, PartialEq, Eq)]
pub enum CopyError {
    #[error("the partition ends within the copy")]
    Short,
    #[error("the copy has no magic number")]
    Magic,
    #[error("the checksum of the copy is wrong")]
    Checksum,
    #[error("a record exceeds the copy")]
    Record,
}

/// The values of META. Tags above 255 belong to other systems; they are kept as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Meta {
    values: BTreeMap<u32, Vec<u8>>,
    legacy: Legacy,
}

/// Values read from a partition, and the state of both copies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed {
    pub meta: Meta,
    /// The errors of the first and the second copy; the first good one counts.
    pub copies: [Result<(), CopyError>; 2],
}

impl Meta {
    /// Reads a whole partition. Where both copies are bad, there are no values but those of the older format.
    #[must_use]
    pub fn parse(partition: &[u8]) -> Parsed {
        let copy = |at: usize| match partition.get(at..at + COPY_SIZE) {
            Some(copy) => parse_copy(copy),
            None => Err(CopyError::Short),
        };
        let (first, second) = (copy(0), copy(SECOND_COPY));
        let copies =
            [first.as_ref().map(drop).map_err(|error| *error), second.as_ref().map(drop).map_err(|error| *error)];
        let legacy = if partition.len() >= MINIMUM_SIZE {
            Legacy::parse(&partition[partition.len() - LEGACY_SIZE..])
        } else {
            Legacy::default()
        };
        Parsed { meta: Self { values: first.or(second).unwrap_or_default(), legacy }, copies }
    }

    /// One copy; both copies are equal. Write the first one, flush, and only then write the second one: then one of them
    /// is good at any time.
    #[must_use]
    pub fn encode_copy(&self) -> Vec<u8> {
        let mut copy = Vec::with_capacity(COPY_SIZE);
        copy.extend_from_slice(&MAGIC_HEAD.to_be_bytes());
        for (tag, value) in &self.values {
            copy.extend_from_slice(&tag.to_be_bytes());
            // `set` and `parse` hold values below the size of a copy.
            copy.extend_from_slice(&u32::try_from(value.len()).unwrap_or(u32::MAX).to_be_bytes());
            copy.extend_from_slice(value);
        }
        copy.resize(COPY_SIZE, 0);
        copy[TAIL_AT..].copy_from_slice(&MAGIC_TAIL.to_be_bytes());
        let checksum = digest(&SHA256, &copy);
        copy[CHECKSUM_AT..TAIL_AT].copy_from_slice(checksum.as_ref());
        copy
    }

    /// The last bytes of the partition.
    #[must_use]
    pub fn encode_legacy(&self) -> [u8; LEGACY_SIZE] {
        self.legacy.encode()
    }

    /// A whole partition of `size` bytes, which is at least [`MINIMUM_SIZE`]: a smaller size is raised to it.
    #[must_use]
    pub fn encode_partition(&self, size: usize) -> Vec<u8> {
        let mut partition = self.encode_copy();
        partition.extend_from_within(..);
        let size = size.max(MINIMUM_SIZE);
        partition.resize(size, 0);
        partition[size - LEGACY_SIZE..].copy_from_slice(&self.encode_legacy());
        partition
    }

    /// The value of a tag.
    #[must_use]
    pub fn get(&self, tag: u8) -> Option<&[u8]> {
        self.values.get(&u32::from(tag)).map(Vec::as_slice).or_else(|| self.legacy.get(tag))
    }

    /// Sets a value.
    ///
    /// # Errors
    /// [`SetError`]; nothing has changed then.
    pub fn set(&mut self, tag: u8, value: &[u8]) -> Result<(), SetError> {
        if tag == 0 {
            return Err(SetError::Reserved);
        }
        let others = self.values.iter().filter(|(other, _)| **other != u32::from(tag));
        let used = FIXED + others.map(|(_, value)| RECORD_HEADER + value.len()).sum::<usize>();
        let free = CAPACITY.saturating_sub(used + RECORD_HEADER);
        if value.len() > free || used + RECORD_HEADER > CAPACITY {
            return Err(SetError::Full { tag, length: value.len(), free });
        }
        self.values.insert(u32::from(tag), value.to_vec());
        Ok(())
    }

    /// Deletes a value, also from the older format; false if there was none.
    pub fn delete(&mut self, tag: u8) -> bool {
        let was_new = self.values.remove(&u32::from(tag)).is_some();
        self.legacy.delete(tag) || was_new
    }

    /// All values, by tag.
    #[must_use]
    pub fn values(&self) -> BTreeMap<u8, &[u8]> {
        let own = self.values.iter().filter_map(|(tag, value)| Some((u8::try_from(*tag).ok()?, value.as_slice())));
        self.legacy.values().chain(own).collect()
    }
}

/// `copy` is of [`COPY_SIZE`].
fn parse_copy(copy: &[u8]) -> Result<BTreeMap<u32, Vec<u8>>, CopyError> {
    if read_u32(copy, 0) != Some(MAGIC_HEAD) || read_u32(copy, TAIL_AT) != Some(MAGIC_TAIL) {
        return Err(CopyError::Magic);
    }
    let mut blank = copy.to_vec();
    blank[CHECKSUM_AT..TAIL_AT].fill(0);
    if digest(&SHA256, &blank).as_ref() != &copy[CHECKSUM_AT..TAIL_AT] {
        return Err(CopyError::Checksum);
    }
    let mut values = BTreeMap::new();
    let mut at = 4;
    // Without a closing tag the records end with the space.
    while at < CHECKSUM_AT {
        let tag = read_u32(&copy[..CHECKSUM_AT], at).ok_or(CopyError::Record)?;
        if tag == 0 {
            break;
        }
        let length = read_u32(&copy[..CHECKSUM_AT], at + 4).ok_or(CopyError::Record)?;
        let length = usize::try_from(length).map_err(|_| CopyError::Record)?;
        let begin = at + RECORD_HEADER;
        let end = begin.checked_add(length).filter(|end| *end <= CHECKSUM_AT).ok_or(CopyError::Record)?;
        values.insert(tag, copy[begin..end].to_vec());
        at = end;
    }
    Ok(values)
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at + 4)?;
    Some(u32::from_be_bytes(word.try_into().ok()?))
}

#[cfg(test)]
mod tests;
