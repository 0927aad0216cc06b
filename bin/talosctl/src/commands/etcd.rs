//! `etcd`: the members of the etcd cluster.

use clap::Subcommand;

use crate::command_error::CommandError;
use crate::session::Session;

#[derive(Debug, Subcommand)]
pub(crate) enum EtcdCommand {
    /// Lists the members of etcd
    Members,
}

pub(crate) async fn run(_command: EtcdCommand, _session: &Session) -> Result<(), CommandError> {
    Err(CommandError::not_available("`talosctl etcd members`"))
}
