//! `inspect`: how the controllers of a node hang together.

use clap::{Args, Subcommand};

use crate::command_error::CommandError;
use crate::session::Session;

#[derive(Debug, Subcommand)]
pub(crate) enum InspectCommand {
    /// Shows the graph of controllers and resource types in the DOT language
    Dependencies(DependenciesArgs),
}

#[derive(Debug, Args)]
pub(crate) struct DependenciesArgs {
    /// Shows the resources, not only their types
    #[arg(long)]
    with_resources: bool,
}

pub(crate) async fn run(_command: InspectCommand, _session: &Session) -> Result<(), CommandError> {
    Err(CommandError::not_available("`talosctl inspect dependencies`"))
}
