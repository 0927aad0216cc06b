//! `machineconfig`: machine configurations as files.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::command_error::CommandError;
use crate::commands::generate::config::{self, GenConfigArgs};
use crate::local_file::{self, Access, Overwrite};
use crate::patches;
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

pub(crate) fn run(command: MachineconfigCommand, session: &Session) -> Result<(), CommandError> {
    match command {
        MachineconfigCommand::Gen(args) => config::run(&args, Overwrite::Never, session),
        MachineconfigCommand::Patch(args) => patch(&args, session),
    }
}

fn patch(args: &PatchArgs, session: &Session) -> Result<(), CommandError> {
    let documents = patches::documents(&args.file)?;
    let patched = patches::apply(&documents, &patches::read(&args.patch)?)?;
    match &args.output {
        None => Ok(session.out.raw(patched.raw())?),
        Some(path) => local_file::write(path, patched.raw(), Access::Owner, Overwrite::Allow),
    }
}
