//! Flags of `cluster create` that are for virtual machines or for parts of the system that come later. They are parsed,
//! so that a command line with one of them is refused with its name instead of being misread.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

/// Names, and whether a value follows.
const FLAGS: [(&str, bool); 50] = [
    ("arch", true),
    ("bad-rtc", false),
    ("cni-bin-path", true),
    ("cni-bundle-url", true),
    ("cni-cache-dir", true),
    ("cni-conf-dir", true),
    ("disable-dhcp-hostname", false),
    ("disk", true),
    ("disk-encryption-key-types", true),
    ("disk-image-path", true),
    ("disk-preallocate", false),
    ("docker-disable-ipv6", false),
    ("docker-host-ip", true),
    ("encrypt-ephemeral", false),
    ("encrypt-state", false),
    ("endpoint", true),
    ("exposed-ports", true),
    ("extra-boot-kernel-args", true),
    ("extra-disks", true),
    ("extra-disks-size", true),
    ("extra-uefi-search-paths", true),
    ("init-node-as-endpoint", false),
    ("initrd-path", true),
    ("input-dir", true),
    ("install-image", true),
    ("ipv6", false),
    ("ipxe-boot-script", true),
    ("iso-path", true),
    ("talos-version", true),
    ("use-vip", false),
    ("user-disk", true),
    ("vmlinuz-path", true),
    ("wireguard-cidr", true),
    ("with-bootloader", false),
    ("with-debug", false),
    ("with-firewall", true),
    ("with-init-node", false),
    ("with-kubespan", false),
    ("with-network-bandwidth", true),
    ("with-network-chaos", false),
    ("with-network-jitter", true),
    ("with-network-latency", true),
    ("with-network-packet-corrupt", true),
    ("with-network-packet-loss", true),
    ("with-network-packet-reorder", true),
    ("with-siderolink", true),
    ("with-tpm2", false),
    ("with-uefi", false),
    ("with-uuid-hostnames", false),
    ("config-injection-method", true),
];

/// The first of these flags that was given.
#[derive(Debug, Default)]
pub(crate) struct LaterFlags(pub(crate) Option<&'static str>);

impl FromArgMatches for LaterFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |name: &str| matches.value_source(name) == Some(clap::parser::ValueSource::CommandLine);
        Ok(Self(FLAGS.iter().map(|(name, _)| *name).find(|name| given(name))))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for LaterFlags {
    fn augment_args(command: Command) -> Command {
        FLAGS.iter().fold(command, |command, (name, value)| {
            let flag = Arg::new(*name).long(*name).hide(true);
            let flag = if *name == "exposed-ports" { flag.short('p') } else { flag };
            let flag = if *name == "input-dir" { flag.short('i') } else { flag };
            command.arg(if *value { flag.action(ArgAction::Append) } else { flag.action(ArgAction::SetTrue) })
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}
