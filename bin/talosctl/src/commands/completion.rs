//! `completion`: shell completion scripts.

use clap::{Args, ValueEnum};
use clap_complete::Shell;

use crate::command_error::CommandError;
use crate::session::Session;

#[derive(Debug, Args)]
pub(crate) struct CompletionArgs {
    /// Shell to generate the script for
    #[arg(value_name = "SHELL", value_enum)]
    shell: ShellName,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ShellName {
    Bash,
    Fish,
    Zsh,
}

pub(crate) fn run(args: CompletionArgs, mut definition: clap::Command, session: &Session) -> Result<(), CommandError> {
    let shell = match args.shell {
        ShellName::Bash => Shell::Bash,
        ShellName::Fish => Shell::Fish,
        ShellName::Zsh => Shell::Zsh,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut definition, "talosctl", &mut script);
    Ok(session.out.raw(&script)?)
}
