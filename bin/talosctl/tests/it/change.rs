//! Commands that change the configuration of nodes.

use crate::server::{Bench, CONFIGURATION, DEAD_NODE, Mode};

/// Leaves the file as it is, and says what it was.
const SHOW: &str = "cat";

#[test]
fn a_patch_is_applied_to_every_node() {
    let bench = Bench::start(Mode::Cluster);
    std::fs::write(bench.dir.path().join("patch.yaml"), "machine: {network: {hostname: new}}\n").unwrap();
    for flags in [&["--patch", "@patch.yaml"][..], &["--patch-file", "patch.yaml"]] {
        let line = [&["patch", "mc", "-n", "10.5.0.2,10.5.0.3", "--mode=no-reboot"], flags].concat();
        let outcome = bench.run(&line);
        assert_eq!((outcome.stdout.as_str(), outcome.code), ("", 0), "{outcome:?}");
        for node in ["10.5.0.2", "10.5.0.3"] {
            let said = format!("patched MachineConfigs.config.talos.dev/v1alpha1 at the node {node}\n");
            assert!(outcome.stderr.contains(&said), "{outcome:?}");
        }
        assert_eq!(outcome.stderr.matches("dry run: false").count(), 2, "{outcome:?}");
    }
}

#[test]
fn a_patch_without_effect_and_a_dry_run_say_so() {
    let bench = Bench::start(Mode::Cluster);
    let patch = |name: &str, more: &[&str]| {
        let patch =
            format!("[{{\"op\": \"replace\", \"path\": \"/machine/network/hostname\", \"value\": \"{name}\"}}]");
        bench.run(&[&["patch", "machineconfig", "v1alpha1", "-p", &patch], more].concat())
    };
    let same = patch("old", &[]);
    assert!(same.stderr.contains("Apply was skipped: no changes detected.") && same.code == 0, "{same:?}");
    assert!(!same.stderr.contains("patched"), "{same:?}");
    let dry = patch("new", &["--dry-run"]);
    assert!(dry.stderr.contains("dry run: true") && !dry.stderr.contains("patched"), "{dry:?}");
    let refused = patch("refused", &[]);
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("no node is called refused"), "{refused:?}");
}

#[test]
fn a_node_that_cannot_be_patched_does_not_keep_the_others_back() {
    let bench = Bench::start(Mode::Cluster);
    let nodes = format!("{DEAD_NODE},10.5.0.2");
    let outcome = bench.run(&["patch", "mc", "-n", &nodes, "-p", "debug: true"]);
    assert_eq!(outcome.code, 1);
    assert!(outcome.stderr.contains("patched") && outcome.stderr.contains("error: 10.9.9.9: "), "{outcome:?}");
    for (line, said) in [
        (&["patch", "members", "-p", "debug: true"][..], "only machine configurations can"),
        (&["patch", "mc"], "no patch to apply"),
        (&["patch", "mc", "-p", "machine: {wip: 1}"], "wip"),
    ] {
        let refused = bench.run(line);
        assert!(refused.code == 1 && refused.stderr.contains(said), "{refused:?}");
    }
}

#[test]
fn an_edit_is_applied_and_without_a_change_nothing_is() {
    let bench = Bench::start(Mode::Cluster);
    let shown = bench.run_with_editor(SHOW, &["edit", "mc"]);
    let title = "# Editing MachineConfigs.config.talos.dev/v1alpha1 at node 127.0.0.1\n";
    assert!(shown.stdout.starts_with(title) && shown.stdout.ends_with(CONFIGURATION), "{shown:?}");
    assert_eq!((shown.stderr.as_str(), shown.code), ("Apply was skipped: no changes detected.\n", 0));
    let edited = bench.run_with_editor("sed -i -e s/old/new/", &["edit", "machineconfig", "--mode", "no-reboot"]);
    assert_eq!(edited.code, 0, "{edited:?}");
    assert!(edited.stderr.contains(&format!("dry run: false, {} bytes", CONFIGURATION.len())), "{edited:?}");
}

#[test]
fn an_error_opens_the_editor_again_and_an_unchanged_file_ends_it() {
    let bench = Bench::start(Mode::Cluster);
    let refused = bench.run_with_editor("sed -i -e s/old/refused/", &["edit", "mc"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("no node is called refused"), "{refused:?}");
    let kept = refused.stderr.lines().find_map(|line| line.strip_prefix("hint: your changes are kept in ")).unwrap();
    let text = std::fs::read_to_string(kept).unwrap();
    assert!(text.contains("# error: ") && text.contains("hostname: refused"), "{text}");
    // The second round puts it right.
    let editor =
        "sh -c 'if grep -q refused \"$0\"; then sed -i s/refused/good/ \"$0\"; else sed -i s/old/refused/ \"$0\"; fi'";
    let mended = bench.run_with_editor(editor, &["edit", "mc"]);
    assert!(mended.code == 0 && mended.stderr.contains("dry run: false"), "{mended:?}");
    let broken = bench.run_with_editor("false", &["edit", "mc"]);
    assert!(broken.code == 1 && broken.stderr.contains("the editor \"false\" ended with"), "{broken:?}");
    assert!(!broken.stderr.contains("kept"), "{broken:?}");
    let halfway = bench.run_with_editor("sh -c 'sed -i s/old/new/ \"$0\"; exit 1'", &["edit", "mc"]);
    assert!(halfway.code == 1 && halfway.stderr.contains("your changes are kept in "), "{halfway:?}");
    // Such as a comment in another encoding.
    let unreadable = bench.run_with_editor("sh -c 'printf \"# \\374\" >> \"$0\"'", &["edit", "mc"]);
    assert!(unreadable.code == 1 && unreadable.stderr.contains("your changes are kept in "), "{unreadable:?}");
}

#[test]
fn mounts_have_sizes_and_those_without_are_left_out() {
    let bench = Bench::start(Mode::Cluster);
    let expected = "\
NODE        FILESYSTEM   SIZE(GB)   USED(GB)   AVAILABLE(GB)   PERCENT USED   MOUNTED ON
127.0.0.1   /dev/sda6    8.00       0.99       7.01            12.34%         /var
";
    assert_eq!(bench.run(&["mounts"]).stdout, expected);
}
