//! The kernel log, `/dev/kmsg`.

use std::fs::OpenOptions;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use tokio::io::unix::AsyncFd;

/// One record of the kernel log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// syslog facility, 0 for the kernel.
    pub facility: u8,
    /// syslog priority, 0 (emergency) to 7 (debug).
    pub priority: u8,
    pub sequence: u64,
    /// Microseconds since boot.
    pub since_boot_us: u64,
    pub message: String,
}

impl Record {
    /// The name of its facility.
    #[must_use]
    pub fn facility_name(&self) -> &'static str {
        const FACILITIES: [&str; 12] =
            ["kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp"];
        FACILITIES.get(usize::from(self.facility)).copied().unwrap_or("local")
    }

    /// The name of its priority.
    #[must_use]
    pub fn priority_name(&self) -> &'static str {
        const PRIORITIES: [&str; 8] = ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"];
        PRIORITIES.get(usize::from(self.priority)).copied().unwrap_or("unknown")
    }

    /// Its time on a machine that started at `boot`.
    #[must_use]
    pub fn time(&self, boot: Timestamp) -> Timestamp {
        boot.checked_add(Duration::from_micros(self.since_boot_us)).unwrap_or(boot)
    }
}

/// When the kernel started, by the clock of `now`.
#[must_use]
pub fn boot_time(now: SystemTime) -> Timestamp {
    let up = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    let up: f64 = up.split_whitespace().next().and_then(|seconds| seconds.parse().ok()).unwrap_or_default();
    let now = Timestamp::try_from(now).unwrap_or_default();
    now.checked_sub(Duration::from_secs_f64(up)).unwrap_or_default()
}

/// Reads one record after another.
#[derive(Debug)]
pub struct Reader {
    file: AsyncFd<std::fs::File>,
}

impl Reader {
    /// Opens the log at its first kept record, or at its end.
    ///
    /// # Errors
    /// The kernel's: no device, or no right to read it.
    pub fn open(at_end: bool) -> io::Result<Self> {
        let mut file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg")?;
        file.seek(if at_end { SeekFrom::End(0) } else { SeekFrom::Start(0) })?;
        // SAFETY: the registration owns the file, so the descriptor stays open for as long as it is registered.
        Ok(Self { file: unsafe { AsyncFd::register(file) }? })
    }

    /// The next record; with `wait` false, `None` once all that is there has been read. Records that were overwritten
    /// before they were read are skipped. Cancel-safe.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn next(&mut self, wait: bool) -> io::Result<Option<Record>> {
        let mut buffer = vec![0u8; 8192];
        loop {
            let result = self.file.get_ref().read(&mut buffer);
            match result {
                Ok(n) => {
                    if let Some(record) = parse(&String::from_utf8_lossy(&buffer[..n])) {
                        return Ok(Some(record));
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    if !wait {
                        return Ok(None);
                    }
                    self.file.readable().await?.clear_ready();
                }
                // The ring moved on past this reader: the next read gives the oldest record that is left.
                Err(e) if e.raw_os_error() == Some(libc::EPIPE) || e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }
}

/// `6,339,5140900,-;message` and continuation lines that start with a space (key-value pairs, which are left out).
fn parse(text: &str) -> Option<Record> {
    let (prefix, rest) = text.split_once(';')?;
    let mut fields = prefix.split(',');
    let level: u64 = fields.next()?.parse().ok()?;
    let sequence = fields.next()?.parse().ok()?;
    let since_boot_us = fields.next()?.parse().ok()?;
    let message = rest.lines().next().unwrap_or_default().to_owned();
    Some(Record {
        facility: u8::try_from(level >> 3).unwrap_or(u8::MAX),
        priority: u8::try_from(level & 7).unwrap_or(7),
        sequence,
        since_boot_us,
        message,
    })
}

/// Writes a line into the kernel log at priority info of the user facility. The kernel cuts lines near 1,000 bytes.
///
/// # Errors
/// The kernel's.
pub fn write(line: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open("/dev/kmsg")?;
    file.write_all(format!("<14>{}", line.chars().take(900).collect::<String>()).as_bytes())
}

/// Whether the device exists and is writable.
pub fn is_writable() -> bool {
    OpenOptions::new().write(true).open("/dev/kmsg").map(OwnedFd::from).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_with_continuation_lines_keeps_only_its_message() {
        let record = parse("30,12,5140900,-;systemd[1]: hello\n SUBSYSTEM=x\n").unwrap();
        assert_eq!((record.facility, record.priority, record.sequence), (3, 6, 12));
        assert_eq!(record.message, "systemd[1]: hello");
    }

    #[test]
    fn text_that_is_no_record_is_refused() {
        assert_eq!(parse("no prefix"), None);
        assert_eq!(parse("x,1,2,-;m"), None);
    }
}
