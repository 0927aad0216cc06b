//! `kubeconfig`: access to the Kubernetes of the cluster.

use std::path::PathBuf;

use clap::{ArgAction, Args};

use crate::command_error::CommandError;
use crate::session::Session;

#[derive(Debug, Args)]
pub(crate) struct KubeconfigArgs {
    /// File or directory to write to (default: the first file of KUBECONFIG, else ~/.kube/config); `-` prints
    #[arg(value_name = "local-path")]
    local_path: Option<PathBuf>,
    /// Overwrites an existing file or context
    #[arg(short, long)]
    force: bool,
    /// Name of the context (default: the one of the cluster)
    #[arg(long, value_name = "string")]
    force_context_name: Option<String>,
    /// Merges into an existing file
    #[arg(short, long, value_name = "bool", default_value_t = true, action = ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_missing_value = "true")]
    merge: bool,
}

pub(crate) async fn run(_args: KubeconfigArgs, _session: &Session) -> Result<(), CommandError> {
    Err(CommandError::not_available("`talosctl kubeconfig`"))
}
