//! Talosconfigs and kubeconfigs that commands fetch and change.

use std::os::unix::fs::PermissionsExt as _;

use client::TalosConfig;

use crate::server::{Bench, Mode};

fn mode(path: &std::path::Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_new_talosconfig_has_the_roles_and_leads_where_the_old_one_led() {
    let bench = Bench::start(Mode::Cluster);
    let path = bench.dir.path().join("reader");
    let line = ["config", "new", "reader", "--roles", "os:reader,os:etcd:backup", "--crt-ttl", "1h30m"];
    let outcome = bench.run(&line);
    assert_eq!((outcome.code, outcome.stdout.as_str(), outcome.stderr.as_str()), (0, "", ""), "{outcome:?}");
    assert_eq!(mode(&path), 0o600);
    let made = TalosConfig::load(&path).unwrap();
    let (name, context) = made.select(None).unwrap();
    assert_eq!((name, context.crt.as_str()), ("demo", "os:reader+os:etcd:backup:5400"));
    assert_eq!(context.endpoints, [format!("127.0.0.1:{}", bench.port)]);
    assert_eq!(context.nodes, ["127.0.0.1"]);
    let again = bench.run(&line);
    assert_eq!(again.code, 1);
    assert!(again.stderr.contains(r#"file "reader" already exists"#), "{again:?}");
}

#[test]
fn a_bootstrap_token_that_is_not_used_is_told() {
    let bench = Bench::start(Mode::Cluster);
    let outcome = bench.run(&["gen", "secrets", "-t", "abcdef.0123456789abcdef", "-o", "-"]);
    let warning = "warning: --kubernetes-bootstrap-token has no effect without --from-kubernetes-pki\n";
    assert_eq!((outcome.stderr.as_str(), outcome.code), (warning, 0));
}

#[test]
fn a_generated_configuration_that_no_machine_takes_is_warned_about() {
    let bench = Bench::start(Mode::Cluster);
    let warnings = |name: &str, flags: &[&str]| {
        let line = ["gen", "config", "demo", "https://10.5.0.2:6443", "-t", "worker", "-o", name];
        let outcome = bench.run(&[&line, flags].concat());
        assert_eq!(outcome.code, 0, "{outcome:?}");
        assert!(bench.dir.path().join(name).is_file());
        let warnings = outcome.stderr.lines().filter(|line| line.starts_with("warning: worker.yaml: "));
        warnings.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(warnings("plain", &[]), Vec::<String>::new());
    let link = "machine: {network: {interfaces: [{interface: a/b}]}}";
    for (name, flags, field) in [
        ("kept", ["--persist=false"].as_slice(), "persist"),
        ("disk", &["--install-disk", ""], "machine.install.disk"),
        ("patched", &["--config-patch", link], "machine.network.interfaces[0].interface"),
    ] {
        let found = warnings(name, flags);
        assert!(matches!(found.as_slice(), [one] if one.contains(field)), "{name}: {found:?}");
    }
}

#[test]
fn a_merge_of_a_file_without_contexts_says_so() {
    let bench = Bench::start(Mode::Cluster);
    std::fs::write(bench.dir.path().join("worker.yaml"), "version: v1alpha1\nmachine: {type: worker}\n").unwrap();
    let outcome = bench.run(&["config", "merge", "worker.yaml"]);
    assert_eq!((outcome.stderr.as_str(), outcome.code), ("worker.yaml has no contexts: nothing is merged\n", 0));
}

#[test]
fn a_talosconfig_that_the_node_refuses_is_not_written() {
    let bench = Bench::start(Mode::Cluster);
    let refused = bench.run(&["config", "new", "--roles", "os:nothing"]);
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains(r#"file "talosconfig" already exists"#), "{refused:?}");
    let refused = bench.run(&["config", "new", "other", "--roles", "os:nothing"]);
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("no such role: os:nothing"), "{refused:?}");
    let several = bench.run(&["config", "new", "other", "-n", "a,b"]);
    assert!(several.stderr.contains("takes exactly one node"), "{several:?}");
    assert!(!bench.dir.path().join("other").exists());
}

#[test]
fn a_kubeconfig_is_merged_renamed_and_overwritten() {
    let bench = Bench::start(Mode::Cluster);
    let usual = bench.dir.path().join(".kube/config");
    let contexts = || {
        let text = std::fs::read_to_string(&usual).unwrap();
        let names = text.lines().filter_map(|line| line.trim().strip_prefix("- name: admin@")).map(str::to_owned);
        // Users and contexts have the same names.
        let names: std::collections::BTreeSet<String> = names.collect();
        names.into_iter().collect::<Vec<_>>()
    };
    assert_eq!(bench.run(&["kubeconfig"]).code, 0);
    assert_eq!((contexts(), mode(&usual)), (vec!["demo".to_owned()], 0o600));
    assert_eq!(bench.run(&["kubeconfig"]).stderr, "");
    // Another cluster of the same name exists.
    let other = std::fs::read_to_string(&usual).unwrap().replace("10.5.0.2", "10.6.0.2").replace("abc", "xyz");
    std::fs::write(&usual, &other).unwrap();
    std::fs::set_permissions(&usual, std::fs::Permissions::from_mode(0o644)).unwrap();
    let renamed = bench.run(&["kubeconfig"]);
    assert!(renamed.stdout.contains(r#"renamed cluster "demo" -> "demo-1""#), "{renamed:?}");
    assert_eq!(renamed.stderr, "");
    assert_eq!((contexts(), mode(&usual)), (vec!["demo".to_owned(), "demo-1".to_owned()], 0o600));
    let text = std::fs::read_to_string(&usual).unwrap();
    assert!(text.contains("https://10.6.0.2:6443") && text.contains("current-context: admin@demo-1"), "{text}");
    assert_eq!(bench.run(&["kubeconfig", "--force", "--force-context-name", "mine"]).stderr, "");
    let text = std::fs::read_to_string(&usual).unwrap();
    assert!(!text.contains("10.6.0.2") && text.contains("current-context: mine"), "{text}");
}

#[test]
fn a_kubeconfig_goes_to_a_path_or_to_standard_output() {
    let bench = Bench::start(Mode::Cluster);
    let printed = bench.run(&["kubeconfig", "-"]);
    assert!(printed.code == 0 && printed.stdout.contains("server: https://10.5.0.2:6443\n"), "{printed:?}");
    assert_eq!(bench.run(&["kubeconfig", "--merge=false"]).code, 0);
    let path = bench.dir.path().join("kubeconfig");
    assert_eq!((std::fs::read_to_string(&path).unwrap(), mode(&path)), (printed.stdout, 0o600));
    let exists = bench.run(&["kubeconfig", "kubeconfig", "--merge=false"]);
    assert_eq!(exists.code, 1);
    assert_eq!(exists.stderr, "error: file \"kubeconfig\" already exists, use --force to overwrite\n");
    assert_eq!(bench.run(&["kubeconfig", "kubeconfig", "--merge=false", "--force"]).code, 0);
    std::fs::write(&path, "broken: [\n").unwrap();
    let broken = bench.run(&["kubeconfig", "kubeconfig"]);
    assert_eq!(broken.code, 1);
    assert!(broken.stderr.contains("error: reading kubeconfig kubeconfig: "), "{broken:?}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "broken: [\n");
}
