//! `events`: what nodes are doing.

use std::time::Duration;

use clap::Args;
use futures::StreamExt as _;
use wire::machine::EventsRequest;

use crate::command_error::CommandError;
use crate::output::table::Table;
use crate::replies::Replies;
use crate::session::Session;

mod describe;

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

pub(crate) async fn run(args: EventsArgs, session: &Session) -> Result<(), CommandError> {
    let seconds = args.duration.map(|one| i32::try_from(one.as_secs()).unwrap_or(i32::MAX)).unwrap_or_default();
    let request = EventsRequest {
        tail_events: args.tail.unwrap_or_default(),
        tail_id: args.since.unwrap_or_default(),
        tail_seconds: seconds,
        with_actor_id: args.actor_id.unwrap_or_default(),
    };
    let client = session.client().await?;
    let mut nodes = Replies::new(&session.out, &client);
    let mut stream = client.events(request).await?;
    let mut table = Table::new(["NODE", "ID", "EVENT", "ACTOR", "SOURCE", "MESSAGE"]);
    session.out.line(table.take())?;
    while let Some(part) = stream.next().await {
        let Some((node, event)) = nodes.take(part?) else { continue };
        let described = describe::describe(event.data.as_ref());
        table.row([node, event.id, described.event, event.actor_id, described.source, described.message]);
        session.out.line(table.take())?;
    }
    nodes.finish()
}
