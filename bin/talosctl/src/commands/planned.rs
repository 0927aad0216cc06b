//! Commands that are not implemented yet: their full command line is parsed, and running them fails with a clear error.

use clap::{Arg, ArgAction, ArgMatches, Command};

use Argument::{Flag, Positional, Value};

/// A command that is not implemented yet, by its path below `talosctl`.
struct Planned {
    path: &'static str,
    about: &'static str,
    aliases: &'static [&'static str],
    arguments: &'static [Argument],
}

enum Argument {
    Positional(&'static str, Count),
    /// Short name or a space, long name, help.
    Flag(char, &'static str, &'static str),
    /// Short name or a space, long name, type with its default after `=`, help.
    Value(char, &'static str, &'static str, &'static str),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Count {
    One,
    Any,
}

const fn planned(path: &'static str, about: &'static str, arguments: &'static [Argument]) -> Planned {
    Planned { path, about, aliases: &[], arguments }
}

const fn aliased(
    path: &'static str,
    aliases: &'static [&'static str],
    about: &'static str,
    arguments: &'static [Argument],
) -> Planned {
    Planned { path, about, aliases, arguments }
}

const DRY_RUN: Argument = Flag(' ', "dry-run", "Shows the changes only");
const WITH_DOCS: Argument = Value(' ', "with-docs", "bool=true", "Explains fields of configurations");
const WITH_EXAMPLES: Argument = Value(' ', "with-examples", "bool=true", "Shows examples in configurations");

const COMMANDS: &[Planned] = &[
    planned("conformance", "Tests conformance", &[]),
    aliased(
        "conformance kubernetes",
        &["k8s"],
        "Runs the conformance tests of Kubernetes",
        &[Value(' ', "mode", "string=fast", "fast or certified")],
    ),
    aliased(
        "copy",
        &["cp"],
        "Copies files from a node",
        &[Positional("src-path", Count::One), Positional("local-path", Count::One)],
    ),
    planned(
        "dashboard",
        "Shows a dashboard of nodes",
        &[Value('d', "update-interval", "duration=3s", "Time between updates")],
    ),
    planned("etcd alarm", "Manages alarms of etcd", &[]),
    planned("etcd alarm disarm", "Disarms the alarms", &[]),
    planned("etcd alarm list", "Lists the alarms", &[]),
    planned("etcd defrag", "Defragments the database of a node", &[]),
    planned("etcd forfeit-leadership", "Transfers leadership to another member", &[]),
    planned("etcd leave", "Makes a node leave the cluster", &[]),
    planned("etcd remove-member", "Removes a member", &[Positional("member ID", Count::One)]),
    planned("etcd snapshot", "Saves a snapshot", &[Positional("path", Count::One)]),
    planned("etcd status", "Shows the state of members", &[]),
    aliased("image list", &["l", "ls"], "Lists the images of nodes", &[]),
    aliased("image pull", &["p"], "Pulls an image", &[Positional("image", Count::One)]),
    aliased(
        "netstat",
        &["ss"],
        "Lists sockets",
        &[
            Flag('a', "all", "All states"),
            Flag('x', "extend", "More columns"),
            Flag('4', "ipv4", "IPv4 only"),
            Flag('6', "ipv6", "IPv6 only"),
            Flag('l', "listening", "Listening sockets only"),
            Flag('k', "pods", "Sockets of pods"),
            Flag('p', "programs", "Programs that own the sockets"),
            Flag('w', "raw", "Raw sockets"),
            Flag('t', "tcp", "TCP sockets"),
            Flag('o', "timers", "Timers"),
            Flag('u', "udp", "UDP sockets"),
            Flag('U', "udplite", "UDP-Lite sockets"),
            Flag('v', "verbose", "All details"),
        ],
    ),
    aliased(
        "pcap",
        &["tcpdump"],
        "Captures packets of a node",
        &[
            Value(' ', "bpf-filter", "string", "Filter as `tcpdump -dd` prints it"),
            Value(' ', "duration", "duration", "How long to capture"),
            Value('i', "interface", "string=eth0", "Interface"),
            Value('o', "output", "string", "File to write to"),
            Flag(' ', "promiscuous", "Enables promiscuous mode"),
        ],
    ),
    planned(
        "restart",
        "Restarts a container",
        &[Positional("id", Count::One), Flag('k', "kubernetes", "A container of Kubernetes")],
    ),
    planned(
        "rotate-ca",
        "Replaces the certificate authorities",
        &[
            Value(' ', "control-plane-nodes", "strings", "Control plane nodes"),
            Value(' ', "dry-run", "bool=true", "Shows the actions only"),
            Value(' ', "init-node", "string", "The first control plane node"),
            Value(' ', "k8s-endpoint", "string", "Kubernetes endpoint"),
            Value(' ', "kubernetes", "bool=true", "Replaces that of Kubernetes"),
            Value('o', "output", "string=talosconfig", "File for the new talosconfig"),
            Value(' ', "talos", "bool=true", "Replaces that of the machine API"),
            WITH_DOCS,
            WITH_EXAMPLES,
            Value(' ', "worker-nodes", "strings", "Worker nodes"),
        ],
    ),
    planned("stats", "Shows resource usage of containers", &[Flag('k', "kubernetes", "Containers of Kubernetes")]),
    planned(
        "support",
        "Collects diagnostics",
        &[
            Value('w', "num-workers", "int=1", "Parallel requests"),
            Value('O', "output", "string", "File to write to"),
            Flag('v', "verbose", "Shows errors during collection"),
        ],
    ),
    planned(
        "upgrade-k8s",
        "Upgrades Kubernetes",
        &[
            Value(' ', "apiserver-image", "string=registry.k8s.io/kube-apiserver", "Image of kube-apiserver"),
            Value(
                ' ',
                "controller-manager-image",
                "string=registry.k8s.io/kube-controller-manager",
                "Image of kube-controller-manager",
            ),
            DRY_RUN,
            Value(' ', "endpoint", "string", "Kubernetes endpoint"),
            Value(' ', "from", "string", "Version to upgrade from"),
            Value(' ', "kubelet-image", "string=ghcr.io/siderolabs/kubelet", "Image of the kubelet"),
            Value(' ', "pre-pull-images", "bool=true", "Pulls images first"),
            Value(' ', "proxy-image", "string=registry.k8s.io/kube-proxy", "Image of kube-proxy"),
            Value(' ', "scheduler-image", "string=registry.k8s.io/kube-scheduler", "Image of kube-scheduler"),
            Value(' ', "to", "string=1.30.0", "Version to upgrade to"),
            Value(' ', "upgrade-kubelet", "bool=true", "Upgrades the kubelets too"),
            WITH_DOCS,
            WITH_EXAMPLES,
        ],
    ),
    aliased(
        "usage",
        &["du"],
        "Shows disk usage",
        &[
            Positional("path", Count::Any),
            Flag('a', "all", "Includes files"),
            Value('d', "depth", "int32=0", "Maximum depth"),
            Flag('H', "humanize", "Human-readable sizes"),
            Value('t', "threshold", "int=0", "Smallest size to show"),
        ],
    ),
];

/// Adds the planned commands to the implemented ones.
pub(crate) fn add_to(root: Command) -> Command {
    COMMANDS.iter().fold(root, |root, planned| {
        let path: Vec<&'static str> = planned.path.split(' ').collect();
        insert(root, &path, planned)
    })
}

/// The path of the planned command on this command line, if it is one.
pub(crate) fn find(matches: &ArgMatches) -> Option<String> {
    let mut path = Vec::new();
    let mut next = matches.subcommand();
    while let Some((name, below)) = next {
        path.push(name);
        next = below.subcommand();
    }
    let path = path.join(" ");
    COMMANDS.iter().any(|planned| planned.path == path).then_some(path)
}

fn insert(command: Command, path: &[&'static str], planned: &Planned) -> Command {
    match path {
        [] => command,
        [name] => {
            let has_below = COMMANDS.iter().any(|other| other.path.starts_with(&format!("{} ", planned.path)));
            command.subcommand(build(name, planned, has_below))
        }
        [name, rest @ ..] => command.mut_subcommand(*name, |below| insert(below, rest, planned)),
    }
}

fn build(name: &'static str, planned: &Planned, has_below: bool) -> Command {
    let command = Command::new(name).about(format!("{} (not available yet)", planned.about));
    let command = command.visible_aliases(planned.aliases);
    let command = command.subcommand_required(has_below).arg_required_else_help(has_below);
    planned.arguments.iter().fold(command, |command, argument| command.arg(convert(argument, has_below)))
}

fn convert(argument: &Argument, global: bool) -> Arg {
    match *argument {
        Positional(name, count) => {
            let arg = Arg::new(name).value_name(name).required(count == Count::One);
            if count == Count::Any { arg.num_args(0..) } else { arg }
        }
        Flag(short, long, help) => named(short, long, help).action(ArgAction::SetTrue).global(global),
        Value(short, long, kind, help) => {
            let (kind, default) = kind.split_once('=').map_or((kind, None), |(kind, default)| (kind, Some(default)));
            let arg = named(short, long, help).value_name(kind).global(global);
            let arg = match kind {
                "bool" => arg
                    .num_args(0..=1)
                    .require_equals(true)
                    .default_missing_value("true")
                    .value_parser(clap::value_parser!(bool)),
                "strings" => arg.action(ArgAction::Append).value_delimiter(','),
                "stringArray" => arg.action(ArgAction::Append),
                "int" | "int32" => arg.value_parser(clap::value_parser!(i64)),
                "duration" => arg.value_parser(crate::arguments::duration),
                "string" => arg,
                choices => arg.value_parser(choices.split('|').collect::<Vec<_>>()).value_name("string"),
            };
            match default {
                Some(default) => arg.default_value(default),
                None => arg,
            }
        }
    }
}

fn named(short: char, long: &'static str, help: &'static str) -> Arg {
    let arg = Arg::new(long).long(long).help(help);
    if short == ' ' { arg } else { arg.short(short) }
}
