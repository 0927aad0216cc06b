//! Service logs: a ring per service in memory, lost on reboot.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

/// How much of one service's output is kept (Talos 1.7: 1 MiB).
pub const CAPACITY: usize = 1 << 20;

/// How much a log takes before anything is written (Talos 1.7: 16 KiB). Doubled, it arrives at the capacity exactly.
const INITIAL: usize = 16 << 10;

/// Appends bytes to a log.
pub type Sink = Arc<dyn Fn(&[u8]) + Send + Sync>;

struct Ring {
    bytes: VecDeque<u8>,
    /// How many bytes were ever written.
    written: u64,
}

struct Log {
    ring: Mutex<Ring>,
    version: watch::Sender<u64>,
}

/// The logs of all services. Cheap to clone.
#[derive(Clone, Default)]
pub struct LogStore {
    logs: Arc<Mutex<BTreeMap<String, Arc<Log>>>>,
    added: Arc<watch::Sender<u64>>,
}

impl fmt::Debug for LogStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogStore").field("services", &self.ids()).finish()
    }
}

/// Where a read starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With the oldest byte that is kept.
    Beginning,
    /// At the last N lines.
    Tail(usize),
}

impl LogStore {
    /// A function that appends to the log of `id`.
    pub fn sink(&self, id: &str) -> Sink {
        let log = self.log(id);
        Arc::new(move |bytes| log.append(bytes))
    }

    /// The services that have a log, sorted.
    pub fn ids(&self) -> Vec<String> {
        self.logs.lock().keys().cloned().collect()
    }

    /// Changes whenever a service gets a log. The value counts them.
    pub fn added(&self) -> watch::Receiver<u64> {
        self.added.subscribe()
    }

    /// A reader of the log of `id`; `None` if there is no such log.
    pub fn reader(&self, id: &str, start: Start) -> Option<LogReader> {
        let log = self.logs.lock().get(id).cloned()?;
        let position = {
            let ring = log.ring.lock();
            let oldest = ring.written - ring.bytes.len() as u64;
            match start {
                Start::Beginning => oldest,
                Start::Tail(lines) => oldest + tail_offset(&ring.bytes, lines) as u64,
            }
        };
        let version = log.version.subscribe();
        Some(LogReader { log, position, skipped: 0, version })
    }

    /// The last `lines` lines of the log of `id`, for messages about a failure.
    pub fn tail(&self, id: &str, lines: usize) -> Vec<String> {
        let Some(mut reader) = self.reader(id, Start::Tail(lines)) else { return Vec::new() };
        let mut text = Vec::new();
        while let Some(bytes) = reader.try_next() {
            text.extend(bytes);
        }
        String::from_utf8_lossy(&text).lines().map(str::to_owned).collect()
    }

    fn log(&self, id: &str) -> Arc<Log> {
        let new = || {
            let ring = Mutex::new(Ring { bytes: VecDeque::with_capacity(INITIAL), written: 0 });
            Arc::new(Log { ring, version: watch::Sender::new(0) })
        };
        let mut logs = self.logs.lock();
        if let Some(log) = logs.get(id) {
            return Arc::clone(log);
        }
        let log = new();
        logs.insert(id.to_owned(), Arc::clone(&log));
        drop(logs);
        self.added.send_modify(|count| *count += 1);
        log
    }
}

impl Log {
    fn append(&self, bytes: &[u8]) {
        let mut ring = self.ring.lock();
        // Room is made first: a ring that grew past its capacity would keep twice the memory from then on.
        let kept = &bytes[bytes.len().saturating_sub(CAPACITY)..];
        let excess = (ring.bytes.len() + kept.len()).saturating_sub(CAPACITY);
        ring.bytes.drain(..excess);
        ring.bytes.extend(kept);
        ring.written += bytes.len() as u64;
        self.version.send_replace(ring.written);
    }
}

/// Where the last `lines` lines begin. A line end at the very end closes the last line.
fn tail_offset(bytes: &VecDeque<u8>, lines: usize) -> usize {
    if lines == 0 {
        return bytes.len();
    }
    let body = bytes.len().saturating_sub(1);
    let ends = bytes.iter().take(body).enumerate().rev().filter(|(_, byte)| **byte == b'\n');
    ends.map(|(at, _)| at + 1).nth(lines - 1).unwrap_or(0)
}

/// Reads a log from a position. A reader slower than the service skips overwritten bytes.
pub struct LogReader {
    log: Arc<Log>,
    position: u64,
    /// Overwritten bytes since [`LogReader::take_skipped`].
    skipped: u64,
    version: watch::Receiver<u64>,
}

impl fmt::Debug for LogReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogReader").field("position", &self.position).finish_non_exhaustive()
    }
}

impl LogReader {
    /// The bytes after the position, at most 32 KiB; `None` if there are none.
    pub fn try_next(&mut self) -> Option<Vec<u8>> {
        let ring = self.log.ring.lock();
        let oldest = ring.written - ring.bytes.len() as u64;
        self.skipped += oldest.saturating_sub(self.position);
        self.position = self.position.max(oldest);
        let from = usize::try_from(self.position - oldest).ok()?;
        let chunk: Vec<u8> = ring.bytes.range(from..).take(32 << 10).copied().collect();
        self.position += chunk.len() as u64;
        (!chunk.is_empty()).then_some(chunk)
    }

    /// How many bytes were overwritten before they were read, since the last call.
    pub fn take_skipped(&mut self) -> u64 {
        std::mem::take(&mut self.skipped)
    }

    /// The next bytes, waiting for them. Cancel-safe. `None` when the log is dropped.
    pub async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            self.version.borrow_and_update();
            if let Some(chunk) = self.try_next() {
                return Some(chunk);
            }
            self.version.changed().await.ok()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(reader: &mut LogReader) -> String {
        let mut all = Vec::new();
        while let Some(chunk) = reader.try_next() {
            all.extend(chunk);
        }
        String::from_utf8(all).unwrap()
    }

    #[test]
    fn a_tail_counts_lines_with_and_without_a_last_line_end() {
        let store = LogStore::default();
        let sink = store.sink("etcd");
        sink(b"one\ntwo\nthree\n");
        assert_eq!(text(&mut store.reader("etcd", Start::Tail(2)).unwrap()), "two\nthree\n");
        sink(b"four");
        assert_eq!(text(&mut store.reader("etcd", Start::Tail(2)).unwrap()), "three\nfour");
        assert_eq!(text(&mut store.reader("etcd", Start::Tail(9)).unwrap()), "one\ntwo\nthree\nfour");
        assert_eq!(text(&mut store.reader("etcd", Start::Tail(0)).unwrap()), "");
        assert!(store.reader("none", Start::Beginning).is_none());
    }

    #[test]
    fn a_reader_that_was_overtaken_goes_on_with_the_oldest_byte_that_is_kept() {
        let store = LogStore::default();
        let sink = store.sink("x");
        sink(b"old");
        let mut reader = store.reader("x", Start::Beginning).unwrap();
        sink(&vec![b'n'; CAPACITY]);
        assert_eq!(text(&mut reader).len(), CAPACITY);
        assert_eq!((reader.take_skipped(), reader.take_skipped()), (3, 0));
    }

    #[test]
    fn a_full_log_takes_no_more_memory_than_it_keeps() {
        let store = LogStore::default();
        let sink = store.sink("x");
        (0..3 * CAPACITY / 4096).for_each(|_| sink(&[b'n'; 4096]));
        sink(&vec![b'm'; 2 * CAPACITY + 1]);
        let log = store.log("x");
        let ring = log.ring.lock();
        assert_eq!((ring.bytes.len(), ring.bytes.capacity()), (CAPACITY, CAPACITY));
        assert_eq!(ring.written, 5 * CAPACITY as u64 + 1);
    }

    #[tokio::test]
    async fn a_follower_gets_what_is_written_later() {
        let store = LogStore::default();
        let sink = store.sink("x");
        let mut reader = store.reader("x", Start::Beginning).unwrap();
        let (got, ()) = tokio::join!(reader.next(), async { sink(b"late") });
        assert_eq!(got.unwrap(), b"late");
    }
}
