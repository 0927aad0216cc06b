//! `containers`: what runs under containerd.

use clap::Args;

use crate::command_error::CommandError;
use crate::session::Session;

#[derive(Debug, Args)]
pub(crate) struct ContainersArgs {
    /// Lists the containers of Kubernetes (namespace k8s.io)
    #[arg(short, long)]
    kubernetes: bool,
}

pub(crate) async fn run(_args: ContainersArgs, _session: &Session) -> Result<(), CommandError> {
    Err(CommandError::not_available("`talosctl containers`"))
}
