//! The command line, parsed as documented for Talos 1.7. Boolean flags take `--flag`, `--flag=true` and `--flag=false`;
//! lists are repeated or separated by commas; durations look like `1m30s`.

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{ArgAction, CommandFactory as _, FromArgMatches as _, Parser};

use crate::commands::{Command, planned};
use crate::session::GlobalFlags;

#[cfg(test)]
mod tests;

/// Manages machines of a Kubernetes operating system through their API
#[derive(Debug, Parser)]
#[command(name = "talosctl", disable_help_subcommand = false, max_term_width = 120)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) globals: GlobalFlags,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// A parsed command line.
#[derive(Debug)]
pub(crate) struct Invocation {
    pub(crate) globals: GlobalFlags,
    pub(crate) command: Command,
}

/// Parses the command line. Requested help is also an `Err`.
pub(crate) fn parse(arguments: &[OsString]) -> Result<Invocation, clap::Error> {
    match switches_with_values(command()).try_get_matches_from(arguments) {
        Ok(matches) => match planned::find(&matches) {
            Some(path) => Ok(Invocation { globals: GlobalFlags::default(), command: Command::Planned(path) }),
            None => Cli::from_arg_matches(&matches)
                .map(|cli| Invocation { globals: cli.globals, command: cli.command })
                .map_err(|error| error.format(&mut command())),
        },
        // Help is rendered from the plain definition, where a switch is shown as a switch.
        Err(error) if is_help(&error) => Err(match command().try_get_matches_from(arguments) {
            Err(plain) if is_help(&plain) => plain,
            _ => error,
        }),
        Err(error) => Err(error),
    }
}

fn is_help(error: &clap::Error) -> bool {
    matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand)
}

/// The whole command line, including the planned commands.
pub(crate) fn command() -> clap::Command {
    planned::add_to(Cli::command())
}

/// Lets each switch take an optional value after `=`, and each flag with a value take the next word as it is, even if
/// it begins with a dash: a YAML patch may. A flag that is given again replaces its value.
fn switches_with_values(command: clap::Command) -> clap::Command {
    let command = command.args_override_self(true).mut_args(|argument| match argument.get_action() {
        ArgAction::SetTrue => argument
            .action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .default_value("false")
            .value_parser(clap::value_parser!(bool)),
        ArgAction::Set | ArgAction::Append if argument.get_long().is_some() && !argument.is_require_equals_set() => {
            argument.allow_hyphen_values(true)
        }
        _ => argument,
    });
    let names: Vec<String> = command.get_subcommands().map(|one| one.get_name().to_owned()).collect();
    names.into_iter().fold(command, |command, name| command.mut_subcommand(name, switches_with_values))
}
