//! The command line.

use std::path::PathBuf;

use clap::{ArgAction, Parser, Subcommand};
use machine::meta::Assignment;

#[derive(Debug, Parser)]
#[command(name = "installer", version, about = "Installs the system of this image")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Install to a disk, or to a file with an image of one. The machine's configuration may come on standard input
    Install(Install),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Install {
    /// Disk to install to
    #[arg(long, value_name = "PATH")]
    pub(crate) disk: PathBuf,
    /// Platform of the installed system
    #[arg(long, default_value = "metal")]
    pub(crate) platform: String,
    /// Where the installed system gets its configuration from; default: from where the running one has it
    #[arg(long, value_name = "URL")]
    pub(crate) config: Option<String>,
    /// Install a version beside the one that is on the disk
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", action = ArgAction::Set)]
    pub(crate) upgrade: bool,
    /// Make all partitions anew
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", action = ArgAction::Set)]
    pub(crate) force: bool,
    /// Wipe the disk first
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", action = ArgAction::Set)]
    pub(crate) zero: bool,
    /// Kernel argument to add; -NAME removes one
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub(crate) extra_kernel_arg: Vec<String>,
    /// Architecture of the system to install; default: the machine's
    #[arg(long)]
    pub(crate) arch: Option<String>,
    /// Value for META: KEY=VALUE with a key like 0x0a
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) meta: Vec<Assignment>,
    /// Directory with the files of each architecture
    #[arg(long, default_value = "/usr/install", value_name = "DIR", hide = true)]
    pub(crate) assets: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Install, clap::Error> {
        let all = ["installer", "install"].iter().chain(arguments);
        Arguments::try_parse_from(all).map(|arguments| match arguments.command {
            Command::Install(install) => install,
        })
    }

    #[test]
    fn the_command_line_of_a_machine_is_understood() {
        let install = parse(&[
            "--disk=/dev/vda",
            "--platform=metal",
            "--config=none",
            "--upgrade=false",
            "--force=true",
            "--zero=false",
            "--extra-kernel-arg",
            "-console",
            "--meta",
            "0x0a=x=y",
        ])
        .unwrap();
        assert_eq!((install.upgrade, install.force, install.zero), (false, true, false));
        assert_eq!(install.extra_kernel_arg, ["-console"]);
        assert_eq!(install.meta, [Assignment { key: 10, value: "x=y".into() }]);
        assert!(parse(&["--disk=/dev/vda", "--zero"]).unwrap().zero);
    }

    #[test]
    fn help_succeeds_and_a_missing_disk_does_not() {
        assert_eq!(parse(&["--help"]).unwrap_err().exit_code(), 0);
        assert_eq!(parse(&[]).unwrap_err().kind(), clap::error::ErrorKind::MissingRequiredArgument);
        assert_eq!(
            parse(&["--disk=x", "--meta", "300=x"]).unwrap_err().kind(),
            clap::error::ErrorKind::ValueValidation
        );
    }
}
