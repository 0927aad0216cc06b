//! Writes to a disk image as QEMU's `blklogwrites` driver records them (the format of the kernel's dm-log-writes), and the
//! images that a power cut in between would have left.
//!
//! A disk keeps everything that was written before its last flush. Of what came after, a cut keeps any part, in units of
//! sectors and in any order: that is what [`WriteLog::cut`] makes of it, by a generator that a seed determines.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use anyhow::{Context as _, ensure};

/// First field of the log.
const MAGIC: u64 = 0x006a_7366_7773_6872;
const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;
/// A disk writes a sector as a whole or not at all.
const SECTOR: usize = 512;
/// More than any disk of the tests.
const MAX_BYTES: u64 = 1 << 40;

/// The writes, oldest first.
#[derive(Debug)]
pub struct WriteLog {
    log: File,
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// Position on the disk, in bytes.
    offset: u64,
    length: u64,
    /// Position of the data in the log.
    data: u64,
    flags: u64,
}

impl WriteLog {
    /// Reads the log's index.
    ///
    /// # Errors
    /// The file is no log, or is damaged.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let log = File::open(path).with_context(|| format!("opening {}", path.display()))?;
        ensure!(number(&log, 0)? == MAGIC, "{} is no log of writes", path.display());
        let count = number(&log, 16)?;
        let sector = number(&log, 24)? & 0xffff_ffff;
        ensure!(sector.is_power_of_two() && (512..=65_536).contains(&sector), "sectors of {sector} bytes");
        let mut entries = Vec::new();
        let mut position = sector;
        for _ in 0..count {
            let (start, sectors, flags) =
                (number(&log, position)?, number(&log, position + 8)?, number(&log, position + 16)?);
            let (offset, length) = (start.saturating_mul(sector), sectors.saturating_mul(sector));
            ensure!(offset < MAX_BYTES && length < MAX_BYTES, "an entry for {length} bytes at {offset}");
            position += sector;
            entries.push(Entry { offset, length, data: position, flags });
            if flags & DISCARD == 0 {
                position += length;
            }
        }
        Ok(Self { log, entries })
    }

    /// The number of writes and flushes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The first write whose first sector is as `is` says.
    ///
    /// # Errors
    /// Reading the log fails.
    pub fn find(&self, is: impl Fn(&[u8]) -> bool) -> anyhow::Result<Option<usize>> {
        self.matching(is).next().transpose()
    }

    /// All writes whose first sectors are as `is` says, oldest first.
    ///
    /// # Errors
    /// Reading the log fails.
    pub fn all(&self, is: impl Fn(&[u8]) -> bool) -> anyhow::Result<Vec<usize>> {
        self.matching(is).collect()
    }

    fn matching(&self, is: impl Fn(&[u8]) -> bool) -> impl Iterator<Item = anyhow::Result<usize>> {
        let writes = self.entries.iter().enumerate();
        writes.filter(|(_, entry)| entry.length > 0 && entry.flags & DISCARD == 0).filter_map(move |(index, entry)| {
            let mut sector = [0; SECTOR];
            match self.log.read_exact_at(&mut sector, entry.data).context("reading the log of writes") {
                Ok(()) => is(&sector).then_some(Ok(index)),
                Err(error) => Some(Err(error)),
            }
        })
    }

    /// The cut at which the write at `index` is the last that is surely kept: right after the flush that follows it.
    pub fn flushed(&self, index: usize) -> Option<usize> {
        let flush = self.entries.get(index..)?.iter().position(|entry| entry.flags & FLUSH != 0)?;
        Some(index + flush + 1)
    }

    /// Applies to `disk`, an image as it was when the log began, what a power cut before entry `at` leaves of the log.
    ///
    /// # Errors
    /// Reading the log or writing the image fails.
    pub fn cut(&self, disk: &File, at: usize, seed: u64) -> anyhow::Result<()> {
        let before = self.entries.get(..at).context("a cut after the end of the log")?;
        let kept = before.iter().rposition(|entry| entry.flags & FLUSH != 0).map_or(0, |flush| flush + 1);
        let mut random = Random(seed);
        for (index, entry) in before.iter().enumerate() {
            let is_safe = index < kept || entry.flags & FUA != 0;
            self.apply(disk, *entry, || is_safe || random.coin()).with_context(|| format!("entry {index}"))?;
        }
        Ok(())
    }

    /// Writes those sectors of an entry that `keeps` accepts; mostly all or none, as most writes are not torn.
    fn apply(&self, disk: &File, entry: Entry, mut keeps: impl FnMut() -> bool) -> io::Result<()> {
        /// As much as is held in memory.
        const CHUNK: u64 = 1 << 20;
        let mut done = 0;
        while done < entry.length {
            let length = CHUNK.min(entry.length - done);
            let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
            if entry.flags & DISCARD == 0 {
                self.log.read_exact_at(&mut bytes, entry.data + done)?;
            }
            if keeps() {
                disk.write_all_at(&bytes, entry.offset + done)?;
            } else if keeps() {
                // Torn: some of the sectors.
                for (start, bytes) in (0..).step_by(SECTOR).zip(bytes.chunks(SECTOR)) {
                    if keeps() {
                        disk.write_all_at(bytes, entry.offset + done + start)?;
                    }
                }
            }
            done += length;
        }
        Ok(())
    }
}

fn number(file: &File, position: u64) -> anyhow::Result<u64> {
    let mut bytes = [0; 8];
    file.read_exact_at(&mut bytes, position).context("reading the log of writes")?;
    Ok(u64::from_le_bytes(bytes))
}

/// SplitMix64: small, and the same everywhere.
#[derive(Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.number() % bound.max(1)
    }

    fn coin(&mut self) -> bool {
        self.number() & 1 == 1
    }
}
