//! Interpretation of plain scalars.
//!
//! Two readings: what a scalar is when nothing is known about its type (YAML 1.2, with the older octal form), and what it
//! is when a boolean or a number is expected (YAML 1.1 words count too).

/// The interpretation of a scalar of unknown type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Plain {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text,
}

/// The interpretation for an unknown type.
#[must_use]
pub fn resolve(text: &str) -> Plain {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Plain::Null,
        "true" | "True" | "TRUE" => return Plain::Bool(true),
        "false" | "False" | "FALSE" => return Plain::Bool(false),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "-.inf" | ".nan" | ".NaN" | ".NAN" => return Plain::Text,
        _ => {}
    }
    if let Some(value) = unsigned(text) {
        return Plain::Unsigned(value);
    }
    if let Some(value) = signed(text) {
        return Plain::Signed(value);
    }
    float(text).map_or(Plain::Text, Plain::Float)
}

/// A boolean, where one is expected.
pub fn boolean(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "y" | "Y" | "on" | "On" | "ON" => Some(true),
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "n" | "N" | "off" | "Off" | "OFF" => Some(false),
        _ => None,
    }
}

/// A number that is not negative: decimal, `0x`, `0o`, `0b`, or octal with a leading zero; `_` between digits.
pub fn unsigned(text: &str) -> Option<u64> {
    let text = text.strip_prefix('+').unwrap_or(text);
    let (digits, radix) = match text.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&text[2..], 16),
        [b'0', b'o' | b'O', ..] => (&text[2..], 8),
        [b'0', b'b' | b'B', ..] => (&text[2..], 2),
        [b'0', _, ..] => (&text[1..], 8),
        _ => (text, 10),
    };
    if !digits.chars().next()?.is_ascii_alphanumeric() {
        return None;
    }
    let digits: String = digits.chars().filter(|c| *c != '_').collect();
    u64::from_str_radix(&digits, radix).ok()
}

/// A number of either sign.
pub fn signed(text: &str) -> Option<i64> {
    match text.strip_prefix('-') {
        Some(digits) if !digits.starts_with(['+', '-']) => 0i64.checked_sub_unsigned(unsigned(digits)?),
        Some(_) => None,
        None => i64::try_from(unsigned(text)?).ok(),
    }
}

/// A decimal fraction or an exponent. Words such as `infinity` are text.
pub fn float(text: &str) -> Option<f64> {
    let numeric = text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
    let digits = text.bytes().any(|b| b.is_ascii_digit());
    let start = text.trim_start_matches(['+', '-']).bytes().next()?;
    if !numeric || !digits || !(start.is_ascii_digit() || start == b'.') {
        return None;
    }
    text.parse().ok().filter(|value: &f64| value.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octal_is_read_in_both_forms() {
        assert_eq!(unsigned("0644"), Some(0o644));
        assert_eq!(unsigned("0o644"), Some(0o644));
        assert_eq!(unsigned("0x1f"), Some(31));
        assert_eq!(unsigned("1_000"), Some(1000));
        assert_eq!(unsigned("089"), None);
        assert_eq!(unsigned("0"), Some(0));
        assert_eq!(signed("-9223372036854775808"), Some(i64::MIN));
    }

    #[test]
    fn untyped_words_of_yaml_1_1_stay_text() {
        assert_eq!(resolve("yes"), Plain::Text);
        assert_eq!(resolve("1.5"), Plain::Float(1.5));
        assert_eq!(resolve("10.5.0.2"), Plain::Text);
        assert_eq!(resolve("v1.30.0"), Plain::Text);
        assert_eq!(resolve("1e3"), Plain::Float(1000.0));
        assert_eq!(resolve("-"), Plain::Text);
        assert_eq!(resolve("_1"), Plain::Text);
        assert_eq!(boolean("yes"), Some(true));
    }
}
