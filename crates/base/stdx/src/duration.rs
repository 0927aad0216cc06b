//! Durations as Go writes them: `1h0m0s`, `1m30s`, `1.5s`, `300ms`.
//!
//! Negative durations are refused: no setting of ours has a meaning for one.

use std::time::Duration;

/// Why a text is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseDurationError {
    /// Empty, or a part without digits or with stray characters.
    #[error("invalid duration {0:?}")]
    Invalid(String),
    /// A number without its unit.
    #[error("missing unit in duration {0:?}")]
    MissingUnit(String),
    /// A unit that is none of ns, us, ms, s, m, h.
    #[error("unknown unit {unit:?} in duration {text:?}")]
    UnknownUnit {
        /// The unknown unit.
        unit: String,
        /// The whole text.
        text: String,
    },
    /// Below zero.
    #[error("negative duration {0:?}")]
    Negative(String),
    /// More nanoseconds than 64 bits hold.
    #[error("duration {0:?} is too large")]
    TooLarge(String),
}

const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Parses a sequence of decimal numbers with units, or the bare `0`.
///
/// # Errors
/// [`ParseDurationError`] for an invalid text.
pub fn parse(text: &str) -> Result<Duration, ParseDurationError> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if let Some(positive) = rest.strip_prefix('-') {
        if positive == "0" {
            return Ok(Duration::ZERO);
        }
        return Err(ParseDurationError::Negative(text.to_owned()));
    }
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(ParseDurationError::Invalid(text.to_owned()));
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (part, tail) = parse_part(rest, text)?;
        total = total.checked_add(part).ok_or_else(|| ParseDurationError::TooLarge(text.to_owned()))?;
        rest = tail;
    }
    Ok(Duration::from_nanos(total))
}

/// One number with its unit in nanoseconds, and the rest of the text.
fn parse_part<'a>(rest: &'a str, text: &str) -> Result<(u64, &'a str), ParseDurationError> {
    let invalid = || ParseDurationError::Invalid(text.to_owned());
    let too_large = || ParseDurationError::TooLarge(text.to_owned());
    let number_len = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let (number, tail) = rest.split_at(number_len);
    let unit_len = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
    let (unit, tail) = tail.split_at(unit_len);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return Err(invalid());
    }
    if unit.is_empty() {
        return Err(ParseDurationError::MissingUnit(text.to_owned()));
    }
    let scale = UNITS
        .iter()
        .find(|(name, _)| *name == unit)
        .map(|(_, scale)| *scale)
        .ok_or_else(|| ParseDurationError::UnknownUnit { unit: unit.to_owned(), text: text.to_owned() })?;
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| too_large())? };
    let mut nanos = whole.checked_mul(scale).ok_or_else(too_large)?;
    let mut place = scale;
    for digit in fraction.bytes() {
        place /= 10;
        nanos = nanos.checked_add(u64::from(digit - b'0') * place).ok_or_else(too_large)?;
    }
    Ok((nanos, tail))
}

/// Formats as Go does: `0s`, `1.5µs`, `300ms`, `1m30s`, `2h0m0s`.
#[must_use]
pub fn format(duration: Duration) -> String {
    let nanos = duration.subsec_nanos();
    let seconds = duration.as_secs();
    if seconds == 0 {
        return match nanos {
            0 => "0s".to_owned(),
            1..1_000 => format!("{nanos}ns"),
            1_000..1_000_000 => format!("{}µs", with_fraction(u64::from(nanos / 1_000), nanos % 1_000, 3)),
            _ => format!("{}ms", with_fraction(u64::from(nanos / 1_000_000), nanos % 1_000_000, 6)),
        };
    }
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let seconds = with_fraction(seconds % 60, nanos, 9);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, m) => format!("{m}m{seconds}s"),
        (h, m) => format!("{h}h{m}m{seconds}s"),
    }
}

fn with_fraction(whole: u64, fraction: u32, width: usize) -> String {
    if fraction == 0 {
        return whole.to_string();
    }
    let digits = format!("{fraction:0width$}");
    format!("{whole}.{}", digits.trim_end_matches('0'))
}

/// `#[serde(with = "stdx::duration::go_string")]`: the field is a string in Go's form.
pub mod go_string {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// Writes Go's form.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::format(*duration))
    }

    /// Reads Go's form.
    ///
    /// # Errors
    /// Those of the deserializer, and a text that is not a duration.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        super::parse(&text).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_as_go_does() {
        for (nanos, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5µs"),
            (300_000_000, "300ms"),
            (2_500_000, "2.5ms"),
            (1_500_000_000, "1.5s"),
            (60_000_000_000, "1m0s"),
            (3_600_000_000_000, "1h0m0s"),
            (5_025_000_000_001, "1h23m45.000000001s"),
        ] {
            assert_eq!(format(Duration::from_nanos(nanos)), text);
            assert_eq!(parse(text).unwrap(), Duration::from_nanos(nanos), "{text}");
        }
    }

    #[test]
    fn parses_what_people_write() {
        for (text, secs) in [
            ("1h", 3600.0),
            ("1.5h", 5400.0),
            ("30m", 1800.0),
            (".5s", 0.5),
            ("1h15m30.25s", 4530.25),
            ("0", 0.0),
            ("8760h", 31_536_000.0),
        ] {
            assert_eq!(parse(text).unwrap(), Duration::from_secs_f64(secs), "{text}");
        }
    }

    #[test]
    fn refuses_what_go_refuses() {
        assert_eq!(parse(""), Err(ParseDurationError::Invalid(String::new())));
        assert_eq!(parse("5"), Err(ParseDurationError::MissingUnit("5".into())));
        assert_eq!(parse("5d"), Err(ParseDurationError::UnknownUnit { unit: "d".into(), text: "5d".into() }));
        assert_eq!(parse("s"), Err(ParseDurationError::Invalid("s".into())));
        assert_eq!(parse("1..5s"), Err(ParseDurationError::Invalid("1..5s".into())));
        assert_eq!(parse("-1m"), Err(ParseDurationError::Negative("-1m".into())));
        assert_eq!(parse("99999999999h"), Err(ParseDurationError::TooLarge("99999999999h".into())));
    }
}
