//! `cluster agent`: the two processes that a local cluster leaves on this machine, and how to start them.

use std::path::{Path, PathBuf};

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
    /// Keeps the agent running until the cluster is removed
    #[arg(long, hide = true, conflicts_with = "detach")]
    guard: bool,
    /// Starts a node and stays until its init has ended
    #[arg(long, hide = true, value_name = "string", conflicts_with_all = ["detach", "guard"])]
    monitor: Option<String>,
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
    // The program's path as passed by the starter; the file may no longer exist.
    let called = std::env::args_os().next().map(PathBuf::from);
    let program = AgentProgram { program: called.unwrap_or_default(), arguments: arguments() };
    if let Some(node) = &args.monitor {
        // As below.
        return provision::monitor(root, name, node).map_err(CommandError::wrap("monitoring the node"));
    }
    if args.guard {
        // It may block the runtime's only thread: there is nothing else for it to do.
        return agent::guard(root, name, program).map_err(CommandError::wrap("guarding the cluster agent"));
    }
    agent::run(root, name, program).await.map_err(CommandError::wrap("serving the cluster"))
}

/// This program, as the agent of a cluster.
pub(super) fn program() -> Result<AgentProgram, CommandError> {
    let program = std::env::current_exe().map_err(CommandError::wrap("finding this program"))?;
    Ok(AgentProgram { program, arguments: arguments() })
}

fn arguments() -> Vec<String> {
    ["cluster", "agent"].map(str::to_owned).into()
}
