use crate::server::{Bench, DEAD_NODE, Mode};

#[test]
fn version_shows_client_and_server() {
    let bench = Bench::start(Mode::Cluster);
    let outcome = bench.run(&["version"]);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let server = "Server:\n\tNODE:        127.0.0.1\n\tTag:         v1.7.0\n";
    assert!(outcome.stdout.starts_with("Client:\n\tTag:         v1.7.0\n"), "{outcome:?}");
    assert!(outcome.stdout.contains(server) && outcome.stdout.ends_with("\tEnabled:     RBAC\n"), "{outcome:?}");
}

#[test]
fn an_unreachable_node_is_reported_beside_the_others_and_fails_the_command() {
    let bench = Bench::start(Mode::Cluster);
    let nodes = format!("10.5.0.2,{DEAD_NODE}");
    let outcome = bench.run(&["services", "-n", &nodes]);
    let expected = "\
NODE       SERVICE   STATE     HEALTH   LAST CHANGE   LAST EVENT
10.5.0.2   apid      Running   OK                     
10.5.0.2   kubelet   Running   Fail                   
";
    assert_eq!(outcome.stdout, expected);
    assert!(outcome.stderr.starts_with("error: 10.9.9.9: no route to host\n"), "{outcome:?}");
    assert_eq!(outcome.code, 1);
}

#[test]
fn logs_are_whole_lines_behind_their_node() {
    let bench = Bench::start(Mode::Cluster);
    let outcome = bench.run(&["logs", "apid", "--tail", "-1"]);
    assert_eq!(outcome.stdout, "10.5.0.2: first line\n10.5.0.2: second line\n");
    assert_eq!(outcome.code, 0);
    let missing = bench.run(&["logs", "nothing"]);
    assert_eq!(missing.code, 1);
    assert!(missing.stderr.contains("calling Logs: there is no log"), "{missing:?}");
}

#[test]
fn commands_for_one_node_refuse_several() {
    let bench = Bench::start(Mode::Cluster);
    for command in [&["read", "/etc/hosts"][..], &["kubeconfig", "-"], &["health"], &["inspect", "dependencies"]] {
        let outcome = bench.run(&[command, &["-n", "a,b"]].concat());
        assert_eq!(outcome.code, 1, "{outcome:?}");
        assert!(outcome.stderr.contains("takes exactly one node"), "{outcome:?}");
    }
}

#[test]
fn what_the_server_does_not_offer_is_said() {
    let bench = Bench::start(Mode::Cluster);
    let outcome = bench.run(&["memory"]);
    assert_eq!(outcome.code, 1);
    assert!(
        outcome.stderr.contains("calling Memory: ") && outcome.stderr.contains("waits for another day"),
        "{outcome:?}"
    );
    let planned = bench.run(&["dashboard"]);
    assert_eq!((planned.code, planned.stdout.as_str()), (2, ""));
}
