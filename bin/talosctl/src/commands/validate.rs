//! `validate`: checks a machine configuration without a machine.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::command_error::CommandError;
use crate::session::Session;

#[derive(Debug, Args)]
pub(crate) struct ValidateArgs {
    /// File with the configuration
    #[arg(short, long, value_name = "string")]
    config: PathBuf,
    /// Where the machine runs
    #[arg(short, long, value_enum)]
    mode: Mode,
    /// Takes warnings as errors
    #[arg(long)]
    strict: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    Metal,
    Cloud,
    Container,
}

pub(crate) fn run(_args: ValidateArgs, _session: &Session) -> Result<(), CommandError> {
    Err(CommandError::not_available("`talosctl validate`"))
}
