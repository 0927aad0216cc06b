//! `get`: resources of nodes.

use clap::Args;

use crate::command_error::CommandError;
use crate::session::Session;

#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// Type of the resources, or an alias of it; `rd` lists the types
    #[arg(value_name = "type")]
    resource_type: String,
    /// One resource (default: all of the type)
    id: Option<String>,
    /// Reads from a node in maintenance mode, without client certificate
    #[arg(short, long)]
    insecure: bool,
    /// Namespace of the resources (default: that of the type)
    #[arg(long, value_name = "string")]
    namespace: Option<String>,
    /// Form of the output: table, yaml, json or jsonpath=TEMPLATE
    #[arg(short, long, value_name = "string", default_value = "table")]
    output: String,
    /// Stays and shows changes
    #[arg(short, long)]
    watch: bool,
}

pub(crate) async fn run(_args: GetArgs, _session: &Session) -> Result<(), CommandError> {
    Err(CommandError::not_available("`talosctl get`"))
}
