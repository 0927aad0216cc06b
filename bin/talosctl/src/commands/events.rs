//! `events`: runtime events of nodes.

use std::time::Duration;

use clap::Args;
use futures::StreamExt as _;
use wire::machine::{Event, EventsRequest};

use crate::command_error::CommandError;
use crate::output::table::Table;
use crate::replies::Replies;
use crate::session::Session;

mod describe;

/// Most events printed in one batch.
const BATCH: usize = 256;

#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// Shows only events of this actor (default: no filter)
    #[arg(long, value_name = "string")]
    actor_id: Option<String>,
    /// Shows events of this past period
    #[arg(long, value_name = "duration", value_parser = crate::arguments::duration)]
    duration: Option<Duration>,
    /// Shows events since the event with this ID (default: no history)
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
    // Events that have already arrived are printed as one table; later ones keep its columns.
    let mut stream = client.events(request).await?.ready_chunks(BATCH);
    let mut table = table();
    while let Some(parts) = stream.next().await {
        let mut stopped = None;
        for part in parts {
            match part {
                Ok(reply) => table_row(&mut table, nodes.take(reply)),
                Err(error) => stopped = Some(error),
            }
        }
        if table.has_rows() {
            session.out.line(table.take())?;
        }
        if let Some(error) = stopped {
            return Err(error.into());
        }
    }
    nodes.finish()
}

/// Wide enough for typical events, so that columns stay aligned while events arrive one by one.
fn table() -> Table {
    Table::new(["NODE", "ID", "EVENT", "ACTOR", "SOURCE", "MESSAGE"]).with_widths([10, 20, 26, 20, 20])
}

fn table_row(table: &mut Table, event: Option<(String, Event)>) {
    if let Some((node, event)) = event {
        let described = describe::describe(event.data.as_ref());
        table.row([node, event.id, described.event, event.actor_id, described.source, described.message]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stay_in_place_while_events_come_one_by_one() {
        let mut table = table();
        let mut shown = Vec::new();
        for (node, name, actor) in [
            ("10.5.0.2", "machine.TaskEvent", ""),
            ("10.5.0.13", "machine.MachineStatusEvent", "c9f5b1b0m2f0k0a1b2c3"),
            ("10.5.0.2", "machine.AddressEvent", ""),
        ] {
            let data = prost_types::Any { type_url: format!("talos/runtime/{name}"), value: Vec::new() };
            let event = Event { id: format!("{:016x}", 7), actor_id: actor.into(), data: Some(data), metadata: None };
            table_row(&mut table, Some((node.to_owned(), event)));
            shown.push(table.take());
        }
        let lines: Vec<&str> = shown.iter().flat_map(|text| text.lines()).collect();
        assert_eq!(lines.len(), 4);
        for column in ["0000", "machine."] {
            let places: Vec<_> = lines[1..].iter().map(|line| line.find(column)).collect();
            assert_eq!(places, vec![places[0]; 3], "{lines:#?}");
        }
        assert_eq!(lines[0].find("ID"), lines[3].find("0000"));
        assert_eq!(lines[0].find("EVENT"), lines[3].find("machine."));
    }
}
