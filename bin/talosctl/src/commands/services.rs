//! `service`: the services of nodes.

use std::time::{Duration, SystemTime};

use clap::{Args, ValueEnum};
use stdx::{Clock as _, SystemClock};
use wire::machine::{ServiceHealth, ServiceInfo};

use crate::command_error::CommandError;
use crate::output::table::Table;
use crate::replies::Replies;
use crate::session::Session;

#[cfg(test)]
mod tests;

#[derive(Debug, Args)]
pub(crate) struct ServiceArgs {
    /// One service (default: all)
    id: Option<String>,
    /// Action to perform on it
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

pub(crate) async fn run(args: ServiceArgs, session: &Session) -> Result<(), CommandError> {
    let client = session.client().await?;
    let mut nodes = Replies::new(&session.out, &client);
    let now = SystemClock.now();
    let Some(id) = args.id else {
        let services = nodes.take_all(client.services().await?);
        nodes.print(&mut overview(services.into_iter().map(|(node, reply)| (node, reply.services)), now))?;
        return nodes.finish();
    };
    let responses: Vec<(String, String)> = match args.action {
        Action::Status => {
            for (node, reply) in nodes.take_all(client.services().await?) {
                match reply.services.iter().find(|service| service.id == id) {
                    Some(service) => session.out.line(details(&node, service, now))?,
                    None => nodes.fail(&node, &format!("there is no service {id:?}")),
                }
            }
            return nodes.finish();
        }
        Action::Start => {
            nodes.take_all(client.service_start(&id).await?).into_iter().map(|(n, r)| (n, r.resp)).collect()
        }
        Action::Stop => nodes.take_all(client.service_stop(&id).await?).into_iter().map(|(n, r)| (n, r.resp)).collect(),
        Action::Restart => {
            nodes.take_all(client.service_restart(&id).await?).into_iter().map(|(n, r)| (n, r.resp)).collect()
        }
    };
    let mut table = Table::new(["NODE", "RESPONSE"]);
    for (node, response) in responses {
        table.row([node, response]);
    }
    nodes.print(&mut table)?;
    nodes.finish()
}

fn overview(nodes: impl Iterator<Item = (String, Vec<ServiceInfo>)>, now: SystemTime) -> Table {
    let mut table = Table::new(["NODE", "SERVICE", "STATE", "HEALTH", "LAST CHANGE", "LAST EVENT"]);
    for (node, services) in nodes {
        for service in services {
            let last = service.events.as_ref().and_then(|events| events.events.last());
            let change = last.and_then(|event| event.ts.as_ref()).map(|at| since(at, now)).unwrap_or_default();
            let message = last.map(|event| event.msg.clone()).unwrap_or_default();
            let health = health(service.health.as_ref());
            table.row([node.clone(), service.id, service.state, health.to_owned(), change, message]);
        }
    }
    table
}

fn details(node: &str, service: &ServiceInfo, now: SystemTime) -> String {
    let mut table = Table::default();
    table.row(["NODE", node]);
    table.row(["ID", &service.id]);
    table.row(["STATE", &service.state]);
    table.row(["HEALTH", health(service.health.as_ref())]);
    if let Some(health) = service.health.as_ref().filter(|health| !health.last_message.is_empty()) {
        table.row(["LAST HEALTH MESSAGE", &health.last_message]);
    }
    let events = service.events.as_ref().map(|events| events.events.as_slice()).unwrap_or_default();
    for (at, event) in events.iter().rev().enumerate() {
        let age = event.ts.as_ref().map(|at| since(at, now)).unwrap_or_default();
        let label = if at == 0 { "EVENTS" } else { "" };
        table.row([label.to_owned(), format!("[{}]: {} ({age})", event.state, event.msg)]);
    }
    table.take()
}

fn health(health: Option<&ServiceHealth>) -> &'static str {
    match health {
        None => "?",
        Some(health) if health.unknown => "?",
        Some(health) if health.healthy => "OK",
        Some(_) => "Fail",
    }
}

/// Age of a timestamp in whole seconds.
fn since(at: &prost_types::Timestamp, now: SystemTime) -> String {
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let then = Duration::from_secs(u64::try_from(at.seconds).unwrap_or_default());
    let whole = Duration::from_secs(now.saturating_sub(then).as_secs());
    format!("{} ago", stdx::duration::format(whole))
}
