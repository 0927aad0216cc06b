//! `cluster agent`: the process that a local cluster leaves on this machine.

use std::path::Path;

use clap::Args;
use provision::agent::{self, AgentProgram};

use super::blocking;
use crate::command_error::CommandError;
use crate::session::Session;

#[derive(Debug, Args)]
pub(crate) struct AgentArgs {
    /// Starts the agent in the background, unless it runs
    #[arg(long)]
    detach: bool,
}

pub(crate) async fn run(args: &AgentArgs, name: &str, root: &Path, session: &Session) -> Result<(), CommandError> {
    if args.detach {
        let (root, name, program) = (root.to_path_buf(), name.to_owned(), program()?);
        let agent = blocking(move || agent::start(&root, &name, &program)).await?;
        let agent = agent.map_err(CommandError::wrap("starting the cluster agent"))?;
        return Ok(session.out.line(format!("process {}, registry on port {}", agent.pid, agent.registry_port))?);
    }
    // Where an operator asked for logs there is a subscriber already.
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).try_init().ok();
    agent::run(root, name).await.map_err(CommandError::wrap("serving the cluster"))
}

/// This program, as the agent of a cluster.
pub(super) fn program() -> Result<AgentProgram, CommandError> {
    let program = std::env::current_exe().map_err(CommandError::wrap("finding this program"))?;
    Ok(AgentProgram { program, arguments: vec!["cluster".to_owned(), "agent".to_owned()] })
}
