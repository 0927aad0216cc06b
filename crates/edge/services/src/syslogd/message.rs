//! Messages of syslog, RFC 3164 and RFC 5424, as JSON objects. Pure: the time comes from the caller.
//!
//! Whatever a program sends is a message: what cannot be told apart is its content.

use std::collections::BTreeMap;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use serde_json::Value;

/// The priority of a message without one: a notice of a user's program (RFC 3164, 4.3.3).
const NOTICE: u8 = 13;
/// The highest priority: facility 23, severity 7.
const HIGHEST: u8 = 191;
/// What is in place of an absent host and tag (Talos 1.7).
const LOCALHOST: &str = "localhost";
const UNKNOWN: &str = "unknown";
/// What is in place of an absent field (RFC 5424).
const NIL: &str = "-";
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
/// The longest name of a program, as of RFC 5424.
const LONGEST_TAG: usize = 48;

type Fields = BTreeMap<&'static str, Value>;

/// A message as a line of JSON, without its end. A message without a time has that of its arrival.
#[must_use]
pub(super) fn line(message: &[u8], now: Timestamp) -> Vec<u8> {
    let text = String::from_utf8_lossy(message);
    let text = text.trim_end_matches(['\n', '\0', '\r', ' ']);
    let (priority, rest) = priority(text).unwrap_or((NOTICE, text));
    let mut fields = rfc5424(rest, now).unwrap_or_else(|| rfc3164(rest, now));
    fields.insert("priority", priority.into());
    fields.insert("facility", (priority / 8).into());
    fields.insert("severity", (priority % 8).into());
    // A map with keys that are texts becomes JSON.
    serde_json::to_vec(&fields).unwrap_or_default()
}

/// `<34>` at the beginning, and what follows.
fn priority(text: &str) -> Option<(u8, &str)> {
    let (number, rest) = text.strip_prefix('<')?.split_once('>')?;
    let is_number = (1..=3).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit());
    let priority = number.parse().ok().filter(|priority| is_number && *priority <= HIGHEST)?;
    Some((priority, rest))
}

/// `1 2003-10-11T22:14:15.003Z host app 12 id [data] message`; none for what is not of this form.
fn rfc5424(text: &str, now: Timestamp) -> Option<Fields> {
    let mut parts = text.splitn(7, ' ');
    let version: u16 = parts.next().filter(|part| (1..=3).contains(&part.len()))?.parse().ok()?;
    let timestamp = match parts.next()? {
        NIL => now,
        time => time.parse().ok()?,
    };
    let mut field = || parts.next().filter(|part| !part.is_empty());
    let (hostname, app_name, proc_id, msg_id) = (field()?, field()?, field()?, field()?);
    let (data, message) = structured_data(parts.next()?)?;
    Some(BTreeMap::from([
        ("version", version.into()),
        ("timestamp", timestamp.to_string().into()),
        ("hostname", hostname.into()),
        ("app_name", app_name.into()),
        ("proc_id", proc_id.into()),
        ("msg_id", msg_id.into()),
        ("structured_data", data.into()),
        ("message", message.into()),
    ]))
}

/// `-` or elements in brackets, and the message after them.
fn structured_data(text: &str) -> Option<(&str, &str)> {
    let end = if text.starts_with(NIL) {
        NIL.len()
    } else {
        let (mut is_in_element, mut is_quoted, mut is_escaped, mut end) = (false, false, false, 0);
        for (at, byte) in text.bytes().enumerate() {
            match byte {
                _ if is_escaped => is_escaped = false,
                b'\\' if is_quoted => is_escaped = true,
                b'"' if is_in_element => is_quoted = !is_quoted,
                b'[' if !is_in_element => is_in_element = true,
                b']' if is_in_element && !is_quoted => (is_in_element, end) = (false, at + 1),
                _ if !is_in_element => break,
                _ => {}
            }
        }
        (end > 0 && !is_in_element).then_some(end)?
    };
    let (data, rest) = text.split_at_checked(end)?;
    let message = if rest.is_empty() { "" } else { rest.strip_prefix(' ')? };
    // Texts in UTF-8 begin with a mark.
    Some((data, message.strip_prefix('\u{feff}').unwrap_or(message)))
}

/// `Oct 11 22:14:15 host tag[12]: content`, of which each part may be absent.
fn rfc3164(text: &str, now: Timestamp) -> Fields {
    let (timestamp, rest) = time(text, now).unwrap_or((now, text));
    let rest = rest.trim_start_matches(' ');
    let after_host = rest.split_once(' ').and_then(|(host, rest)| Some((host, tag(rest.trim_start())?)));
    let (hostname, found) = match (tag(rest), after_host) {
        (Some(found), _) => (LOCALHOST, Some(found)),
        (None, Some((host, found))) => (host, Some(found)),
        (None, None) => (LOCALHOST, None),
    };
    let Tag { name, process, content } = found.unwrap_or(Tag { name: UNKNOWN, process: None, content: rest });
    let mut fields = BTreeMap::from([
        ("timestamp", timestamp.to_string().into()),
        ("hostname", hostname.into()),
        ("tag", name.into()),
        ("content", content.into()),
    ]);
    // Ours: Talos 1.7 drops it.
    if let Some(process) = process {
        fields.insert("proc_id", process.into());
    }
    fields
}

struct Tag<'t> {
    name: &'t str,
    process: Option<&'t str>,
    content: &'t str,
}

/// `tag: content` or `tag[12]: content`.
fn tag(text: &str) -> Option<Tag<'_>> {
    let end = text.find([':', '[', ' '])?;
    let (name, rest) = text.split_at_checked(end)?;
    if name.is_empty() || name.len() > LONGEST_TAG {
        return None;
    }
    let (process, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map(|(process, rest)| (Some(process), rest))?,
        None => (None, rest),
    };
    let content = rest.strip_prefix(':')?;
    Some(Tag { name, process, content: content.strip_prefix(' ').unwrap_or(content) })
}

/// The time at the beginning, and what follows: `Oct 11 22:14:15`, or a time in RFC 3339.
fn time(text: &str, now: Timestamp) -> Option<(Timestamp, &str)> {
    if text.starts_with(|first: char| first.is_ascii_digit()) {
        let (time, rest) = text.split_once(' ')?;
        return Some((time.parse().ok()?, rest));
    }
    // The day is padded with a blank.
    let (time, rest) = text.split_at_checked("Oct 11 22:14:15".len())?;
    let month = MONTHS.iter().position(|month| time.starts_with(month))?;
    let month = i8::try_from(month + 1).ok()?;
    let day: i8 = time.get(4..6)?.trim_start().parse().ok()?;
    let number = |range| time.get(range).and_then(|text: &str| text.parse::<i8>().ok());
    let (hour, minute, second) = (number(7..9)?, number(10..12)?, number(13..15)?);
    let in_year = |year| {
        let civil = DateTime::new(year, month, day, hour, minute, second, 0).ok()?;
        civil.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
    };
    let year = now.to_zoned(TimeZone::UTC).year();
    // A message of the last evening of a year that arrives in the next one. Clocks may differ by a little.
    let tomorrow = now.checked_add(24.hours()).unwrap_or(now);
    let at = in_year(year).filter(|at| *at <= tomorrow).or_else(|| in_year(year - 1))?;
    Some((at, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn now() -> Timestamp {
        "2024-05-01T10:00:00Z".parse().unwrap()
    }

    fn parsed(message: &str) -> String {
        String::from_utf8(line(message.as_bytes(), now())).unwrap()
    }

    #[test]
    fn a_message_of_rfc3164_has_its_fields() {
        assert_eq!(
            parsed("<34>Apr  1 22:14:15 mymachine su: 'su root' failed\n"),
            r#"{"content":"'su root' failed","facility":4,"hostname":"mymachine","priority":34,"severity":2,"tag":"su","timestamp":"2024-04-01T22:14:15Z"}"#
        );
    }

    #[test]
    fn a_message_of_the_c_library_has_no_host() {
        assert_eq!(
            parsed("<30>May  1 09:59:59 iscsid[812]: connected to [fd00::1]:3260"),
            r#"{"content":"connected to [fd00::1]:3260","facility":3,"hostname":"localhost","priority":30,"proc_id":"812","severity":6,"tag":"iscsid","timestamp":"2024-05-01T09:59:59Z"}"#
        );
    }

    #[test]
    fn what_is_absent_is_said() {
        assert_eq!(
            parsed("only words here"),
            r#"{"content":"only words here","facility":1,"hostname":"localhost","priority":13,"severity":5,"tag":"unknown","timestamp":"2024-05-01T10:00:00Z"}"#
        );
        assert_eq!(
            parsed("<192>x"),
            r#"{"content":"<192>x","facility":1,"hostname":"localhost","priority":13,"severity":5,"tag":"unknown","timestamp":"2024-05-01T10:00:00Z"}"#
        );
    }

    #[test]
    fn a_message_of_last_december_is_of_last_year() {
        let message = "<13>Dec 31 23:59:59 a: b";
        let at = |now: &str| String::from_utf8(line(message.as_bytes(), now.parse().unwrap())).unwrap();
        assert!(at("2024-01-01T00:00:03Z").contains("2023-12-31T23:59:59Z"));
        assert!(at("2023-12-31T23:59:58Z").contains("2023-12-31T23:59:59Z"));
        // There was no such day last year.
        let leap = |now: &str| String::from_utf8(line(b"<13>Feb 29 00:00:00 a: b", now.parse().unwrap())).unwrap();
        assert!(leap("2024-03-01T00:00:00Z").contains(r#""timestamp":"2024-02-29T00:00:00Z""#));
        assert!(leap("2023-03-01T00:00:00Z").contains(r#""timestamp":"2023-03-01T00:00:00Z""#));
    }

    #[test]
    fn a_message_of_rfc5424_has_its_fields() {
        let message = "<165>1 2003-10-11T22:14:15.003Z m.example.com evntslog 12 ID47 \
                       [a@1 iut=\"3\" b=\"x ] \\\"y\\\"\"][c@2 d=\"e\"] \u{feff}An event";
        assert_eq!(
            parsed(message),
            r#"{"app_name":"evntslog","facility":20,"hostname":"m.example.com","message":"An event","msg_id":"ID47","priority":165,"proc_id":"12","severity":5,"structured_data":"[a@1 iut=\"3\" b=\"x ] \\\"y\\\"\"][c@2 d=\"e\"]","timestamp":"2003-10-11T22:14:15.003Z","version":1}"#
        );
        assert_eq!(
            parsed("<34>1 - - su - - -"),
            r#"{"app_name":"su","facility":4,"hostname":"-","message":"","msg_id":"-","priority":34,"proc_id":"-","severity":2,"structured_data":"-","timestamp":"2024-05-01T10:00:00Z","version":1}"#
        );
    }

    #[test]
    fn what_is_nearly_of_rfc5424_is_all_content() {
        for message in ["<34>1 - - su - - [open \"]", "<34>1 yesterday - su - - -", "<34>1 -", "<34>1 - - su - - -x"] {
            let parsed = parsed(message);
            let content = serde_json::Value::from(&message[4..]);
            assert!(parsed.starts_with(&format!("{{\"content\":{content},")), "{parsed}");
        }
    }

    proptest! {
        #[test]
        fn every_message_is_one_line_with_its_fields(message: Vec<u8>) {
            check(&message)?;
        }

        #[test]
        fn so_is_every_message_that_looks_like_one(
            message in "(<[0-9]{0,4}>)?([0-9] )?(Oct [ 0-9]{2} [0-9:]{8} |[0-9T:Z.-]{1,24} )?([a-z\\[\\]:\"\\\\ -]|é){0,40}"
        ) {
            check(message.as_bytes())?;
        }

        #[test]
        fn no_text_of_a_message_is_lost(host in "[a-z]{1,8}", tag in "[a-z]{1,8}", content in "[a-z][a-z :\\[\\]]{0,20}[a-z]") {
            let line = line(format!("<13>Apr  1 22:14:15 {host} {tag}: {content}").as_bytes(), now());
            let fields: BTreeMap<String, Value> = serde_json::from_slice(&line).unwrap();
            prop_assert_eq!(&fields["hostname"], &Value::from(host));
            prop_assert_eq!(&fields["tag"], &Value::from(tag));
            prop_assert_eq!(&fields["content"], &Value::from(content));
        }
    }

    fn check(message: &[u8]) -> Result<(), TestCaseError> {
        let line = line(message, now());
        prop_assert!(!line.contains(&b'\n'));
        let fields: BTreeMap<String, Value> = serde_json::from_slice(&line).unwrap();
        for field in ["facility", "hostname", "priority", "severity", "timestamp"] {
            prop_assert!(fields.contains_key(field), "{}", field);
        }
        Ok(())
    }
}
