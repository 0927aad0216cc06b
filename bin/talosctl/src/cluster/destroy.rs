//! `cluster destroy`: removes a local cluster and everything of it on this machine.

use std::path::PathBuf;

use clap::Args;
use provision::{Leftovers, ProvisionError};

use super::contexts;
use crate::command_error::CommandError;
use crate::session::Session;

#[derive(Debug, Args)]
pub(crate) struct DestroyArgs {
    /// Forgets the cluster even if something of it cannot be removed
    #[arg(short, long)]
    force: bool,
}

pub(crate) async fn run(args: &DestroyArgs, name: &str, root: PathBuf, session: &Session) -> Result<(), CommandError> {
    let leftovers = if args.force { Leftovers::Forget } else { Leftovers::Keep };
    let destroyed = match provision::destroy(&root, name, leftovers).await {
        Ok(destroyed) => destroyed,
        Err(error) => {
            let hint = match &error {
                ProvisionError::Busy { .. } => "wait for the other command, or end it",
                ProvisionError::NewerState { .. } => {
                    "use the talosctl that created the cluster; --force removes all parts found by the cluster's name"
                }
                _ => "--name and --state choose another cluster",
            };
            return Err(CommandError::failed("destroying the cluster").caused_by(error).hint(hint));
        }
    };
    for error in &destroyed.errors {
        session.out.warning(stdx::error_chain(error));
    }
    if destroyed.errors.is_empty() || args.force {
        contexts::remove(&destroyed.contexts, session);
    }
    if destroyed.errors.is_empty() {
        session.out.note(format!("cluster {name} is destroyed"));
        return Ok(());
    }
    let failed =
        CommandError::failed(format!("{} parts of cluster {name} could not be removed", destroyed.errors.len()));
    Err(if args.force { failed } else { failed.hint("try again, or forget the cluster by --force") })
}
