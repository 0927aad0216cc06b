//! Flags of `cluster create` that do nothing for containers. They are parsed, so that a command line with one of them is
//! understood: those for virtual machines are without effect, as they are for containers in Talos 1.7, and are named; those of
//! parts of the system that come later are refused.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use Reason::{NotYet, VirtualMachines};
use Takes::{Nothing, Value};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
    Nothing,
    Value,
}

/// Why a flag does nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    VirtualMachines,
    /// It waits for this part of the system.
    NotYet(&'static str),
}

const KUBESPAN: Reason = NotYet("KubeSpan");

const FLAGS: [(&str, Takes, Reason); 39] = [
    ("bad-rtc", Nothing, VirtualMachines),
    ("cni-bin-path", Value, VirtualMachines),
    ("cni-bundle-url", Value, VirtualMachines),
    ("cni-cache-dir", Value, VirtualMachines),
    ("cni-conf-dir", Value, VirtualMachines),
    ("config-injection-method", Value, VirtualMachines),
    ("disable-dhcp-hostname", Nothing, VirtualMachines),
    ("disk", Value, VirtualMachines),
    ("disk-encryption-key-types", Value, VirtualMachines),
    ("disk-image-path", Value, VirtualMachines),
    ("disk-preallocate", Nothing, VirtualMachines),
    ("encrypt-ephemeral", Nothing, VirtualMachines),
    ("encrypt-state", Nothing, VirtualMachines),
    ("extra-boot-kernel-args", Value, VirtualMachines),
    ("extra-disks", Value, VirtualMachines),
    ("extra-disks-size", Value, VirtualMachines),
    ("extra-uefi-search-paths", Value, VirtualMachines),
    ("initrd-path", Value, VirtualMachines),
    ("ipv6", Nothing, NotYet("IPv6 in local clusters")),
    ("ipxe-boot-script", Value, VirtualMachines),
    ("iso-path", Value, VirtualMachines),
    ("use-vip", Nothing, NotYet("virtual IPs")),
    ("user-disk", Value, VirtualMachines),
    ("vmlinuz-path", Value, VirtualMachines),
    ("wireguard-cidr", Value, NotYet("WireGuard links")),
    ("with-bootloader", Nothing, VirtualMachines),
    ("with-firewall", Value, NotYet("the ingress firewall")),
    ("with-kubespan", Nothing, KUBESPAN),
    ("with-network-bandwidth", Value, VirtualMachines),
    ("with-network-chaos", Nothing, VirtualMachines),
    ("with-network-jitter", Value, VirtualMachines),
    ("with-network-latency", Value, VirtualMachines),
    ("with-network-packet-corrupt", Value, VirtualMachines),
    ("with-network-packet-loss", Value, VirtualMachines),
    ("with-network-packet-reorder", Value, VirtualMachines),
    ("with-siderolink", Value, VirtualMachines),
    ("with-tpm2", Nothing, VirtualMachines),
    ("with-uefi", Nothing, VirtualMachines),
    ("with-uuid-hostnames", Nothing, VirtualMachines),
];

/// The flags of this kind that were given, and why each does nothing.
#[derive(Debug, Default)]
pub(super) struct IdleFlags(pub(super) Vec<(&'static str, Reason)>);

impl FromArgMatches for IdleFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |name: &str| matches.value_source(name) == Some(clap::parser::ValueSource::CommandLine);
        let flags = FLAGS.iter().filter(|(name, ..)| given(name));
        Ok(Self(flags.map(|(name, _, reason)| (*name, *reason)).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for IdleFlags {
    fn augment_args(command: Command) -> Command {
        FLAGS.iter().fold(command, |command, (name, takes, _)| {
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
