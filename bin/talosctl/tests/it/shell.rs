//! The program in shells and scripts: help, pipes, an empty environment.

use std::process::{Command, Stdio};

use crate::server::{Bench, Mode, run_in};

#[expect(clippy::disallowed_methods, reason = "tests run on a host, not under the node's reaper")]
fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_talosctl"))
}

#[test]
fn a_group_of_commands_without_one_shows_its_help() {
    let dir = tempfile::tempdir().unwrap();
    for line in [&[][..], &["config"], &["gen"], &["cluster"], &["etcd", "alarm"]] {
        let outcome = run_in(dir.path(), line);
        assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""), "{line:?}: {outcome:?}");
        assert!(outcome.stdout.contains("Commands:"), "{line:?}: {outcome:?}");
    }
    for line in [&["config", "context"][..], &["bootstrap", "--nope"], &["nope"], &["validate", "-c", "x"]] {
        let outcome = run_in(dir.path(), line);
        assert_eq!((outcome.code, outcome.stdout.as_str()), (1, ""), "{line:?}: {outcome:?}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    for line in [&["completion", "bash"][..], &["--help"], &["version", "--client"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = program().args(line).env_clear().stdout(writer).stderr(Stdio::piped()).output().unwrap();
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]), "{line:?}: {output:?}");
    }
}

#[test]
fn without_a_home_directory_commands_say_what_is_missing() {
    for (line, said) in [
        (&["config", "contexts"][..], "no place for a talosconfig"),
        (&["cluster", "show"], "no --state and no home directory"),
    ] {
        let output = program().args(line).env_clear().stdin(Stdio::null()).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{line:?}: {stderr}");
        assert!(stderr.contains(said), "{line:?}: {stderr}");
    }
}

#[test]
fn flags_with_empty_values_are_flags_that_were_not_given() {
    let bench = Bench::start(Mode::Cluster);
    let outcome = bench.run(&["get", "members", "--namespace", "", "--context", "", "--talosconfig=", "--cluster="]);
    assert_eq!((outcome.stdout.lines().count(), outcome.code), (3, 0), "{outcome:?}");
}

#[test]
fn output_that_goes_into_a_pipe_has_no_colours() {
    let dir = tempfile::tempdir().unwrap();
    for line in [&["version"][..], &["--help"], &["nope"], &["config", "info"]] {
        let outcome = run_in(dir.path(), line);
        assert!(!outcome.stdout.contains('\u{1b}') && !outcome.stderr.contains('\u{1b}'), "{line:?}: {outcome:?}");
    }
}

#[test]
fn files_that_a_machine_must_not_get_are_refused_with_their_lines() {
    let dir = tempfile::tempdir().unwrap();
    for (name, text, said) in [
        ("unknown", "machine:\n  typo: 1\n", "document 1 (v1alpha1), line 2, column 3, machine.typo: "),
        ("type", "debug: [1]\n", "document 1 (v1alpha1), line 1, column 8, debug: "),
        ("twice", "debug: true\n---\ndebug: true\n", "document 2 (v1alpha1), line 3, column 1: "),
        (
            "cidr",
            "cluster:\n  network:\n    podSubnets: [10.0.0.0/33]\n",
            "document 1 (v1alpha1), line 3, column 18, cluster.network.podSubnets[0]: ",
        ),
        (
            "endpoint",
            "cluster:\n  controlPlane:\n    endpoint: 10.5.0.2:6443\n",
            "document 1 (v1alpha1), line 3, column 15, cluster.controlPlane.endpoint: ",
        ),
        (
            "worker",
            "machine:\n  type: worker\n  ca: {crt: YQ==, key: YQ==}\n",
            "document 1 (v1alpha1), line 3, column 24, machine.ca.key: ",
        ),
        ("empty", "", "the text is empty"),
    ] {
        let file = format!("{name}.yaml");
        std::fs::write(dir.path().join(&file), text).unwrap();
        let outcome = run_in(dir.path(), &["validate", "-c", &file, "-m", "container"]);
        assert_eq!((outcome.code, outcome.stdout.as_str()), (1, ""), "{name}: {outcome:?}");
        assert!(outcome.stderr.contains(said) && outcome.stderr.contains(&file), "{name}: {outcome:?}");
    }
}

#[test]
fn completion_scripts_are_read_by_their_shell() {
    let dir = tempfile::tempdir().unwrap();
    for shell in ["bash", "fish", "zsh"] {
        let outcome = run_in(dir.path(), &["completion", shell]);
        assert_eq!(outcome.code, 0, "{outcome:?}");
        assert!(outcome.stdout.contains("apply-config") && outcome.stdout.contains("talosconfig"), "{shell}");
        std::fs::write(dir.path().join(shell), outcome.stdout).unwrap();
    }
    #[expect(clippy::disallowed_methods, reason = "tests run on a host, not under the node's reaper")]
    let checked = Command::new("bash").arg("-n").arg(dir.path().join("bash")).output().unwrap();
    assert!(checked.status.success(), "{checked:?}");
}
