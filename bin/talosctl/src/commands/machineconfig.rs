//! `machineconfig`: machine configurations as files.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::command_error::CommandError;
use crate::commands::generate::config::GenConfigArgs;
use crate::session::Session;

#[derive(Debug, Subcommand)]
pub(crate) enum MachineconfigCommand {
    /// Generates configurations for a cluster
    Gen(Box<GenConfigArgs>),
    /// Patches a configuration
    Patch(PatchArgs),
}

#[derive(Debug, Args)]
pub(crate) struct PatchArgs {
    /// File with the configuration
    #[arg(value_name = "machineconfig-file")]
    file: PathBuf,
    /// File to write to (default: standard output)
    #[arg(short, long, value_name = "string")]
    output: Option<PathBuf>,
    /// Patch to apply; JSON, YAML, or @file; may be repeated
    #[arg(short, long, value_name = "stringArray")]
    patch: Vec<String>,
}

pub(crate) fn run(_command: MachineconfigCommand, _session: &Session) -> Result<(), CommandError> {
    Err(CommandError::not_available("`talosctl machineconfig`"))
}
