//! `talosctl cluster`: local clusters.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::command_error::CommandError;
use crate::session::Session;

/// Flags of all cluster commands.
#[derive(Debug, Args)]
pub(crate) struct ClusterFlags {
    /// Name of the cluster
    #[arg(long, global = true, value_name = "string", default_value = "talos-default")]
    pub(crate) name: String,
    /// Directory with the state of local clusters (default: $HOME/.talos/clusters)
    #[arg(long, global = true, value_name = "string")]
    pub(crate) state: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Creates a local cluster
    Create,
    /// Destroys a local cluster
    Destroy,
    /// Shows a local cluster
    Show,
}

pub(crate) async fn run(_flags: ClusterFlags, command: ClusterCommand, _session: &Session) -> Result<(), CommandError> {
    let name = match command {
        ClusterCommand::Create => "create",
        ClusterCommand::Destroy => "destroy",
        ClusterCommand::Show => "show",
    };
    Err(CommandError::not_available(&format!("`talosctl cluster {name}`")))
}
