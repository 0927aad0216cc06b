//! `time`: clocks of nodes beside those of time servers.

use clap::Args;
use wire::time::Time;

use crate::command_error::CommandError;
use crate::output::table::Table;
use crate::replies::Replies;
use crate::session::Session;

#[derive(Debug, Args)]
pub(crate) struct TimeArgs {
    /// Server to compare with, in place of the one that each node uses
    #[arg(short, long)]
    check: Option<String>,
}

pub(crate) async fn run(args: TimeArgs, session: &Session) -> Result<(), CommandError> {
    let client = session.client().await?;
    let mut nodes = Replies::new(&session.out, &client);
    let mut table = Table::new(["NODE", "NTP-SERVER", "NODE-TIME", "NTP-SERVER-TIME"]);
    for (node, reply) in nodes.take_all(client.time(args.check).await?) {
        table.row(cells(&node, &reply));
    }
    nodes.print(&mut table)?;
    nodes.finish()
}

fn cells(node: &str, time: &Time) -> [String; 4] {
    let text = |at: Option<prost_types::Timestamp>| {
        let at = at.and_then(|at| jiff::Timestamp::new(at.seconds, at.nanos).ok());
        at.map(|at| at.to_string()).unwrap_or_default()
    };
    [node.to_owned(), time.server.clone(), text(time.localtime), text(time.remotetime)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_with_their_fractions_in_utc() {
        let at = |seconds, nanos| Some(prost_types::Timestamp { seconds, nanos });
        let time = Time {
            metadata: None,
            server: "ntp.example.org".into(),
            localtime: at(1_790_000_000, 500_000_000),
            remotetime: None,
        };
        assert_eq!(cells("10.5.0.2", &time), ["10.5.0.2", "ntp.example.org", "2026-09-21T14:13:20.5Z", ""]);
    }
}
