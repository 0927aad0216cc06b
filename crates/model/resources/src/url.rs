//! URLs: text as it was written; in the YAML form a mapping with the parts of Go's `url.URL`, lower-case keys.

use std::fmt;

use prost::encoding::WireType;
use serde_json::{Value, json};

use crate::field::{DecodeError, Element, Field, encode_payload, take_payload};

/// A URL, kept as written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Url(pub String);

impl<T: Into<String>> From<T> for Url {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Element for Url {
    /// `null` for an empty text.
    fn element_yaml(&self) -> Value {
        if self.0.is_empty() { Value::Null } else { parts(&self.0) }
    }
    fn encode_element(&self, number: u32, out: &mut Vec<u8>) {
        let mut payload = Vec::new();
        self.0.encode(1, &mut payload);
        encode_payload(number, &payload, out);
    }
    fn decode_element(wire_type: WireType, input: &mut &[u8]) -> Result<Self, DecodeError> {
        Ok(Self(<wire::common::Url as prost::Message>::decode(take_payload(wire_type, input)?)?.full_path))
    }
}

impl Field for Url {
    fn yaml(&self) -> Value {
        self.element_yaml()
    }
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    fn encode(&self, number: u32, out: &mut Vec<u8>) {
        if !self.0.is_empty() {
            self.encode_element(number, out);
        }
    }
    fn merge(&mut self, wire_type: WireType, input: &mut &[u8]) -> Result<(), DecodeError> {
        *self = Self::decode_element(wire_type, input)?;
        Ok(())
    }
}

/// The parts; of a user's name and password nothing is shown.
fn parts(text: &str) -> Value {
    let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
    let (scheme, rest) = split_scheme(rest);
    let (rest, query, force_query) = match rest.split_once('?') {
        Some((rest, "")) => (rest, "", true),
        Some((rest, query)) => (rest, query, false),
        None => (rest, "", false),
    };
    let opaque = !scheme.is_empty() && !rest.starts_with('/');
    let (authority, path) = match rest.strip_prefix("//") {
        Some(after) => after.split_at(after.find('/').unwrap_or(after.len())),
        None => ("", rest),
    };
    let (user, host) = authority.rsplit_once('@').map_or((Value::Null, authority), |(_, host)| (json!({}), host));
    let (path, raw_path) = if opaque { (String::new(), "") } else { decoded(path, IN_PATH) };
    let (shown_fragment, raw_fragment) = decoded(fragment, IN_FRAGMENT);
    json!({
        "scheme": scheme.to_ascii_lowercase(),
        "opaque": if opaque { rest } else { "" },
        "user": user,
        "host": host,
        "path": path,
        "rawpath": raw_path,
        "omithost": false,
        "forcequery": force_query,
        "rawquery": query,
        "fragment": shown_fragment,
        "rawfragment": raw_fragment,
    })
}

/// A scheme is a letter, then letters, digits, `+`, `-` or `.`, up to a colon.
fn split_scheme(text: &str) -> (&str, &str) {
    match text.split_once(':') {
        Some((scheme, rest))
            if scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c)) =>
        {
            (scheme, rest)
        }
        _ => ("", text),
    }
}

/// Characters beside letters and digits that need no escape.
const IN_PATH: &str = "-_.~$&+,/:;=@";
const IN_FRAGMENT: &str = "-_.~$&+,/:;=?@!()*";

/// The text without its escapes, and the text as written if that is not how the decoded one would be escaped.
fn decoded<'a>(text: &'a str, plain: &str) -> (String, &'a str) {
    let unescaped = unescape(text);
    let usual = unescaped.bytes().fold(String::new(), |mut usual, byte| {
        if byte.is_ascii_alphanumeric() || plain.contains(char::from(byte)) {
            usual.push(char::from(byte));
        } else {
            usual.push_str(&format!("%{byte:02X}"));
        }
        usual
    });
    (unescaped, if usual == text { "" } else { text })
}

/// Text with wrong escapes, or escapes of no text, stays as it is.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match (first, escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok())) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            (b'%', None) => return text.to_owned(),
            (other, _) => {
                bytes.push(*other);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The parts that are not empty.
    fn shown(text: &str) -> Value {
        let Value::Object(parts) = Url::from(text).yaml() else { panic!("no mapping for {text}") };
        assert_eq!(parts.len(), 11, "every part has its key");
        let is_set = |value: &Value| !matches!(value, Value::Null | Value::Bool(false)) && value != "";
        parts.into_iter().filter(|(_, value)| is_set(value)).collect()
    }

    #[test]
    fn a_url_is_its_parts() {
        for (text, expected) in [
            ("https://10.5.0.2:6443", json!({ "scheme": "https", "host": "10.5.0.2:6443" })),
            ("https://[fd00::1]:6443/", json!({ "scheme": "https", "host": "[fd00::1]:6443", "path": "/" })),
            (
                "udp://127.0.0.1:9/?a=b&c",
                json!({
                    "scheme": "udp", "host": "127.0.0.1:9", "path": "/", "rawquery": "a=b&c"
                }),
            ),
            (
                "http://u:secret@h/a%20b#f",
                json!({
                    "scheme": "http", "user": {}, "host": "h", "path": "/a b", "fragment": "f"
                }),
            ),
            (
                "http://h/a%2Fb?",
                json!({
                    "scheme": "http", "host": "h", "path": "/a/b", "rawpath": "/a%2Fb", "forcequery": true
                }),
            ),
            ("mailto:a@b", json!({ "scheme": "mailto", "opaque": "a@b" })),
            ("10.0.0.1:80", json!({ "path": "10.0.0.1:80" })),
            ("http://h/%zz", json!({ "scheme": "http", "host": "h", "path": "/%zz", "rawpath": "/%zz" })),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
        assert_eq!(Url::default().yaml(), Value::Null);
    }
}
