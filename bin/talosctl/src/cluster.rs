//! `talosctl cluster`: local clusters, made by this program itself.

mod agent;
mod contexts;
mod create;
mod destroy;
mod encryption;
mod failure;
mod flags;
mod input;
mod machines;
mod power;
mod progress;
mod show;

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
    /// Driver of the nodes: runc containers (`docker` is accepted as an alias) or virtual machines (`qemu`)
    #[arg(long, global = true, value_name = "string", default_value = "docker")]
    pub(crate) provisioner: String,
    /// Directory with the state of local clusters (default: $HOME/.talos/clusters)
    #[arg(long, global = true, value_name = "string")]
    pub(crate) state: Option<PathBuf>,
}

/// What nodes are. Only `create` has the choice: a cluster that exists knows what its nodes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Provisioner {
    Containers,
    Machines,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Creates a local cluster
    Create(Box<create::CreateArgs>),
    /// Destroys a local cluster
    Destroy(destroy::DestroyArgs),
    /// Shows a local cluster
    Show,
    /// Powers nodes of a local cluster on that powered themselves off or crashed
    PowerOn(power::PowerOnArgs),
    /// Serves a local cluster: images and discovery
    #[command(hide = true)]
    Agent(agent::AgentArgs),
}

pub(crate) async fn run(flags: ClusterFlags, command: ClusterCommand, session: &Session) -> Result<(), CommandError> {
    let provisioner = match flags.provisioner.as_str() {
        "docker" | "runc" | "container" => Provisioner::Containers,
        "qemu" => Provisioner::Machines,
        other => return Err(CommandError::not_available(&format!("the provisioner {other:?}"))),
    };
    let root = flags.root(session)?;
    match command {
        ClusterCommand::Create(args) => create::run(*args, provisioner, &flags.name, root, session).await,
        ClusterCommand::Destroy(args) => destroy::run(&args, &flags.name, root, session).await,
        ClusterCommand::Show => show::run(&flags.name, &root, session).await,
        ClusterCommand::PowerOn(args) => power::run(&args, &flags.name, &root, session).await,
        ClusterCommand::Agent(args) => agent::run(&args, &flags.name, &root, session).await,
    }
}

impl ClusterFlags {
    fn root(&self, session: &Session) -> Result<PathBuf, CommandError> {
        let usual = || session.environment.home.as_ref().map(|home| home.join(".talos/clusters"));
        let none = || CommandError::usage("no place for the state of clusters: no --state and no home directory");
        let root = self.state.clone().or_else(usual).ok_or_else(none)?;
        std::path::absolute(root).map_err(CommandError::wrap("reading --state"))
    }
}

/// Work that waits for tools of the host.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, CommandError> {
    tokio::task::spawn_blocking(work).await.map_err(CommandError::wrap("running the provisioner"))
}
