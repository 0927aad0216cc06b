use super::*;

fn refused(text: &str) -> String {
    parse(text).expect_err("the text is beyond a bound").message
}

/// CPU time of this thread in nanoseconds, unaffected by other programs.
fn cpu_time() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("the kernel counts CPU time");
    text.split(' ').next().unwrap().parse().unwrap()
}

fn cost(text: &str) -> u64 {
    let once = || {
        let before = cpu_time();
        parse(text).unwrap();
        cpu_time() - before
    };
    (0..3).map(|_| once()).min().unwrap().max(1)
}

/// Four times the text takes at most eight times as long; comparing every pair of keys would take sixteen.
fn assert_linear(what: &str, text: impl Fn(usize) -> String) {
    let (small, large) = (cost(&text(20_000)), cost(&text(80_000)));
    assert!(large < small * 8, "{what}: {small} ns, and {large} ns for four times as much");
}

#[test]
fn keys_are_told_apart_in_linear_time() {
    assert_linear("keys", |count| (0..count).map(|n| format!("key-{n}: v\n")).collect());
    assert_linear("keys in flow style", |count| {
        format!("{{{}}}", (0..count).map(|n| format!("k{n}: v,")).collect::<String>())
    });
    // all documents of a stream are counted together
    assert_linear("documents", |count| (0..count / 4).map(|n| format!("---\na: {n}\n")).collect());
    assert_linear("a list", |count| (0..count).map(|n| format!("- {n}\n")).collect());
}

#[test]
fn merged_keys_are_told_apart_in_linear_time() {
    assert_linear("a merge", |count| {
        let keys: String = (0..count / 4).map(|n| format!("  key-{n}: v\n")).collect();
        let others: String = (0..count / 4).map(|n| format!("  other-{n}: v\n")).collect();
        format!("a: &a\n{keys}b:\n  <<: *a\n{others}")
    });
}

#[test]
fn four_megabytes_of_keys_are_refused_by_their_number() {
    let text: String = (0..420_000).map(|n| format!("{n:07}: \n")).collect();
    assert!(text.len() > 4_000_000);
    assert_eq!(refused(&text), "more than 200000 values");
}

#[test]
fn a_text_is_bounded() {
    let text = format!("a: {}\n", "x".repeat(MAX_BYTES));
    assert_eq!(refused(&text), "more than 8388608 bytes");
}

#[test]
fn nesting_is_bounded() {
    // the library's own bound comes first where a text goes deeper before it gives an event
    assert_eq!(refused(&"[".repeat(1_000_000)), "recursion limit exceeded");
    assert_eq!(refused(&format!("{}{}", "[".repeat(65), "]".repeat(65))), "values are nested more than 64 levels deep");
    assert_eq!(refused(&"- ".repeat(100_000)), "values are nested more than 64 levels deep");
    assert_eq!(parse(&format!("{}{}", "[".repeat(64), "]".repeat(64))).unwrap().len(), 1);
}

#[test]
fn aliases_cannot_make_many_values_of_few() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..10 {
        let below = format!("*a{}, ", n - 1).repeat(10);
        text.push_str(&format!("a{n}: &a{n} [{below}]\n"));
    }
    assert_eq!(refused(&text), "more than 200000 values");
}

#[test]
fn aliases_of_a_long_text_cannot_fill_the_memory() {
    let text = format!("a: &a {}\nb: [{}]\n", "x".repeat(1 << 20), "*a, ".repeat(1000));
    assert_eq!(refused(&text), "values of more than 8388608 bytes");
}

#[test]
fn anchors_within_anchors_are_counted() {
    let text = format!("{}{}{}", "&a [".repeat(40), "x, ".repeat(10_000), "]".repeat(40));
    assert_eq!(refused(&text), "more than 200000 values");
}

#[test]
fn an_alias_is_a_copy_and_a_merge_fills_in() {
    let documents = parse("a: &a {x: 1, y: 2}\nb: *a\nc:\n  <<: *a\n  y: 3\n").unwrap();
    assert_eq!(
        documents[0].to_value(),
        serde_json::json!({"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 2}, "c": {"y": 3, "x": 1}})
    );
    assert_eq!(refused("a: &a {b: *a}\n"), "an alias refers to a value that contains it");
    assert_eq!(refused("a: 1\na: 2\n"), "duplicate key \"a\"");
}
