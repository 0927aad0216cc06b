//! `config`: the talosconfig.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::command_error::CommandError;
use crate::session::Session;

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Adds a context
    Add(AddArgs),
    /// Makes a context the current one
    #[command(visible_alias = "use-context")]
    Context {
        /// Name of the context
        context: String,
    },
    /// Lists the contexts
    #[command(visible_alias = "get-contexts")]
    Contexts,
    /// Sets the endpoints of the current context
    #[command(visible_alias = "endpoints")]
    Endpoint {
        /// Addresses to connect to; none clears the list
        #[arg(value_name = "endpoint")]
        endpoints: Vec<String>,
    },
    /// Shows the current context
    Info(InfoArgs),
    /// Merges another talosconfig into this one
    Merge {
        /// File to merge from
        from: PathBuf,
    },
    /// Makes a talosconfig with other roles, signed by a node
    New(NewArgs),
    /// Sets the nodes of the current context
    #[command(visible_alias = "nodes")]
    Node {
        /// Nodes to act on; none clears the list
        #[arg(value_name = "endpoint")]
        nodes: Vec<String>,
    },
    /// Removes contexts
    Remove(RemoveArgs),
}

#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    /// Name of the context
    context: String,
    /// File with the CA certificate
    #[arg(long, value_name = "string")]
    ca: Option<PathBuf>,
    /// File with the client certificate
    #[arg(long, value_name = "string")]
    crt: Option<PathBuf>,
    /// File with the client key
    #[arg(long, value_name = "string")]
    key: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct InfoArgs {
    /// Form of the output: text, yaml or json
    #[arg(short, long, value_name = "string", default_value = "text")]
    output: String,
}

#[derive(Debug, Args)]
pub(crate) struct NewArgs {
    /// File to write to (default: talosconfig)
    path: Option<PathBuf>,
    /// How long the certificate is valid
    #[arg(long, value_name = "duration", default_value = "8760h0m0s", value_parser = crate::cli::duration)]
    crt_ttl: Duration,
    /// Roles of the certificate
    #[arg(long, value_name = "strings", value_delimiter = ',', default_value = "os:admin")]
    roles: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// Name of the context; `*` stands for any characters
    context: String,
    /// Shows what would be removed
    #[arg(long)]
    dry_run: bool,
    /// Does not ask
    #[arg(short = 'y', long)]
    noconfirm: bool,
}

pub(crate) fn run(_command: ConfigCommand, _session: &Session) -> Result<(), CommandError> {
    Err(CommandError::not_available("`talosctl config`"))
}
