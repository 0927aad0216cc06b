//! Flags of `cluster create` without effect. They are parsed, so that a command line with one of them is understood. For
//! containers, those for virtual machines are without effect, as in Talos 1.7, and are named; those of parts of the system that
//! come later are refused. Where nodes are virtual machines, each of them is refused with its reason.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use super::Provisioner;
use Containers::{Ignore, Refuse};
use Takes::{Nothing, Value};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
    Nothing,
    Value,
}

/// What a flag does where nodes are containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Containers {
    /// It is for virtual machines, and said to be.
    Ignore,
    Refuse,
}

/// What is done about a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// It is named, and nothing else.
    None,
    /// It is refused, for this reason.
    Refused(&'static str),
}

const NO_CNI: &str = "networks of virtual machines are made without CNI plugins";
const ENCRYPTION: &str = "it waits for disk encryption";
const KUBESPAN: &str = "it waits for KubeSpan";

/// The reasons are those of virtual machines, and of containers where these refuse a flag too.
const FLAGS: [(&str, Takes, Containers, &str); 15] = [
    ("cni-bin-path", Value, Ignore, NO_CNI),
    ("cni-bundle-url", Value, Ignore, NO_CNI),
    ("cni-cache-dir", Value, Ignore, NO_CNI),
    ("cni-conf-dir", Value, Ignore, NO_CNI),
    (
        "config-injection-method",
        Value,
        Ignore,
        "the medium decides: kernel arguments with --vmlinuz-path and `--ipxe-boot-script local`, else the API",
    ),
    ("disk-encryption-key-types", Value, Ignore, ENCRYPTION),
    ("encrypt-ephemeral", Nothing, Ignore, ENCRYPTION),
    ("encrypt-state", Nothing, Ignore, ENCRYPTION),
    ("ipv6", Nothing, Refuse, "it waits for IPv6 in local clusters"),
    ("use-vip", Nothing, Refuse, "it waits for virtual IPs"),
    ("wireguard-cidr", Value, Refuse, "it waits for WireGuard links"),
    ("with-firewall", Value, Refuse, "it waits for the ingress firewall"),
    ("with-kubespan", Nothing, Refuse, KUBESPAN),
    ("with-siderolink", Value, Ignore, "it waits for SideroLink"),
    ("with-uuid-hostnames", Nothing, Ignore, "names come by DHCP; --disable-dhcp-hostname leaves them to the nodes"),
];

/// The flags of this kind that were given.
#[derive(Debug, Default)]
pub(super) struct IdleFlags(Vec<&'static str>);

impl IdleFlags {
    /// The given flags with what is done about them.
    pub(super) fn effects(&self, provisioner: Provisioner) -> impl Iterator<Item = (&'static str, Effect)> {
        let given = |name: &str| self.0.contains(&name);
        let flags = FLAGS.iter().filter(move |(name, ..)| given(name));
        flags.map(move |(name, _, containers, reason)| match (provisioner, containers) {
            (Provisioner::Containers, Ignore) => (*name, Effect::None),
            _ => (*name, Effect::Refused(reason)),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_refuse_what_containers_do_without() {
        let flags = IdleFlags(vec!["cni-bin-path", "with-kubespan"]);
        let effects = |provisioner| flags.effects(provisioner).map(|(_, effect)| effect).collect::<Vec<_>>();
        assert_eq!(effects(Provisioner::Containers), [Effect::None, Effect::Refused(KUBESPAN)]);
        assert_eq!(effects(Provisioner::Machines), [Effect::Refused(NO_CNI), Effect::Refused(KUBESPAN)]);
    }
}
