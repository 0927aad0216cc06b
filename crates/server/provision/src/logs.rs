//! Logs of nodes and of the agent: kept within bounds, and read from their end.
//!
//! Whoever writes a log has its file open for appending and knows nothing of this. So a log that grew is copied to `NAME.log.1`
//! and cut to nothing in place; lines written between the two, a few at most, are lost.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::HostError;

/// A log that is larger is cut. A node writes about 1 MiB when it boots and half of that in an hour, so two files of this size
/// hold the last boot and most of a day; ten nodes with their services take 200 MiB at most.
const LIMIT: u64 = 8 << 20;
/// Between two looks. A node that writes 1 MB in a second goes over the limit by 10 MB.
const PERIOD: Duration = Duration::from_secs(10);
/// How far back a tail looks for lines that are wanted.
const SEARCHED: u64 = 1 << 20;
const BLOCK: usize = 64 << 10;

/// Keeps all logs of a folder within bounds until the future is dropped.
pub(crate) async fn keep_bounded(folder: PathBuf) {
    loop {
        let checked = folder.clone();
        // Dropping the future lets the thread finish the file that it has begun.
        let done = tokio::task::spawn_blocking(move || bound_all(&checked, LIMIT)).await;
        for error in done.unwrap_or_default() {
            tracing::warn!(error = %stdx::error_chain(&error), "a log cannot be cut");
        }
        tokio::time::sleep(PERIOD).await;
    }
}

fn bound_all(folder: &Path, limit: u64) -> Vec<HostError> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let logs = entries.map(|entry| entry.path()).filter(|path| path.as_os_str().as_bytes().ends_with(b".log"));
    logs.filter_map(|path| bound(&path, limit).err()).collect()
}

/// Truncates a log above the limit after copying it to `NAME.log.1`.
fn bound(path: &Path, limit: u64) -> Result<(), HostError> {
    if std::fs::metadata(path).map_or(0, |metadata| metadata.len()) <= limit {
        return Ok(());
    }
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    let old = PathBuf::from(name);
    let mut log = File::options().read(true).write(true).open(path).map_err(HostError::io("opening", path))?;
    // Only the last part, after a long interval without a check.
    let size = log.metadata().map_err(HostError::io("reading", path))?.len();
    log.seek(SeekFrom::Start(size.saturating_sub(limit))).map_err(HostError::io("reading", path))?;
    let mut copy = File::create(&old).map_err(HostError::io("writing", &old))?;
    std::io::copy(&mut log, &mut copy).map_err(HostError::io("writing", &old))?;
    log.set_len(0).map_err(HostError::io("cutting", path))
}

/// The last lines that are wanted, oldest first; fewer where the last mebibyte has not that many. None of a file that is not
/// there.
pub(crate) fn tail(path: &Path, lines: usize, wanted: impl Fn(&str) -> bool) -> Vec<String> {
    read_tail(path, lines, &wanted).unwrap_or_default()
}

fn read_tail(path: &Path, lines: usize, wanted: &impl Fn(&str) -> bool) -> std::io::Result<Vec<String>> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    let start = size.saturating_sub(SEARCHED);
    let mut found = Vec::new();
    // The beginning of the line that the last block began within.
    let mut rest: Vec<u8> = Vec::new();
    let mut end = size;
    while end > start && found.len() < lines {
        let length = usize::try_from(end - start).unwrap_or(BLOCK).min(BLOCK);
        end -= length as u64;
        let mut block = vec![0; length];
        file.seek(SeekFrom::Start(end))?;
        file.read_exact(&mut block)?;
        block.append(&mut rest);
        let mut all: Vec<&[u8]> = block.split(|byte| *byte == b'\n').collect();
        // The first may have begun before the block; nothing is before the file.
        let first = if end == 0 { None } else { Some(all.remove(0).to_vec()) };
        let text = |line: &&[u8]| String::from_utf8_lossy(line).into_owned();
        let lines_of_block = all.iter().rev().map(text).filter(|line| !line.is_empty() && wanted(line));
        found.extend(lines_of_block.take(lines - found.len()));
        rest = first.unwrap_or_default();
    }
    found.reverse();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn file(text: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.log");
        std::fs::write(&path, text).unwrap();
        (folder, path)
    }

    #[test]
    fn a_tail_is_the_last_wanted_lines_in_order() {
        let (_folder, path) = file(b"one\ntwo\n\nthree skip\nfour\xff\nfive");
        let last = |lines| tail(&path, lines, |line| !line.contains("skip"));
        assert_eq!(last(2), ["four\u{fffd}", "five"]);
        assert_eq!(last(9), ["one", "two", "four\u{fffd}", "five"]);
        assert_eq!(last(0), [""; 0]);
        assert_eq!(tail(Path::new("/does/not/exist"), 3, |_| true), [""; 0]);
    }

    #[test]
    fn lines_that_cross_blocks_are_whole() {
        let lines: Vec<String> = (0..60_000).map(|n| format!("line number {n}")).collect();
        let (_folder, path) = file((lines.join("\n") + "\n").as_bytes());
        assert_eq!(tail(&path, 20_000, |_| true), lines[40_000..]);
    }

    #[test]
    fn a_tail_reads_only_the_end_of_a_large_log() {
        let (_folder, path) = file(b"");
        // Sparse: reading all of it would take the test's memory.
        let log = File::options().write(true).open(&path).unwrap();
        log.set_len(1 << 40).unwrap();
        drop(log);
        let mut log = File::options().append(true).open(&path).unwrap();
        log.write_all(b"\nlast\n").unwrap();
        assert_eq!(tail(&path, 1, |line| line == "last"), ["last"]);
        assert!(tail(&path, 1, |line| line == "missing").is_empty());
    }

    #[test]
    fn a_log_that_grew_is_cut_while_its_writer_goes_on() {
        let (folder, path) = file(b"");
        let mut writer = File::options().append(true).open(&path).unwrap();
        let small = folder.path().join("small.log");
        std::fs::write(&small, "small").unwrap();
        for round in 0..3 {
            writer.write_all(format!("{round}").repeat(1500).as_bytes()).unwrap();
            assert!(bound_all(folder.path(), 1000).is_empty());
            writer.write_all(b"after").unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), "after");
            let old = std::fs::read_to_string(folder.path().join("a.log.1")).unwrap();
            assert_eq!(old, format!("{round}").repeat(1000), "the last of it is kept");
        }
        assert_eq!(std::fs::read_to_string(&small).unwrap(), "small");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3);
    }
}
