//! Serialises ordered values: four spaces per level, block style, quotes only where necessary.
//!
//! Equal values give identical bytes. Comments come from a [`Comments`], which is queried per path.

use serde_json::Value;

use crate::plain;

#[cfg(test)]
mod tests;

/// Comments around a field.
pub trait Comments {
    /// Lines above the field, without `#`.
    fn above(&self, path: &[&str], value: &Value) -> Vec<String>;
    /// A short comment after a scalar, on its line.
    fn beside(&self, path: &[&str]) -> Option<String>;
    /// Lines at the end of a mapping: fields that are not set, as examples.
    fn below(&self, path: &[&str], value: &Value) -> Vec<String>;
}

/// Nothing around any field.
#[derive(Debug, Clone, Copy)]
pub struct NoComments;

impl Comments for NoComments {
    fn above(&self, _path: &[&str], _value: &Value) -> Vec<String> {
        Vec::new()
    }

    fn beside(&self, _path: &[&str]) -> Option<String> {
        None
    }

    fn below(&self, _path: &[&str], _value: &Value) -> Vec<String> {
        Vec::new()
    }
}

/// One document, without `---`.
#[must_use]
pub fn to_text(value: &Value) -> String {
    to_text_with(value, &NoComments)
}

/// As [`to_text`], with the time stamps at these keys of the outermost mapping as time stamps: a text that looks like one is
/// quoted everywhere else.
#[must_use]
pub fn to_text_with_timestamps(value: &Value, keys: &[&str]) -> String {
    emit(value, &NoComments, keys)
}

/// One document, without `---`, with comments.
#[must_use]
pub fn to_text_with(value: &Value, comments: &dyn Comments) -> String {
    emit(value, comments, &[])
}

fn emit(value: &Value, comments: &dyn Comments, timestamps: &[&str]) -> String {
    let mut emitter = Emitter { out: String::new(), comments, timestamps };
    match value {
        Value::Object(map) if !map.is_empty() => emitter.map(map, 0, &mut Vec::new(), value),
        Value::Array(items) if !items.is_empty() => emitter.list(items, 0, &mut Vec::new()),
        scalar => {
            // A block scalar at the root is indented too, so that it stays one below any key.
            emitter.out.push_str(&inline(scalar, INDENT));
            emitter.out.push('\n');
        }
    }
    emitter.out
}

struct Emitter<'c> {
    out: String,
    comments: &'c dyn Comments,
    /// Keys of the outermost mapping with time stamps.
    timestamps: &'c [&'c str],
}

const INDENT: usize = 4;

impl Emitter<'_> {
    fn pad(&mut self, indent: usize) {
        self.out.extend(std::iter::repeat_n(' ', indent));
    }

    fn comment_lines(&mut self, indent: usize, lines: &[String]) {
        for line in lines {
            self.pad(indent);
            self.out.push_str(if line.is_empty() { "#" } else { "# " });
            self.out.push_str(line);
            self.out.push('\n');
        }
    }

    fn map<'v>(
        &mut self,
        map: &'v serde_json::Map<String, Value>,
        indent: usize,
        path: &mut Vec<&'v str>,
        whole: &Value,
    ) {
        for (i, (key, value)) in map.iter().enumerate() {
            path.push(key);
            let above = self.comments.above(path, value);
            // the first entry of a list item already has its dash on the line
            if i > 0 || !self.out.ends_with("- ") {
                self.comment_lines(indent, &above);
                self.pad(indent);
            }
            self.out.push_str(&scalar(key));
            self.out.push(':');
            self.value(value, indent, path);
            path.pop();
        }
        let below = self.comments.below(path, whole);
        if !below.is_empty() {
            self.out.push('\n');
            self.comment_lines(indent, &below);
        }
    }

    fn value<'v>(&mut self, value: &'v Value, indent: usize, path: &mut Vec<&'v str>) {
        match value {
            Value::Object(map) if !map.is_empty() => {
                self.out.push('\n');
                self.map(map, indent + INDENT, path, value);
            }
            Value::Array(items) if !items.is_empty() => {
                self.out.push('\n');
                self.list(items, indent + INDENT, path);
            }
            scalar => {
                self.out.push(' ');
                match scalar {
                    Value::String(text) if self.is_timestamp(path, text) => self.out.push_str(text),
                    _ => self.out.push_str(&inline(scalar, indent + INDENT)),
                }
                if let Some(beside) = self.comments.beside(path) {
                    self.out.push_str(" # ");
                    self.out.push_str(&beside);
                }
                self.out.push('\n');
                if matches!(scalar, Value::Object(_)) {
                    let below = self.comments.below(path, value);
                    self.comment_lines(indent + INDENT, &below);
                }
            }
        }
    }

    fn is_timestamp(&self, path: &[&str], text: &str) -> bool {
        let fits = text.starts_with(|c: char| c.is_ascii_digit())
            && text.bytes().all(|b| b.is_ascii_digit() || b"-:.+TZ".contains(&b));
        matches!(path, [key] if self.timestamps.contains(key)) && fits
    }

    fn list<'v>(&mut self, items: &'v [Value], indent: usize, path: &mut Vec<&'v str>) {
        path.push("[]");
        for item in items {
            self.pad(indent);
            self.out.push_str("- ");
            match item {
                Value::Object(map) if !map.is_empty() => self.map(map, indent + 2, path, item),
                Value::Array(items) if !items.is_empty() => {
                    self.out.pop();
                    self.out.push('\n');
                    self.list(items, indent + INDENT, path);
                }
                scalar => {
                    self.out.push_str(&inline(scalar, indent + INDENT));
                    self.out.push('\n');
                }
            }
        }
        path.pop();
    }
}

/// A value on its line, or a block scalar with indented lines.
fn inline(value: &Value, indent: usize) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(value) => number(value),
        Value::String(text) => block(text, indent).unwrap_or_else(|| scalar(text)),
        Value::Array(_) => "[]".to_owned(),
        Value::Object(_) => "{}".to_owned(),
    }
}

/// Integers in full; fractions with the fewest digits that name them, and an exponent from a million on and below a ten
/// thousandth, as Go's encoder writes them.
fn number(value: &serde_json::Number) -> String {
    let Some(float) = value.as_f64().filter(|_| value.is_f64()) else { return value.to_string() };
    let scientific = format!("{float:e}");
    let split = scientific.split_once('e').and_then(|(digits, exponent)| Some((digits, exponent.parse::<i32>().ok()?)));
    match split {
        Some((digits, exponent)) if !(-4..6).contains(&exponent) && float != 0.0 => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.unsigned_abs())
        }
        _ => float.to_string(),
    }
}

/// Multi-line text as a literal block, if that is lossless.
fn block(text: &str, indent: usize) -> Option<String> {
    let body = text.trim_end_matches('\n');
    let control = text.chars().any(|c| c != '\n' && c != '\t' && (c.is_control() || is_special(c)));
    if !text.contains('\n') || body.is_empty() || control || body.starts_with([' ', '\t', '\n']) {
        return None;
    }
    let newlines = text.len() - body.len();
    let header = match newlines {
        0 => "|-",
        1 => "|",
        _ => "|+",
    };
    let mut out = header.to_owned();
    for line in body.split('\n') {
        out.push('\n');
        if !line.is_empty() {
            out.extend(std::iter::repeat_n(' ', indent));
            out.push_str(line);
        }
    }
    out.extend(std::iter::repeat_n('\n', newlines.saturating_sub(1)));
    Some(out)
}

/// Line and paragraph separators and the byte order mark, which some parsers treat as line breaks or drop.
fn is_special(c: char) -> bool {
    matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

/// One line of text: plain if every parser reads the same text, else in double quotes.
fn scalar(text: &str) -> String {
    if is_plain(text) {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if (c.is_control() || is_special(c)) && u32::from(c) < 0x100 => {
                out.push_str(&format!("\\x{:02x}", u32::from(c)));
            }
            c if is_special(c) => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn is_plain(text: &str) -> bool {
    let Some(first) = text.chars().next() else { return false };
    let indicator = "-?:,[]{}#&*!|>'\"%@`=<~".contains(first);
    let second_is_space = text.chars().nth(1).is_none_or(|c| c == ' ');
    let allowed_start = !indicator || ("-?:".contains(first) && !second_is_space && !text.starts_with("--"));
    allowed_start
        && !text.ends_with([' ', '\t', ':'])
        && !text.starts_with([' ', '\t'])
        && !text.starts_with("...")
        && !text.contains(": ")
        && !text.contains(" #")
        && !text.contains('\t')
        && !text.chars().any(|c| c.is_control() || is_special(c))
        && !looks_like_something_else(text)
}

/// Whether some parser reads a plain text as a number, boolean, date or null.
fn looks_like_something_else(text: &str) -> bool {
    let numeric_start = text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c));
    let only_number_parts = text.bytes().all(|b| b.is_ascii_digit() || b"+-._:eExXoObBaAcCdDfFtTzZ ".contains(&b));
    let dotted = text.matches('.').count() > 1 && !text.contains(':');
    plain::boolean(text).is_some()
        || matches!(text.to_ascii_lowercase().as_str(), "null" | "~" | ".inf" | "-.inf" | "+.inf" | ".nan")
        || !matches!(plain::resolve(text), plain::Plain::Text)
        || (numeric_start && only_number_parts && !dotted)
}
