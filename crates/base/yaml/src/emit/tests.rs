use serde_json::json;

use super::*;

#[test]
fn only_text_that_could_mean_something_else_is_quoted() {
    let value = json!({"ip": "10.5.0.2", "cidr": "fe80::1/64", "time": "2024-01-01T00:00:00Z", "no": "yes", "n": "1"});
    let expected = "ip: 10.5.0.2\ncidr: fe80::1/64\ntime: \"2024-01-01T00:00:00Z\"\n\"no\": \"yes\"\n\"n\": \"1\"\n";
    assert_eq!(to_text(&value), expected);
}

#[test]
fn text_of_several_lines_at_the_root_is_indented() {
    assert_eq!(to_text(&json!("a: b\nc: d\n")), "|\n    a: b\n    c: d\n");
}
