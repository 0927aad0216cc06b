//! `events`: what nodes are doing.

use std::time::Duration;

use clap::Args;

use crate::command_error::CommandError;
use crate::session::Session;

#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// Shows only events of this actor (default: no filter)
    #[arg(long, value_name = "string")]
    actor_id: Option<String>,
    /// Shows the events of this long ago until now
    #[arg(long, value_name = "duration", value_parser = crate::cli::duration)]
    duration: Option<Duration>,
    /// Shows the events since the event with this ID (default: no history)
    #[arg(long, value_name = "string")]
    since: Option<String>,
    /// Shows this many past events; a negative number shows all
    #[arg(long, value_name = "int32", allow_negative_numbers = true)]
    tail: Option<i32>,
}

pub(crate) async fn run(_args: EventsArgs, _session: &Session) -> Result<(), CommandError> {
    Err(CommandError::not_available("`talosctl events`"))
}
