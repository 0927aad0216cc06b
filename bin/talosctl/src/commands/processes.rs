//! `processes` and `memory`.

use clap::Args;

use crate::command_error::CommandError;
use crate::session::Session;

#[derive(Debug, Args)]
pub(crate) struct ProcessesArgs {
    /// Column to sort by: rss or cpu
    #[arg(short, long, value_name = "string", default_value = "rss")]
    sort: String,
    /// Stays and shows the processes again and again
    #[arg(short, long)]
    watch: bool,
}

#[derive(Debug, Args)]
pub(crate) struct MemoryArgs {
    /// Shows all counters
    #[arg(short, long)]
    verbose: bool,
}

pub(crate) async fn run(_args: ProcessesArgs, _session: &Session) -> Result<(), CommandError> {
    Err(CommandError::not_available("`talosctl processes`"))
}

pub(crate) async fn memory(_args: MemoryArgs, _session: &Session) -> Result<(), CommandError> {
    Err(CommandError::not_available("`talosctl memory`"))
}
