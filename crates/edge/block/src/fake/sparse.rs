//! Bytes of a disk of which few are not zero.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom};

const CHUNK: usize = 4096;

#[derive(Debug, Clone)]
pub(super) struct Sparse {
    size: u64,
    chunks: BTreeMap<u64, Vec<u8>>,
}

impl Sparse {
    pub(super) fn new(size: u64) -> Self {
        Self { size, chunks: BTreeMap::new() }
    }

    pub(super) fn resize(&mut self, size: u64) {
        self.size = size;
        self.chunks.retain(|chunk, _| chunk * (CHUNK as u64) < size);
    }

    /// The caller has checked the bounds.
    pub(super) fn read(&self, offset: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.visit(offset, length, |chunk, at, range| {
            if let Some(chunk) = self.chunks.get(&chunk) {
                let length = range.len();
                bytes[range].copy_from_slice(&chunk[at..at + length]);
            }
        });
        bytes
    }

    /// A part of the disk as a file.
    pub(super) fn reader(&self, start: u64, size: u64) -> Reader<'_> {
        Reader { data: self, start, size, at: 0 }
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let mut parts = Vec::new();
        self.visit(offset, bytes.len(), |chunk, at, range| parts.push((chunk, at, range)));
        for (chunk, at, range) in parts {
            let length = range.len();
            let chunk = self.chunks.entry(chunk).or_insert_with(|| vec![0; CHUNK]);
            chunk[at..at + length].copy_from_slice(&bytes[range]);
        }
    }

    /// Calls with each chunk, the place in it, and the range of the request that it covers.
    fn visit(&self, offset: u64, length: usize, mut call: impl FnMut(u64, usize, std::ops::Range<usize>)) {
        debug_assert!(offset + length as u64 <= self.size, "the caller checks the bounds");
        let mut done = 0;
        while done < length {
            let at = offset + done as u64;
            let within = usize::try_from(at % CHUNK as u64).unwrap_or(0);
            let count = (CHUNK - within).min(length - done);
            call(at / CHUNK as u64, within, done..done + count);
            done += count;
        }
    }
}

/// Reads a part of a disk.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    data: &'a Sparse,
    start: u64,
    size: u64,
    at: u64,
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.size.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let count = buffer.len().min(left);
        buffer[..count].copy_from_slice(&self.data.read(self.start + self.at, count));
        self.at += count as u64;
        Ok(count)
    }
}

impl Seek for Reader<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.at = match to {
            SeekFrom::Start(at) => at,
            SeekFrom::End(by) => self.size.saturating_add_signed(by),
            SeekFrom::Current(by) => self.at.saturating_add_signed(by),
        };
        Ok(self.at)
    }
}
