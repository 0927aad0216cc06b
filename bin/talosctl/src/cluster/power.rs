//! `cluster power-on`: starts nodes of a local cluster again that are off.

use std::path::Path;

use clap::Args;
use provision::{Cluster, ProvisionError};

use super::agent;
use crate::command_error::CommandError;
use crate::session::Session;

#[derive(Debug, Args)]
pub(crate) struct PowerOnArgs {
    /// Names or addresses of the nodes
    #[arg(value_name = "node", required = true)]
    node: Vec<String>,
}

pub(crate) async fn run(args: &PowerOnArgs, name: &str, root: &Path, session: &Session) -> Result<(), CommandError> {
    let failed = |error: ProvisionError| {
        let hint = match &error {
            ProvisionError::Busy { .. } => "wait for the other command, or end it",
            ProvisionError::NewerState { .. } => "use the talosctl that made the cluster",
            _ => "`talosctl cluster show` lists the nodes",
        };
        CommandError::failed("powering on").caused_by(error).hint(hint)
    };
    let mut cluster = Cluster::open(root, name, &agent::program()?).map_err(failed)?;
    for node in &args.node {
        cluster.power_on(node).await.map_err(failed)?;
        session.out.note(format!("node {node} is on"));
    }
    Ok(())
}
