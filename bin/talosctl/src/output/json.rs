//! JSON as the original prints it: maps with their keys in alphabetical order, and no character that HTML gives a meaning.

use serde::Serialize as _;
use serde_json::Value;
use serde_json::ser::PrettyFormatter;

/// On several lines, with four spaces a level.
pub(crate) fn pretty(value: &Value) -> String {
    indented(&sorted(value))
}

/// As [`pretty`], for a record whose fields have an order.
pub(crate) fn indented(value: &Value) -> String {
    let mut text = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, PrettyFormatter::with_indent(b"    "));
    // Values have keys that are texts, and memory does not refuse bytes.
    value.serialize(&mut serializer).ok();
    escaped(&String::from_utf8_lossy(&text))
}

/// On one line, without spaces.
pub(crate) fn compact(value: &Value) -> String {
    escaped(&sorted(value).to_string())
}

fn sorted(value: &Value) -> Value {
    let mut value = value.clone();
    value.sort_all_objects();
    value
}

/// None of these characters stands in JSON outside of texts.
fn escaped(json: &str) -> String {
    const ESCAPES: [(char, &str); 5] =
        [('<', "\\u003c"), ('>', "\\u003e"), ('&', "\\u0026"), ('\u{2028}', "\\u2028"), ('\u{2029}', "\\u2029")];
    if !json.contains(ESCAPES.map(|(c, _)| c)) {
        return json.to_owned();
    }
    ESCAPES.iter().fold(json.to_owned(), |text, (c, escape)| text.replace(*c, escape))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_are_sorted_at_every_level_and_characters_of_html_are_escaped() {
        let value = json!({"b": [{"z": 1, "a": "<x> & y"}, []], "a": {}});
        let expected = r#"{
    "a": {},
    "b": [
        {
            "a": "\u003cx\u003e \u0026 y",
            "z": 1
        },
        []
    ]
}"#;
        assert_eq!(pretty(&value), expected);
        assert_eq!(compact(&value), r#"{"a":{},"b":[{"a":"\u003cx\u003e \u0026 y","z":1},[]]}"#);
        assert_eq!(serde_json::from_str::<Value>(&pretty(&value)).unwrap(), value);
        assert_eq!(indented(&json!({"b": 1, "a": []})), "{\n    \"b\": 1,\n    \"a\": []\n}");
    }
}
