use std::time::Duration;

use pki::{Authority, CaProfile};
use stdx::{Clock as _, SystemClock};

use crate::server::{Bench, Mode, run_in};

#[test]
fn a_dead_endpoint_is_passed_over() {
    let bench = Bench::start(Mode::Cluster);
    // Port 1 on loopback refuses connections.
    let endpoints = format!("127.0.0.1:1,127.0.0.1:{}", bench.port);
    let outcome = bench.run(&["version", "-e", &endpoints]);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let outcome = bench.run(&["version", "-e", "127.0.0.1:1,127.0.0.1:2"]);
    assert_eq!(outcome.code, 1);
    assert!(outcome.stderr.contains("127.0.0.1:1: ") && outcome.stderr.contains("127.0.0.1:2: "), "{outcome:?}");
    assert!(outcome.stderr.contains("\nhint: is the node up"), "{outcome:?}");
}

#[test]
fn a_certificate_of_another_cluster_is_refused_with_advice() {
    let bench = Bench::start(Mode::Cluster);
    let now = SystemClock.now();
    let stranger = Authority::generate(CaProfile::Os, now).unwrap();
    bench.write_talosconfig(&stranger, now, Duration::from_secs(3600));
    let outcome = bench.run(&["version"]);
    assert_eq!(outcome.code, 1);
    assert!(outcome.stderr.contains("hint: the node refused this context's certificate"), "{outcome:?}");
}

#[test]
fn an_expired_certificate_is_named_as_such() {
    let bench = Bench::start(Mode::Cluster);
    let past = SystemClock.now() - Duration::from_secs(7200);
    bench.write_talosconfig(&bench.authority, past, Duration::from_secs(60));
    let outcome = bench.run(&["version"]);
    assert_eq!(outcome.code, 1);
    assert!(outcome.stderr.contains("hint: a certificate is out of date"), "{outcome:?}");
}

#[test]
fn a_server_of_another_cluster_is_not_trusted() {
    let bench = Bench::start(Mode::Cluster);
    let other = Bench::start(Mode::Cluster);
    let outcome = bench.run(&["version", "-e", &format!("127.0.0.1:{}", other.port)]);
    assert_eq!(outcome.code, 1);
    assert!(outcome.stderr.contains("hint: the server's certificate is not of this context's cluster"), "{outcome:?}");
}

#[test]
fn a_name_that_the_certificate_does_not_have_is_not_taken_for_another_cluster() {
    let bench = Bench::start(Mode::Cluster);
    let outcome = bench.run(&["version", "-e", &format!("localhost:{}", bench.port)]);
    assert_eq!(outcome.code, 1);
    assert!(outcome.stderr.contains("hint: the node's certificate is for other names"), "{outcome:?}");
}

#[test]
fn maintenance_mode_needs_no_talosconfig_and_checks_the_fingerprint() {
    let bench = Bench::start(Mode::Maintenance);
    let node = format!("127.0.0.1:{}", bench.port);
    let empty = tempfile::tempdir().unwrap();
    let file = empty.path().join("config.yaml");
    std::fs::write(&file, "version: v1alpha1\n").unwrap();
    let file = file.to_str().unwrap();
    let fingerprint = bench.certificate.fingerprint();
    let apply = |fingerprint: &str| {
        let line =
            ["apply-config", "--insecure", "-n", &node, "-f", file, "--dry-run", "--cert-fingerprint", fingerprint];
        run_in(empty.path(), &line)
    };
    let good = apply(&fingerprint);
    assert_eq!((good.code, good.stdout.as_str()), (0, ""), "{good:?}");
    assert_eq!(good.stderr, "warning: 127.0.0.1: the sky is blue\ndry run: true, 18 bytes\n");
    let bad = apply("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
    assert_eq!(bad.code, 1);
    assert!(bad.stderr.contains(&fingerprint), "{bad:?}");
    assert!(bad.stderr.contains("hint: the node prints its fingerprint"), "{bad:?}");
    let any = run_in(empty.path(), &["version", "--insecure", "-n", &node]);
    assert_eq!(any.code, 0, "{any:?}");
    for line in [&["apply-config", "--insecure", "-f", file][..], &["version", "-i"], &["get", "links", "-i"]] {
        let nowhere = run_in(empty.path(), line);
        assert_eq!(nowhere.code, 1);
        assert!(nowhere.stderr.starts_with("error: no nodes given\nhint: pass --nodes"), "{nowhere:?}");
    }
}

#[test]
fn a_node_of_a_cluster_in_maintenance_mode_is_shown_the_certificate_of_the_context() {
    let bench = Bench::start(Mode::GuardedMaintenance);
    let node = format!("127.0.0.1:{}", bench.port);
    let line = ["version", "--insecure", "-n", &node];
    let admin = bench.run(&line);
    assert_eq!(admin.code, 0, "{admin:?}");
    let empty = tempfile::tempdir().unwrap();
    let nobody = run_in(empty.path(), &line);
    assert_eq!(nobody.code, 1);
    assert!(nobody.stderr.contains("the certificate of an administrator in that talosconfig"), "{nobody:?}");
}

#[test]
fn a_node_that_has_its_configuration_needs_no_insecure() {
    let bench = Bench::start(Mode::Cluster);
    let node = format!("127.0.0.1:{}", bench.port);
    let file = bench.dir.path().join("config.yaml");
    std::fs::write(&file, "version: v1alpha1\n").unwrap();
    let apply = |nodes: &str| bench.run(&["apply-config", "--insecure", "-n", nodes, "-f", file.to_str().unwrap()]);
    let one = apply(&node);
    assert_eq!(one.code, 1);
    assert!(one.stderr.contains("hint: the node has its configuration already: leave --insecure out"), "{one:?}");
    let two = apply(&format!("127.0.0.1:1,{node}"));
    assert_eq!(two.code, 1);
    assert!(two.stderr.contains("error: 127.0.0.1:1: ") && two.stderr.contains(&format!("error: {node}: ")), "{two:?}");
    assert!(two.stderr.contains("error: 2 of 2 nodes failed\n"), "{two:?}");
}

#[test]
fn without_a_talosconfig_the_advice_is_to_make_one() {
    let empty = tempfile::tempdir().unwrap();
    let outcome = run_in(empty.path(), &["version"]);
    assert_eq!(outcome.code, 1);
    let path = empty.path().join("talosconfig");
    let expected = format!("error: there is no talosconfig {}\nhint: `talosctl gen config`", path.display());
    assert!(outcome.stderr.starts_with(&expected), "{outcome:?}");
    std::fs::write(&path, "contexts: {a: {}}\n").unwrap();
    let outcome = run_in(empty.path(), &["version"]);
    let expected =
        format!("error: using talosconfig {}: talosconfig has no current context\nhint: choose", path.display());
    assert!(outcome.stderr.starts_with(&expected), "{outcome:?}");
    std::fs::write(&path, "contexts: [1]\n").unwrap();
    let outcome = run_in(empty.path(), &["version"]);
    assert_eq!(outcome.code, 1);
    assert!(outcome.stderr.contains(path.to_str().unwrap()) && outcome.stderr.contains("line 1"), "{outcome:?}");
}
