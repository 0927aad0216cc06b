use std::path::Path;

use super::*;
use crate::command_error::Kind;

fn golden_dir() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata")
}

#[test]
fn the_definition_is_sound() {
    command().debug_assert();
    switches_with_values(command()).debug_assert();
}

#[test]
fn every_documented_flag_is_there_with_its_short_name_and_kind() {
    let text = std::fs::read_to_string(golden_dir().join("command-line.txt")).unwrap();
    let mut root = command();
    root.build();
    let mut path = String::new();
    let mut wrong = Vec::new();
    let mut checked = 0;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some(flag) = line.strip_prefix("    ") else {
            path = line.to_owned();
            if find(&root, &path).is_none() {
                wrong.push(format!("{path}: there is no such command"));
            }
            continue;
        };
        let Some(command) = find(&root, &path) else { continue };
        checked += 1;
        if let Err(reason) = check_flag(command, flag) {
            wrong.push(format!("{path}: {flag}: {reason}"));
        }
    }
    assert!(checked > 270, "only {checked} flags were read");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn find<'a>(root: &'a clap::Command, path: &str) -> Option<&'a clap::Command> {
    match path {
        "(root)" => Some(root),
        path => path.split(' ').try_fold(root, clap::Command::find_subcommand),
    }
}

/// Defaults that depend on the environment and are therefore explained in the help instead; and the image, which is a
/// file here.
const OTHER_DEFAULTS: [&str; 3] = ["state", "kubernetes-version", "image"];

fn check_flag(command: &clap::Command, flag: &str) -> Result<(), String> {
    let (flag, default) = flag.split_once(" = ").map_or((flag, None), |(flag, default)| (flag, Some(default)));
    let words: Vec<&str> = flag.split(' ').collect();
    let (short, long, kind) = match words[..] {
        [short, long, kind] => (short.chars().nth(1), &long[2..], kind),
        [long, kind] => (None, &long[2..], kind),
        _ => return Err("the line cannot be read".to_owned()),
    };
    let argument = command
        .get_arguments()
        .find(|argument| argument.get_long() == Some(long))
        .ok_or_else(|| "it is missing".to_owned())?;
    if argument.get_short() != short {
        return Err(format!("its short name is {:?}", argument.get_short()));
    }
    if argument.is_hide_set() {
        // Refused by name, whatever the value.
        return Ok(());
    }
    let optional_value = argument.get_num_args().is_some_and(|range| range.min_values() == 0);
    let found = match argument.get_action() {
        ArgAction::SetTrue => "switch",
        ArgAction::Append => "list",
        _ if optional_value => "switch",
        _ => "value",
    };
    // A repeatable flag is documented as a single value.
    if found != kind && (found, kind) != ("list", "value") {
        return Err(format!("it is a {found}"));
    }
    let own: Vec<_> = argument.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    let own = (!own.is_empty()).then(|| own.join(","));
    // Equivalent to an undocumented default.
    let means_none = default.is_none() && matches!(own.as_deref(), Some("0" | "false" | "-1"));
    let on_purpose = ["create", "cluster"].contains(&command.get_name()) && OTHER_DEFAULTS.contains(&long);
    if own.as_deref() == default || means_none || on_purpose { Ok(()) } else { Err(format!("its default is {own:?}")) }
}

/// One file per top-level command, with the help of all its subcommands. Renewed with UPDATE_GOLDEN=1.
#[test]
fn help_of_every_command_is_as_recorded() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| !value.is_empty());
    let directory = golden_dir().join("help");
    let mut root = command().term_width(120);
    root.build();
    let mut files = vec![("talosctl".to_owned(), root.clone().render_long_help().to_string())];
    for command in root.get_subcommands().filter(|command| command.get_name() != "help") {
        let mut text = String::new();
        append_help(command, &mut text);
        files.push((command.get_name().to_owned(), text));
    }
    let mut differing = Vec::new();
    for (name, text) in &files {
        let path = directory.join(format!("{name}.txt"));
        if update {
            std::fs::write(&path, text).unwrap();
        } else if std::fs::read_to_string(&path).ok().as_ref() != Some(text) {
            differing.push(name.as_str());
        }
    }
    assert!(differing.is_empty(), "help differs from testdata/help for {differing:?}; renew with UPDATE_GOLDEN=1");
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), files.len(), "a file of a removed command is left");
}

fn append_help(command: &clap::Command, text: &mut String) {
    text.push_str(&format!("### {}\n\n", command.get_bin_name().unwrap_or(command.get_name())));
    text.push_str(&command.clone().render_long_help().to_string());
    for below in command.get_subcommands().filter(|command| command.get_name() != "help") {
        text.push('\n');
        append_help(below, text);
    }
}

fn parse_line(line: &str) -> Result<Invocation, clap::Error> {
    let words: Vec<OsString> = std::iter::once("talosctl").chain(line.split(' ')).map(OsString::from).collect();
    parse(&words)
}

#[test]
fn lists_and_switches_are_read_as_documented() {
    let parsed = parse_line("version --client=true -n a,b --nodes c -e=x --short").unwrap();
    assert_eq!(parsed.globals.nodes, ["a", "b", "c"]);
    assert_eq!(parsed.globals.endpoints, ["x"]);
    let shown = format!("{:?}", parsed.command);
    assert!(shown.contains("client: true") && shown.contains("short: true"), "{shown}");
    let shown = format!("{:?}", parse_line("health --server=false --wait-timeout 1m30s").unwrap().command);
    assert!(shown.contains("server: false") && shown.contains("wait_timeout: 90s"), "{shown}");
    let error = parse_line("health --wait-timeout soon").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ValueValidation);
    assert_eq!(parse_line("version --clien").unwrap_err().kind(), ErrorKind::UnknownArgument);
}

fn refusal(words: &[&str]) -> Option<String> {
    let words: Vec<OsString> = std::iter::once(&"talosctl").chain(words).map(OsString::from).collect();
    parse(&words).err().map(|error| error.to_string())
}

#[test]
fn roles_that_do_not_exist_are_refused() {
    for command in [&["inject", "serviceaccount", "-f", "x"][..], &["gen", "csr", "--key", "x"]] {
        let with = |roles| refusal(&[command, &["--roles", roles]].concat());
        assert_eq!(with("os:reader,os:etcd:backup"), None);
        for roles in ["os:reader,os:root", "os:Reader", "", "reader"] {
            let error = with(roles).unwrap_or_else(|| panic!("{command:?} takes {roles:?}"));
            assert!(error.contains("os:operator"), "the roles are named: {error}");
        }
    }
}

#[test]
fn generated_files_have_names() {
    for (command, flag) in [
        (&["gen", "key"][..], "--name"),
        (&["gen", "crt", "--ca", "c", "--csr", "c"], "--name"),
        (&["gen", "ca"], "--organization"),
        (&["gen", "keypair"], "--organization"),
    ] {
        let with = |name| refusal(&[command, &[flag, name]].concat());
        for name in ["admin", "a.b c", "../x", "/tmp/x", "a/b"] {
            assert_eq!(with(name), None);
        }
        for name in ["", "..", ".", "a/", "/tmp/..", "a\nb"] {
            let error = with(name).unwrap_or_else(|| panic!("{command:?} takes {name:?}"));
            assert!(error.contains("name"), "{error}");
        }
    }
}

#[test]
fn a_patch_may_begin_with_a_dash() {
    let words = ["talosctl", "machineconfig", "patch", "-p", "- op: remove\n  path: /a\n", "x.yaml", "-o", "y.yaml"];
    let shown = format!("{:?}", parse(&words.map(OsString::from)).unwrap().command);
    assert!(shown.contains(r#"patch: ["- op: remove\n  path: /a\n"]"#), "{shown}");
    assert!(shown.contains(r#"file: "x.yaml""#) && shown.contains(r#"output: Some("y.yaml")"#), "{shown}");
}

#[test]
fn aliases_lead_to_their_commands() {
    for (alias, name) in [
        ("apply -f x", "ApplyConfig"),
        ("c", "Containers"),
        ("g members", "Get"),
        ("ls", "List"),
        ("l /", "List"),
        ("mc patch x", "Machineconfig"),
        ("free", "Memory"),
        ("m", "Memory"),
        ("ps", "Processes"),
        ("p", "Processes"),
        ("cat /x", "Read"),
        ("services", "Service"),
        ("config use-context a", "Config"),
        ("config get-contexts", "Config"),
        ("config endpoints a", "Config"),
        ("config nodes a", "Config"),
        ("cp a b", "Planned(\"copy\")"),
        ("images p x", "Planned(\"image pull\")"),
        ("image ls", "Planned(\"image list\")"),
        ("image l", "Planned(\"image list\")"),
        ("inject tsa -f x", "Inject(Serviceaccount"),
        ("conformance k8s", "Planned(\"conformance kubernetes\")"),
        ("mount", "Mounts"),
        ("images default", "Image"),
        ("du", "Planned(\"usage\")"),
        ("ss -t", "Planned(\"netstat\")"),
    ] {
        let shown = format!("{:?}", parse_line(alias).unwrap().command);
        assert!(shown.starts_with(name), "{alias}: {shown}");
    }
}

#[test]
fn existing_configurations_exclude_the_choices_about_generated_ones() {
    parse_line("cluster create --input-dir . --config-patch x --workers 2 --endpoint a").unwrap();
    for flags in ["--kubernetes-version 1.30.0", "--with-debug", "--with-init-node=true", "--nameservers 1.1.1.1"] {
        let error = parse_line(&format!("cluster create -i . {flags}")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ArgumentConflict, "{flags}");
    }
}

#[tokio::test]
async fn flags_of_parts_that_are_missing_are_refused_before_anything_is_made() {
    let session = crate::session::Session::new(
        GlobalFlags::default(),
        crate::environment::Environment::default(),
        crate::output::Output::plain(),
    );
    for (flag, part) in [
        ("--use-vip", "virtual IPs"),
        ("--with-firewall block", "the ingress firewall"),
        ("--with-kubespan", "KubeSpan"),
        ("-p 80:80/tcp,53:53/udp --docker-host-ip 127.0.0.1 --with-firewall=block", "the ingress firewall"),
        ("--disk 100 --ipv6", "IPv6 in local clusters"),
    ] {
        let command = parse_line(&format!("cluster create --state /nonexistent {flag}")).unwrap().command;
        let error = crate::commands::run(command, super::command, &session).await.unwrap_err();
        assert_eq!((error.kind, error.hints), (Kind::NotAvailable, vec![format!("it waits for {part}")]), "{flag}");
    }
    for flags in ["--arch s390x", "--with-cluster-discovery=false -p 80"] {
        let command = parse_line(&format!("cluster create --state /nonexistent {flags}")).unwrap().command;
        let error = crate::commands::run(command, super::command, &session).await.unwrap_err();
        assert_eq!(error.kind, Kind::Usage, "{flags}");
    }
    // As pflag has it: a value that is given again replaces the one before.
    let shown = format!("{:?}", parse_line("cluster create --name a --mtu 1400 --mtu 1300 --name b").unwrap().command);
    assert!(shown.contains("name: \"b\"") && shown.contains("mtu: 1300"), "{shown}");
}

#[tokio::test]
async fn a_command_that_does_not_work_yet_says_so() {
    let session = crate::session::Session::new(
        GlobalFlags::default(),
        crate::environment::Environment::default(),
        crate::output::Output::plain(),
    );
    let command = parse_line("etcd alarm list").unwrap().command;
    let error = crate::commands::run(command, super::command, &session).await.unwrap_err();
    assert_eq!(error.kind, Kind::NotAvailable);
    assert_eq!(error.error.to_string(), "`talosctl etcd alarm list` is not available yet");
}
