//! `service`: the services of nodes.

use clap::{Args, ValueEnum};

use crate::command_error::CommandError;
use crate::session::Session;

#[derive(Debug, Args)]
pub(crate) struct ServiceArgs {
    /// One service (default: all)
    id: Option<String>,
    /// What to do with it
    #[arg(value_enum, default_value_t = Action::Status)]
    action: Action,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Action {
    Start,
    Stop,
    Restart,
    Status,
}

pub(crate) async fn run(_args: ServiceArgs, _session: &Session) -> Result<(), CommandError> {
    Err(CommandError::not_available("`talosctl service`"))
}
