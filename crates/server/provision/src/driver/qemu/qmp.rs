//! The emulator's control protocol (QMP), as little of it as a monitor needs: the negotiation after which it tells events, and
//! the event that says why a machine ended.
//!
//! The emulator writes all that it says to a log, also while nobody is connected. So how a machine ended is known whether or
//! not its monitor lived to see it.

use std::fs::File;
use std::io::{BufReader, Read as _, Seek as _, SeekFrom};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use crate::driver::{Ended, Exit};

/// A greeting has some hundred bytes.
const LONGEST_LINE: u64 = 64 << 10;
/// The end of a log that is searched for the last event; an event has some hundred bytes.
const SEARCHED: u64 = 256 << 10;

/// A message; others than these fields do not matter.
#[derive(Debug, Deserialize)]
struct Message {
    #[serde(rename = "QMP")]
    greeting: Option<serde_json::Value>,
    #[serde(rename = "return")]
    answer: Option<serde_json::Value>,
    event: Option<String>,
    data: Option<Data>,
    error: Option<Refusal>,
}

#[derive(Debug, Deserialize)]
struct Data {
    reason: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Refusal {
    #[serde(default)]
    desc: String,
}

/// Asks the emulator for events. `socket` may be relative to this process's folder.
pub(super) fn negotiate(socket: &Path, patience: Duration) -> std::io::Result<()> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    let mut reader = BufReader::new(stream.try_clone()?).take(LONGEST_LINE);
    let mut writer = stream;
    converse(&mut reader, &mut writer)
}

fn converse(reader: &mut impl std::io::BufRead, writer: &mut impl std::io::Write) -> std::io::Result<()> {
    let invalid = |what: String| std::io::Error::new(std::io::ErrorKind::InvalidData, what);
    let mut line = String::new();
    let mut greeted = false;
    while reader.read_line(&mut line)? > 0 {
        let message: Message = serde_json::from_str(&line).map_err(std::io::Error::from)?;
        line.clear();
        if let Some(Refusal { desc }) = message.error {
            return Err(invalid(format!("the emulator refuses: {desc}")));
        }
        if message.greeting.is_some() && !greeted {
            greeted = true;
            writer.write_all(b"{\"execute\":\"qmp_capabilities\"}\n")?;
        }
        if message.answer.is_some() {
            return Ok(());
        }
    }
    Err(std::io::ErrorKind::UnexpectedEof.into())
}

/// How the machine ended by itself, as the log says; none where the emulator ended without having been told to.
pub(super) fn end(log: &Path) -> Option<Ended> {
    let mut file = File::open(log).ok()?;
    let size = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(SEARCHED))).ok()?;
    let mut text = Vec::new();
    file.take(SEARCHED).read_to_end(&mut text).ok()?;
    end_in(&String::from_utf8_lossy(&text))
}

fn end_in(log: &str) -> Option<Ended> {
    let events = log.lines().rev().filter_map(|line| serde_json::from_str::<Message>(line).ok());
    let mut ends = events.filter(|message| message.event.as_deref() == Some("SHUTDOWN"));
    let reason = ends.next()?.data?.reason?;
    Some(match reason.as_str() {
        "guest-shutdown" => Ended::PoweredOff,
        "guest-reset" | "host-qmp-system-reset" => Ended::Reboot,
        // A panic that the guest told of, a signal, an error of the emulator, or one that a later emulator will have.
        _ => Ended::Crashed(Exit::Unknown),
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const GREETING: &str =
        r#"{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}}, "capabilities": ["oob"]}}"#;

    fn talk(lines: &[&str]) -> (std::io::Result<()>, String) {
        let (text, mut said) = (lines.join("\r\n") + "\r\n", Vec::new());
        let done = converse(&mut text.as_bytes(), &mut said);
        (done, String::from_utf8(said).unwrap())
    }

    #[test]
    fn capabilities_are_negotiated_once_whatever_comes_between() {
        let event = r#"{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "RESUME"}"#;
        let (done, said) = talk(&[event, GREETING, event, r#"{"return": {}}"#]);
        done.unwrap();
        assert_eq!(said, "{\"execute\":\"qmp_capabilities\"}\n");
    }

    #[test]
    fn an_emulator_that_says_something_else_is_not_believed() {
        use std::io::ErrorKind::{InvalidData, UnexpectedEof};
        for (lines, kind) in [
            (vec![GREETING, r#"{"error": {"class": "GenericError", "desc": "no"}}"#], InvalidData),
            (vec![GREETING], UnexpectedEof),
            (vec![], UnexpectedEof),
        ] {
            assert_eq!(talk(&lines).0.unwrap_err().kind(), kind, "{lines:?}");
        }
        assert!(talk(&["no json"]).0.unwrap_err().kind() == InvalidData);
    }

    #[test]
    fn the_last_end_counts_with_its_reason() {
        let event = |reason: &str| {
            format!(
                r#"{{"timestamp": {{"seconds": 1}}, "event": "SHUTDOWN", "data": {{"guest": true, "reason": "{reason}"}}}}"#
            )
        };
        for (reason, ended) in [
            ("guest-shutdown", Ended::PoweredOff),
            ("guest-reset", Ended::Reboot),
            ("guest-panic", Ended::Crashed(Exit::Unknown)),
            ("host-signal", Ended::Crashed(Exit::Unknown)),
            ("host-error", Ended::Crashed(Exit::Unknown)),
        ] {
            let log =
                format!("cut off}}\n{}\n{}\nno json\n{{\"return\": {{}}}}\n", event("guest-panic"), event(reason));
            assert_eq!(end_in(&log), Some(ended), "{reason}");
        }
        assert_eq!(end_in(""), None);
        assert_eq!(end_in(r#"{"event": "RESET", "data": {"reason": "guest-reset"}}"#), None);
    }

    #[test]
    fn only_the_end_of_a_log_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        assert_eq!(end(&log), None);
        let file = File::create(&log).unwrap();
        file.set_len(1 << 40).unwrap();
        assert_eq!(end(&log), None);
        let mut file = File::options().append(true).open(&log).unwrap();
        file.write_all(b"\n{\"event\": \"SHUTDOWN\", \"data\": {\"reason\": \"guest-shutdown\"}}\n").unwrap();
        assert_eq!(end(&log), Some(Ended::PoweredOff));
    }
}
