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
fn the_short_version_is_that_of_the_client() {
    let bench = Bench::start(Mode::Cluster);
    assert_eq!(bench.run(&["version", "--short", "--client"]).stdout, "Client:\nTalos v1.7.0\n");
    let outcome = bench.run(&["version", "--short"]);
    let server = "Client:\nTalos v1.7.0\nServer:\n\tNODE:        127.0.0.1\n\tTag:         v1.7.0\n";
    assert!(outcome.stdout.starts_with(server), "{outcome:?}");
}

#[test]
fn the_versions_of_nodes_are_printed_as_json() {
    let bench = Bench::start(Mode::Cluster);
    let outcome = bench.run(&["version", "--json", "-n", "10.5.0.2,10.9.9.9"]);
    let expected = "{\"messages\":[{\"metadata\":{\"hostname\":\"10.5.0.2\"},\"version\":{\"tag\":\"v1.7.0\",\"os\":\"linux\",\
                    \"arch\":\"amd64\"},\"platform\":{\"name\":\"container\",\"mode\":\"container\"},\"features\":{\"rbac\":true}}]}\n";
    assert_eq!(outcome.stdout, expected);
    assert_eq!((outcome.stderr.contains("10.9.9.9: no route to host"), outcome.code), (true, 1), "{outcome:?}");
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
        for nodes in ["a,b", "127.0.0.1,127.0.0.1"] {
            let outcome = bench.run(&[command, &["-n", nodes]].concat());
            assert_eq!(outcome.code, 1, "{outcome:?}");
            assert!(outcome.stderr.contains("takes exactly one node"), "{outcome:?}");
        }
    }
}

#[test]
fn what_the_server_does_not_offer_is_said() {
    let bench = Bench::start(Mode::Cluster);
    let outcome = bench.run(&["memory"]);
    assert_eq!(outcome.code, 1);
    assert!(
        outcome.stderr.contains("calling Memory: ") && outcome.stderr.contains("is not implemented here"),
        "{outcome:?}"
    );
    let planned = bench.run(&["dashboard"]);
    assert_eq!((planned.code, planned.stdout.as_str()), (2, ""));
}

#[test]
fn no_header_stands_alone_when_every_node_failed() {
    let bench = Bench::start(Mode::Cluster);
    for command in [&["services"][..], &["events"], &["get", "members"], &["get", "members", "--watch"]] {
        let outcome = bench.run(&[command, &["-n", DEAD_NODE]].concat());
        assert_eq!((outcome.stdout.as_str(), outcome.code), ("", 1), "{command:?}: {outcome:?}");
        assert!(outcome.stderr.contains("no route to host"), "{command:?}: {outcome:?}");
    }
}

#[test]
fn a_node_that_is_named_twice_is_asked_once() {
    let bench = Bench::start(Mode::Cluster);
    let outcome = bench.run(&["services", "-n", "10.5.0.2,10.5.0.2", "-n", "10.5.0.2"]);
    assert_eq!(outcome.stdout.lines().count(), 3, "{outcome:?}");
    assert_eq!(outcome.code, 0);
}

#[test]
fn an_empty_name_of_a_node_leads_to_no_other_node() {
    let bench = Bench::start(Mode::Cluster);
    for nodes in ["", "10.5.0.2,"] {
        let outcome = bench.run(&["services", "-n", nodes]);
        assert_eq!((outcome.stdout.as_str(), outcome.code), ("", 1), "{outcome:?}");
        assert!(outcome.stderr.contains("empty node name"), "{outcome:?}");
    }
}

#[test]
fn events_are_in_columns_with_the_node_that_failed_beside_them() {
    let bench = Bench::start(Mode::Cluster);
    let outcome = bench.run(&["events", "-n", &format!("10.5.0.2,{DEAD_NODE},10.5.0.3")]);
    let expected = "\
NODE         ID                     EVENT                        ACTOR                  SOURCE                 MESSAGE
10.5.0.2     01                     machine.AddressEvent                                cp-1                   addresses: 10.5.0.2
10.5.0.3     01                     machine.AddressEvent                                cp-1                   addresses: 10.5.0.2
";
    assert_eq!(outcome.stdout, expected);
    assert_eq!(outcome.stderr, "error: 10.9.9.9: no route to host\nerror: one node returned an error\n");
    assert_eq!(outcome.code, 1);
}

#[test]
fn the_graph_shows_resources_and_leaves_out_what_may_not_be_read() {
    let bench = Bench::start(Mode::Cluster);
    let outcome = bench.run(&["inspect", "dependencies", "--with-resources"]);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    for id in ["w1", "w2"] {
        let line = format!(r#"  "Members.cluster.talos.dev/{id}" [shape=ellipse, label="{id}"];"#);
        assert!(outcome.stdout.contains(&line), "{outcome:?}");
    }
    let left_out = "warning: left out RootSecrets.secrets.talos.dev: it is sensitive and needs role os:admin\n";
    assert_eq!(outcome.stderr, left_out);
}
