//! Flags of `cluster create` without effect. They are parsed, so that a command line with one of them is understood. For
//! containers, those for virtual machines are without effect, as in Talos 1.7, and are named; those of parts of the system that
//! come later are refused. Where nodes are virtual machines, those of CNI plugins are named, because scripts for the original pass
//! them and lose nothing; each other one is refused with its reason.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use super::Provisioner;
use Takes::{Nothing, Value};
use Treatment::{Machines, Refuse, Warn};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
    Nothing,
    Value,
}

/// How a flag is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Treatment {
    /// A warning.
    Warn,
    /// It is for virtual machines: a warning where nodes are containers, and refused where they are machines.
    Machines,
    Refuse,
}

/// What is done about a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// A warning that it has no effect, for this reason.
    None(&'static str),
    /// It is refused, for this reason.
    Refused(&'static str),
}

const NO_MACHINES: &str = "it is for virtual machines, and nodes are containers here";
const NO_CNI: &str = "networks of virtual machines are made without CNI plugins";
const KUBESPAN: &str = "it waits for KubeSpan";

/// The reasons are those of virtual machines, and of containers where these refuse a flag too.
const FLAGS: [(&str, Takes, Treatment, &str); 12] = [
    ("cni-bin-path", Value, Warn, NO_CNI),
    ("cni-bundle-url", Value, Warn, NO_CNI),
    ("cni-cache-dir", Value, Warn, NO_CNI),
    ("cni-conf-dir", Value, Warn, NO_CNI),
    (
        "config-injection-method",
        Value,
        Machines,
        "the medium decides: kernel arguments with --vmlinuz-path and `--ipxe-boot-script local`, else the API",
    ),
    ("ipv6", Nothing, Refuse, "it waits for IPv6 in local clusters"),
    ("use-vip", Nothing, Refuse, "it waits for virtual IPs"),
    ("wireguard-cidr", Value, Refuse, "it waits for WireGuard links"),
    ("with-firewall", Value, Refuse, "it waits for the ingress firewall"),
    ("with-kubespan", Nothing, Refuse, KUBESPAN),
    ("with-siderolink", Value, Machines, "it waits for SideroLink"),
    ("with-uuid-hostnames", Nothing, Machines, "names come by DHCP; --disable-dhcp-hostname leaves them to the nodes"),
];

/// The flags of this kind that were given.
#[derive(Debug, Default)]
pub(super) struct IdleFlags(Vec<&'static str>);

impl IdleFlags {
    /// The given flags with what is done about them.
    pub(super) fn effects(&self, provisioner: Provisioner) -> impl Iterator<Item = (&'static str, Effect)> {
        let given = |name: &str| self.0.contains(&name);
        let flags = FLAGS.iter().filter(move |(name, ..)| given(name));
        flags.map(move |(name, _, treatment, reason)| {
            let effect = match (provisioner, treatment) {
                (Provisioner::Containers, Warn | Machines) => Effect::None(NO_MACHINES),
                (Provisioner::Machines, Warn) => Effect::None(reason),
                (_, Machines | Refuse) => Effect::Refused(reason),
            };
            (*name, effect)
        })
    }
}

impl FromArgMatches for IdleFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |name: &str| matches.value_source(name) == Some(clap::parser::ValueSource::CommandLine);
        let flags = FLAGS.iter().filter(|(name, ..)| given(name));
        Ok(Self(flags.map(|(name, ..)| *name).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for IdleFlags {
    fn augment_args(command: Command) -> Command {
        FLAGS.iter().fold(command, |command, (name, takes, ..)| {
            let flag = Arg::new(*name).long(*name).hide(true);
            command.arg(match takes {
                Value => flag.action(ArgAction::Append),
                Nothing => flag.action(ArgAction::SetTrue),
            })
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

/// Whether the CPUs of nodes were given: their default depends on what runs the nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CpusGiven {
    pub(super) control_plane: bool,
    pub(super) worker: bool,
}

impl FromArgMatches for CpusGiven {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |id: &str| matches.value_source(id) == Some(clap::parser::ValueSource::CommandLine);
        Ok(Self { control_plane: given("cpus"), worker: given("cpus_workers") })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// It has no arguments of its own: it looks at those of the command.
impl Args for CpusGiven {
    fn augment_args(command: Command) -> Command {
        command
    }

    fn augment_args_for_update(command: Command) -> Command {
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_refuse_what_containers_do_without() {
        let flags = IdleFlags(vec!["cni-bin-path", "with-kubespan"]);
        let effects = |provisioner| flags.effects(provisioner).map(|(_, effect)| effect).collect::<Vec<_>>();
        assert_eq!(effects(Provisioner::Containers), [Effect::None(NO_MACHINES), Effect::Refused(KUBESPAN)]);
        let flags = IdleFlags(vec!["with-siderolink", "with-kubespan"]);
        let effects: Vec<_> = flags.effects(Provisioner::Machines).map(|(_, effect)| effect).collect();
        assert_eq!(effects, [Effect::Refused(KUBESPAN), Effect::Refused("it waits for SideroLink")]);
    }

    #[test]
    fn flags_of_cni_plugins_are_warned_of_and_never_refused() {
        let all = ["cni-bin-path", "cni-bundle-url", "cni-cache-dir", "cni-conf-dir"];
        let flags = IdleFlags(all.to_vec());
        for (provisioner, reason) in [(Provisioner::Containers, NO_MACHINES), (Provisioner::Machines, NO_CNI)] {
            let effects: Vec<_> = flags.effects(provisioner).collect();
            assert_eq!(effects, all.map(|name| (name, Effect::None(reason))));
        }
    }
}
