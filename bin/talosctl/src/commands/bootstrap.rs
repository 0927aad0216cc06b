//! `bootstrap`: starts etcd on the first control plane node.

use std::path::PathBuf;

use clap::Args;

use crate::command_error::CommandError;
use crate::session::Session;

#[derive(Debug, Args)]
pub(crate) struct BootstrapArgs {
    /// Snapshot of etcd to recover from
    #[arg(long, value_name = "string")]
    recover_from: Option<PathBuf>,
    /// Skips the integrity check of the snapshot, for one that was copied from the data directory
    #[arg(long)]
    recover_skip_hash_check: bool,
}

pub(crate) async fn run(_args: BootstrapArgs, _session: &Session) -> Result<(), CommandError> {
    Err(CommandError::not_available("`talosctl bootstrap`"))
}
