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

#[test]
fn a_time_stamp_is_one_where_it_is_named_and_a_text_everywhere_else() {
    let value = json!({ "at": "2024-04-19T00:00:06Z", "text": "2024-04-19T00:00:06Z", "in": { "at": "2024-04-19" } });
    let expected = "at: 2024-04-19T00:00:06Z\ntext: \"2024-04-19T00:00:06Z\"\nin:\n    at: \"2024-04-19\"\n";
    assert_eq!(to_text_with_timestamps(&value, &["at"]), expected);
    assert_eq!(to_text_with_timestamps(&json!({ "at": "a: b" }), &["at"]), "at: \"a: b\"\n");
}

#[test]
fn fractions_are_written_as_go_writes_them() {
    let value = json!([0.0, 1.5, 123456.78, 1234567.8, 1e21, 0.0001, 0.00001, -2.5e-7, 3.0, 7]);
    let expected = "- 0\n- 1.5\n- 123456.78\n- 1.2345678e+06\n- 1e+21\n- 0.0001\n- 1e-05\n- -2.5e-07\n- 3\n- 7\n";
    assert_eq!(to_text(&value), expected);
}
