//! `bootstrap`: starts etcd on the first control plane node.

use std::path::PathBuf;

use clap::Args;
use wire::machine::BootstrapRequest;

use crate::command_error::CommandError;
use crate::replies::Replies;
use crate::session::Session;

#[derive(Debug, Args)]
pub(crate) struct BootstrapArgs {
    /// Snapshot of etcd to recover from
    #[arg(long, value_name = "string")]
    recover_from: Option<PathBuf>,
    /// Skips the integrity check, for a snapshot copied from the data directory
    #[arg(long)]
    recover_skip_hash_check: bool,
}

pub(crate) async fn run(args: BootstrapArgs, session: &Session) -> Result<(), CommandError> {
    if args.recover_from.is_some() {
        return Err(CommandError::not_available("recovering etcd from a snapshot (--recover-from)"));
    }
    let node = session.one_node("bootstrap")?;
    let client = session.connect().await?.to_nodes([node.as_str()]);
    let request = BootstrapRequest { recover_etcd: false, recover_skip_hash_check: args.recover_skip_hash_check };
    let mut nodes = Replies::new(&session.out, &client);
    nodes.take_all(client.bootstrap(request).await?);
    nodes.finish()
}
