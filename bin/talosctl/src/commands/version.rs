//! `version`: what runs here and on nodes.

use clap::Args;

use crate::command_error::CommandError;
use crate::session::Session;

#[derive(Debug, Args)]
pub(crate) struct VersionArgs {
    /// Shows the client's version only
    #[arg(long)]
    client: bool,
    /// Asks a node in maintenance mode, without client certificate
    #[arg(short, long)]
    insecure: bool,
    /// Shows the short version
    #[arg(long)]
    short: bool,
}

pub(crate) async fn run(_args: VersionArgs, _session: &Session) -> Result<(), CommandError> {
    Err(CommandError::not_available("`talosctl version`"))
}
