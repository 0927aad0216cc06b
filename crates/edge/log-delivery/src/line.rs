//! Log lines as JSON objects. Pure: the time comes from the caller.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Map, Value};
use sys::kmsg::Record;

/// Keys in their order, as receivers compare lines.
type Fields = BTreeMap<String, Value>;

/// The object of a line of a service: always with `msg`, `talos-level`, `talos-service` and `talos-time`, then the tags, then
/// the fields of a line that is a JSON object itself; an earlier one of these wins.
pub(crate) fn of_service(service: &str, line: &str, tags: &BTreeMap<String, String>, now: Timestamp) -> Vec<u8> {
    let parsed = match serde_json::from_str::<Map<String, Value>>(line) {
        Ok(fields) => of_object(fields),
        Err(_) => of_text(line),
    };
    let mut fields: Fields = parsed.fields.into_iter().collect();
    fields.extend(tags.iter().map(|(tag, value)| (tag.clone(), Value::from(value.as_str()))));
    fields.insert("talos-service".to_owned(), Value::from(service));
    finish(fields, parsed.message, parsed.level, parsed.time.unwrap_or(now))
}

/// The object of a record of the kernel log, which started at `boot`.
pub(crate) fn of_kernel(record: &Record, boot: Timestamp) -> Vec<u8> {
    let level = match record.priority {
        0..=3 => "error",
        4 => "warn",
        5 | 6 => "info",
        _ => "debug",
    };
    let fields = [
        ("clock", Value::from(record.since_boot_us)),
        ("facility", Value::from(record.facility_name())),
        ("priority", Value::from(record.priority_name())),
        ("seq", Value::from(record.sequence)),
    ];
    let fields = fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    finish(fields, record.message.clone(), level.to_owned(), record.time(boot))
}

fn finish(mut fields: Fields, message: String, level: String, time: Timestamp) -> Vec<u8> {
    let always = [
        ("msg", Value::from(message)),
        ("talos-level", Value::from(level)),
        ("talos-time", Value::from(time.to_string())),
    ];
    fields.extend(always.map(|(key, value)| (key.to_owned(), value)));
    // A map with keys that are texts becomes JSON.
    serde_json::to_vec(&fields).unwrap_or_default()
}

struct Line {
    message: String,
    level: String,
    time: Option<Timestamp>,
    fields: Map<String, Value>,
}

/// `msg` and `err`, `level`, `time` or `ts` are the message, the level and the time of the line.
fn of_object(mut fields: Map<String, Value>) -> Line {
    let mut take = |key: &str| match fields.get(key) {
        Some(Value::String(_)) => {
            fields.remove(key).and_then(|value| value.as_str().map(|text| text.trim().to_owned()))
        }
        _ => None,
    };
    let (message, error, level) = (take("msg").unwrap_or_default(), take("err").unwrap_or_default(), take("level"));
    let message = match (message.is_empty(), error.is_empty()) {
        (_, true) => message,
        (true, false) => error,
        (false, false) => format!("{message}: {error}"),
    };
    let found = ["time", "ts"].into_iter().find_map(|key| Some((key, fields.get(key).and_then(timestamp)?)));
    if let Some((key, _)) = found {
        fields.remove(key);
    }
    let level = level.map_or_else(|| "info".to_owned(), |level| level_name(&level));
    Line { message, level, time: found.map(|(_, time)| time), fields }
}

/// Lines of our own programs begin with a level, those of machined with the time before it.
fn of_text(line: &str) -> Line {
    let line = line.trim();
    let (time, rest) = match line.split_once(' ').map(|(time, rest)| (time.parse().ok(), rest)) {
        Some((Some(time), rest)) => (Some(time), rest.trim_start()),
        _ => (None, line),
    };
    let (level, message) = match rest.split_once(' ') {
        Some((level @ ("ERROR" | "WARN" | "INFO" | "DEBUG" | "TRACE"), message)) => (level_name(level), message),
        _ => ("info".to_owned(), line),
    };
    Line { message: message.to_owned(), level, time, fields: Map::new() }
}

fn level_name(level: &str) -> String {
    let level = level.to_ascii_lowercase();
    match level.as_str() {
        "warning" => "warn".to_owned(),
        "trace" => "debug".to_owned(),
        _ => level,
    }
}

/// A time in RFC 3339, or the seconds or milliseconds since 1970.
fn timestamp(value: &Value) -> Option<Timestamp> {
    /// Numbers from here on are milliseconds: as seconds they are after the year 5000.
    const MILLISECONDS: f64 = 1e11;
    match value {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => {
            let number = number.as_f64().filter(|number| number.is_finite() && *number >= 0.0)?;
            let seconds = if number < MILLISECONDS { number } else { number / 1000.0 };
            let since = std::time::Duration::try_from_secs_f64(seconds).ok()?;
            Timestamp::UNIX_EPOCH.checked_add(since).ok()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn service(line: &str, tags: &[(&str, &str)]) -> String {
        let tags = tags.iter().map(|(tag, value)| ((*tag).to_owned(), (*value).to_owned())).collect();
        String::from_utf8(of_service("etcd", line, &tags, at("2024-05-01T10:00:00Z"))).unwrap()
    }

    #[test]
    fn a_line_of_text_is_the_message() {
        assert_eq!(
            service("  listening \"here\"\t", &[("rack", "7")]),
            r#"{"msg":"listening \"here\"","rack":"7","talos-level":"info","talos-service":"etcd","talos-time":"2024-05-01T10:00:00Z"}"#
        );
    }

    #[test]
    fn a_line_that_is_an_object_keeps_its_fields() {
        let line =
            r#"{"level":"WARNING","ts":"2024-05-01T09:59:58.5Z","caller":"a.go:1","msg":"slow ","err":"late","n":2}"#;
        assert_eq!(
            service(line, &[]),
            r#"{"caller":"a.go:1","msg":"slow: late","n":2,"talos-level":"warn","talos-service":"etcd","talos-time":"2024-05-01T09:59:58.5Z"}"#
        );
        for (ts, time) in [("1714557598.5", "2024-05-01T09:59:58.5Z"), ("1714557598500.0", "2024-05-01T09:59:58.5Z")] {
            let shown = service(&format!(r#"{{"ts":{ts},"msg":"m"}}"#), &[]);
            assert!(shown.contains(&format!(r#""talos-time":"{time}""#)), "{shown}");
        }
    }

    #[test]
    fn a_line_cannot_pretend_to_be_of_another_service() {
        let line = r#"{"talos-service":"apid","talos-level":"x","talos-time":"y","msg":5,"rack":"1"}"#;
        assert_eq!(
            service(line, &[("rack", "7"), ("talos-service", "trustd")]),
            r#"{"msg":"","rack":"7","talos-level":"info","talos-service":"etcd","talos-time":"2024-05-01T10:00:00Z"}"#
        );
    }

    #[test]
    fn a_line_of_our_own_has_its_time_and_level() {
        let line = "2024-05-01T09:00:00.25Z  WARN task{name=x}: a::b: it failed error=late";
        assert_eq!(
            service(line, &[]),
            r#"{"msg":"task{name=x}: a::b: it failed error=late","talos-level":"warn","talos-service":"etcd","talos-time":"2024-05-01T09:00:00.25Z"}"#
        );
        assert_eq!(
            service("ERROR apid: it failed", &[]),
            r#"{"msg":"apid: it failed","talos-level":"error","talos-service":"etcd","talos-time":"2024-05-01T10:00:00Z"}"#
        );
    }

    #[test]
    fn a_record_of_the_kernel_has_its_clock_and_priority() {
        let record = Record {
            facility: 1,
            priority: 4,
            sequence: 711,
            since_boot_us: 6_252_819,
            message: "[talos] waiting".to_owned(),
        };
        assert_eq!(
            String::from_utf8(of_kernel(&record, at("2024-05-01T10:00:00Z"))).unwrap(),
            r#"{"clock":6252819,"facility":"user","msg":"[talos] waiting","priority":"warning","seq":711,"talos-level":"warn","talos-time":"2024-05-01T10:00:06.252819Z"}"#
        );
    }
}
