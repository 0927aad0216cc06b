use crate::server::{Bench, DEAD_NODE, Mode};

#[test]
fn a_table_has_the_columns_of_the_type() {
    let bench = Bench::start(Mode::Cluster);
    let outcome = bench.run(&["get", "members"]);
    let expected = "\
NODE        NAMESPACE   TYPE     ID   VERSION   HOSTNAME   ADDRESSES
127.0.0.1   cluster     Member   w1   1         worker-1   [\"10.5.0.3\"]
127.0.0.1   cluster     Member   w2   1         worker-2   [\"10.5.0.3\"]
";
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str(), outcome.code), (expected, "", 0));
}

#[test]
fn one_resource_as_yaml_json_and_jsonpath() {
    let bench = Bench::start(Mode::Cluster);
    let yaml = bench.run(&["get", "member", "w1", "-o", "yaml"]);
    assert!(
        yaml.stdout
            .ends_with("spec:\n    hostname: worker-1\n    machineType: worker\n    addresses:\n        - 10.5.0.3\n"),
        "{yaml:?}"
    );
    let json = bench.run(&["get", "Members.cluster.talos.dev", "w1", "-o", "json"]);
    let tree: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(tree["spec"]["addresses"][0], "10.5.0.3");
    let path = bench.run(&["get", "members", "-o", "jsonpath={.spec.hostname}"]);
    assert_eq!(path.stdout, "worker-1\nworker-2\n");
    let range = bench.run(&["get", "member", "w1", "-o", "jsonpath={range .spec.addresses[*]}{@},{end}"]);
    assert_eq!((range.stdout.as_str(), range.code), ("10.5.0.3,\n", 0));
    let missing = bench.run(&["get", "members", "-o", "jsonpath={.spec.nope}"]);
    assert_eq!((missing.stdout.as_str(), missing.code), ("", 1));
    assert!(missing.stderr.contains("nope is not found"), "{missing:?}");
}

#[test]
fn a_watch_shows_what_is_created_changed_and_destroyed() {
    let bench = Bench::start(Mode::Cluster);
    // With the empty message that a watch begins with, and without it.
    for command in [&["get", "members", "--watch"][..], &["get", "members", "w1", "--watch"]] {
        let outcome = bench.run(command);
        let signs: Vec<String> = outcome.stdout.lines().map(|line| line.chars().skip(12).take(1).collect()).collect();
        assert_eq!(signs, ["*", "+", " ", "-"], "{outcome:?}");
        assert_eq!(outcome.code, 0);
    }
}

#[test]
fn what_is_not_there_fails_with_its_reason() {
    let bench = Bench::start(Mode::Cluster);
    let unknown = bench.run(&["get", "nonsense"]);
    assert_eq!(unknown.code, 1);
    assert!(
        unknown.stderr.contains("\"nonsense\"") && unknown.stderr.contains("hint: `talosctl get rd`"),
        "{unknown:?}"
    );
    let missing = bench.run(&["get", "members", "w9"]);
    assert_eq!(missing.code, 1);
    assert!(missing.stderr.contains("127.0.0.1: calling Get: there is no member \"w9\""), "{missing:?}");
}

#[test]
fn an_unreachable_node_does_not_keep_the_others_back() {
    let bench = Bench::start(Mode::Cluster);
    for nodes in [format!("{DEAD_NODE},127.0.0.1"), format!("127.0.0.1,{DEAD_NODE}")] {
        let outcome = bench.run(&["get", "members", "-n", &nodes]);
        assert_eq!(outcome.code, 1, "{outcome:?}");
        assert_eq!(outcome.stdout.lines().count(), 3, "{outcome:?}");
        assert!(outcome.stderr.contains("error: 10.9.9.9: "), "{outcome:?}");
    }
}
