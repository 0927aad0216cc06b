//! Finding out what a device holds by the signatures in its first bytes: file systems, encrypted and pooled volumes.
//!
//! The bytes are hostile: everything read is bounded, and no number in them is trusted. Partition tables are
//! `machine::gpt`'s matter.

mod fields;
mod filesystems;
mod foreign;
mod volumes;

use std::io::{self, Read, Seek, SeekFrom};

/// The part of a device that signatures are looked for in: it ends behind the first label of a ZFS pool.
pub const HEAD: usize = 256 * 1024;
/// Longest label that is kept, in characters.
const LABEL: usize = 256;

/// What a device holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Content {
    /// `xfs`, `vfat`, `luks`, …
    pub name: &'static str,
    /// Empty where there is none.
    pub label: String,
    /// Empty where there is none; as the tools of the format write it.
    pub uuid: String,
    /// The unit of the format's own input and output in bytes; 0 if unknown.
    pub block_size: u32,
    /// The unit that a file system allocates in bytes; 0 if unknown.
    pub filesystem_block_size: u32,
    /// The bytes that the content takes of the device; 0 if unknown.
    pub size: u64,
}

type Parser = fn(&[u8]) -> Option<Content>;

/// In the order of precedence. Formats whose signature is long or checked come before those with a short one, and VFAT, which
/// has hardly any, comes last of the file systems.
const PARSERS: [Parser; 16] = [
    volumes::luks,
    volumes::lvm2,
    volumes::bluestore,
    volumes::raid,
    filesystems::xfs,
    filesystems::ext,
    filesystems::btrfs,
    filesystems::squashfs,
    filesystems::swap,
    filesystems::zfs,
    foreign::iso9660,
    foreign::exfat,
    foreign::ntfs,
    foreign::vfat,
    volumes::meta,
    foreign::dos,
];

/// What the device behind `reader` holds, of `size` bytes; `None` where nothing is recognized.
///
/// # Errors
/// Reading failed.
pub fn probe(reader: &mut (impl Read + Seek), size: u64) -> io::Result<Option<Content>> {
    Ok(probe_head(&read_head(reader, size)?))
}

/// The same from the first [`HEAD`] bytes of a device.
#[must_use]
pub fn probe_head(head: &[u8]) -> Option<Content> {
    PARSERS.iter().find_map(|parse| parse(head))
}

fn read_head(reader: &mut (impl Read + Seek), size: u64) -> io::Result<Vec<u8>> {
    reader.seek(SeekFrom::Start(0))?;
    let mut head = Vec::new();
    reader.take(size.min(HEAD as u64)).read_to_end(&mut head)?;
    Ok(head)
}

#[cfg(test)]
mod tests;
