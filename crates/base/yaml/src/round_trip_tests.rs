use serde_json::json;

use crate::{parse, to_text};

#[test]
fn values_are_written_the_usual_way() {
    let value = json!({
        "version": "v1alpha1",
        "empty": {},
        "none": [],
        "list": [{"a": 1, "b": ["x", "z"]}, "10.244.0.0/16"],
        "text": "one\ntwo\n",
    });
    let expected = "\
version: v1alpha1
empty: {}
none: []
list:
    - a: 1
      b:
        - x
        - z
    - 10.244.0.0/16
text: |
    one
    two
";
    // a list below a list item is indented from the item's keys
    let expected = expected.replace("        - x\n        - z\n", "          - x\n          - z\n");
    assert_eq!(to_text(&value), expected);
}

#[test]
fn awkward_texts_come_back_unchanged() {
    let texts = [
        "",
        " ",
        "yes",
        "no",
        "on",
        "Off",
        "y",
        "null",
        "~",
        "true",
        "False",
        "0644",
        "0o644",
        "0x1f",
        "1e3",
        "1.5",
        ".5",
        "-1",
        "+1",
        "1_000",
        "12:30:45",
        "2024-01-01",
        "2024-01-01T00:00:00Z",
        "<<",
        "=",
        "-",
        "--",
        "---",
        "...",
        "?",
        ":",
        "- a",
        "a: b",
        "a:",
        "a #b",
        "#a",
        "&a",
        "*a",
        "!a",
        "|",
        ">",
        "'a'",
        "\"a\"",
        "%a",
        "@a",
        "`a",
        "{a}",
        "[a]",
        ",a",
        "a\tb",
        "\ta",
        "a ",
        " a",
        "a\nb",
        "a\nb\n",
        "a\n\n",
        "\n",
        "\na",
        " a\nb",
        "a\n b\n",
        "a\r\nb",
        "\u{0}",
        "\u{7f}",
        "\u{85}",
        "\u{2028}",
        "\u{feff}a",
        "\u{e9}\u{1f600}",
        "a\\b",
        "::1",
        "fd00::/8",
        "10.5.0.2",
        "-.inf",
        ".nan",
        "a: ",
        "key: |",
        "multi\n\nline\n\n\n",
        "#x\ny",
        "- x\n- y",
        "trailing space \nline",
        "\u{1b}[0m",
    ];
    for text in texts {
        let value = json!({"a": text, "l": [text, {"k": text}], text: 1, "nested": {"deeper": {"t": text}}});
        let written = to_text(&value);
        let documents = parse(&written).unwrap_or_else(|e| panic!("{text:?}: {e:?}\n{written}"));
        assert_eq!(documents[0].to_value(), value, "{text:?}\n{written}");
    }
}
