//! `reboot`, `shutdown`, `reset`, `upgrade` and `rollback`: what ends a machine, followed until it has happened.

use std::time::Duration;

use clap::{ArgAction, Args, ValueEnum};
use client::{Client, NodeReply};
use futures::future::join_all;
use wire::machine as api;

use crate::command_error::CommandError;
use crate::session::Session;

mod follow;
mod progress;
mod trial;

use follow::{Follow, Until};
use trial::Role;

#[derive(Debug, Args)]
pub(crate) struct Waiting {
    /// Shows the kernel log while waiting
    #[arg(long)]
    debug: bool,
    /// How long to wait
    #[arg(long, value_name = "duration", default_value = "30m0s", value_parser = crate::arguments::duration)]
    timeout: Duration,
    /// Waits for completion
    #[arg(long, value_name = "bool", num_args = 0..=1, require_equals = true, default_value_t = true,
          default_missing_value = "true", action = ArgAction::Set)]
    wait: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum RebootMode {
    Default,
    Powercycle,
}

#[derive(Debug, Args)]
pub(crate) struct RebootArgs {
    /// default (without the firmware, where that is possible) or powercycle
    #[arg(short, long, value_name = "string", default_value = "default", hide_possible_values = true)]
    mode: RebootMode,
    #[command(flatten)]
    waiting: Waiting,
}

#[derive(Debug, Args)]
pub(crate) struct ShutdownArgs {
    /// Skips draining the node
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    waiting: Waiting,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum WipeMode {
    All,
    SystemDisk,
    UserDisks,
}

#[derive(Debug, Args)]
pub(crate) struct ResetArgs {
    /// Leaves the cluster first
    #[arg(long, value_name = "bool", num_args = 0..=1, require_equals = true, default_value_t = true,
          default_missing_value = "true", action = ArgAction::Set)]
    graceful: bool,
    /// Connects to a node in maintenance mode
    #[arg(long)]
    insecure: bool,
    /// Reboots instead of shutting down
    #[arg(long)]
    reboot: bool,
    /// Partitions to wipe (default: the whole system disk)
    #[arg(long, value_name = "strings", value_delimiter = ',')]
    system_labels_to_wipe: Vec<String>,
    /// Disks to wipe
    #[arg(long, value_name = "strings", value_delimiter = ',')]
    user_disks_to_wipe: Vec<String>,
    /// Disks to wipe: all, system-disk or user-disks
    #[arg(long, value_name = "all, system-disk, user-disks", default_value = "all", hide_possible_values = true)]
    wipe_mode: WipeMode,
    #[command(flatten)]
    waiting: Waiting,
}

#[derive(Debug, Args)]
pub(crate) struct UpgradeArgs {
    /// Skips the checks of etcd
    #[arg(short, long)]
    force: bool,
    /// Image to install
    #[arg(short, long, value_name = "string", default_value_t = config::images::installer())]
    image: String,
    /// Connects to a node in maintenance mode
    #[arg(long)]
    insecure: bool,
    /// Keeps the data
    #[arg(short, long)]
    preserve: bool,
    /// default (without the firmware, where that is possible) or powercycle
    #[arg(short = 'm', long, value_name = "string", default_value = "default", hide_possible_values = true)]
    reboot_mode: RebootMode,
    /// Upgrades at the next boot
    #[arg(short, long)]
    stage: bool,
    #[command(flatten)]
    waiting: Waiting,
}

pub(crate) async fn reboot(args: RebootArgs, session: &Session) -> Result<(), CommandError> {
    let mode = match args.mode {
        RebootMode::Default => api::reboot_request::Mode::Default,
        RebootMode::Powercycle => api::reboot_request::Mode::Powercycle,
    };
    let request = api::RebootRequest { mode: mode.into() };
    let ask = async |client: Client| actor(client.reboot(request).await?, |reply| reply.actor_id);
    on_nodes(session, &args.waiting, Until::RunningAgain, ask).await
}

pub(crate) async fn shutdown(args: ShutdownArgs, session: &Session) -> Result<(), CommandError> {
    let request = api::ShutdownRequest { force: args.force };
    let ask = async |client: Client| actor(client.shutdown(request).await?, |reply| reply.actor_id);
    on_nodes(session, &args.waiting, Until::ServicesStopped, ask).await
}

pub(crate) async fn reset(args: ResetArgs, session: &Session) -> Result<(), CommandError> {
    let mode = match args.wipe_mode {
        WipeMode::All => api::reset_request::WipeMode::All,
        WipeMode::SystemDisk => api::reset_request::WipeMode::SystemDisk,
        WipeMode::UserDisks => api::reset_request::WipeMode::UserDisks,
    };
    let labels = args.system_labels_to_wipe.iter();
    let request = api::ResetRequest {
        graceful: args.graceful,
        reboot: args.reboot,
        system_partitions_to_wipe: labels
            .map(|label| api::ResetPartitionSpec { label: label.clone(), wipe: true })
            .collect(),
        user_disks_to_wipe: args.user_disks_to_wipe.clone(),
        mode: mode.into(),
    };
    let ask = async |client: Client| actor(client.reset(request.clone()).await?, |reply| reply.actor_id);
    if args.insecure {
        // There is nobody whose events could be followed: the node of a cluster that is gone answers no more.
        return session.on_insecure_nodes(&[], async |client| ask(client).await.map(drop)).await;
    }
    let until = if args.reboot { Until::BootedAgain } else { Until::ServicesStopped };
    on_nodes(session, &args.waiting, until, ask).await
}

/// Control planes one after the other, so that one alone is away; then all others at once.
pub(crate) async fn upgrade(args: UpgradeArgs, session: &Session) -> Result<(), CommandError> {
    let reboot_mode = match args.reboot_mode {
        RebootMode::Default => api::upgrade_request::RebootMode::Default,
        RebootMode::Powercycle => api::upgrade_request::RebootMode::Powercycle,
    };
    let request = api::UpgradeRequest {
        image: args.image.clone(),
        preserve: args.preserve,
        stage: args.stage,
        force: args.force,
        reboot_mode: reboot_mode.into(),
    };
    let ask = async |client: Client| actor(client.upgrade(request.clone()).await?, |reply| reply.actor_id);
    if args.insecure {
        return session.on_insecure_nodes(&[], async |client| ask(client).await.map(drop)).await;
    }
    let client = session.connect().await?;
    // All are asked before the first one is touched.
    let mut nodes = Vec::new();
    for node in session.nodes()? {
        let role = trial::role(&client.to_node(&node)).await?;
        nodes.push((node, role));
    }
    for round in rounds(nodes) {
        on(&client, &round, session, &args.waiting, Until::Upgraded, &ask).await?;
    }
    Ok(())
}

/// The nodes that are upgraded at the same time. A round begins when all nodes of the one before have been upgraded; with `--wait=false`,
/// when they were told to, and then the lock in etcd has a second control plane refuse.
fn rounds(nodes: Vec<(String, Role)>) -> Vec<Vec<String>> {
    let mut others = Vec::new();
    let mut rounds = Vec::new();
    for (node, role) in nodes {
        match role {
            Role::ControlPlane => rounds.push(vec![node]),
            Role::Other => others.push(node),
        }
    }
    rounds.extend((!others.is_empty()).then_some(others));
    rounds
}

pub(crate) async fn rollback(session: &Session) -> Result<(), CommandError> {
    let client = session.connect().await?;
    for reply in client.rollback().await? {
        reply.result.map_err(|error| CommandError::nodes(error.to_string()))?;
    }
    Ok(())
}

/// The actor id of the one node that answered.
fn actor<T>(replies: Vec<NodeReply<T>>, id: impl FnOnce(T) -> String) -> Result<String, CommandError> {
    let reply = replies.into_iter().next().ok_or_else(|| CommandError::nodes("the node did not answer"))?;
    reply.result.map(id).map_err(|error| CommandError::nodes(error.to_string()))
}

/// Asks all nodes at once, and follows each; a failing node does not stop the others.
async fn on_nodes(
    session: &Session,
    waiting: &Waiting,
    until: Until,
    ask: impl AsyncFn(Client) -> Result<String, CommandError>,
) -> Result<(), CommandError> {
    let (nodes, client) = (session.nodes()?, session.connect().await?);
    on(&client, &nodes, session, waiting, until, &ask).await
}

async fn on(
    client: &Client,
    nodes: &[String],
    session: &Session,
    waiting: &Waiting,
    until: Until,
    ask: &impl AsyncFn(Client) -> Result<String, CommandError>,
) -> Result<(), CommandError> {
    let work = nodes.iter().map(async |node| {
        let client = client.to_nodes([node.as_str()]);
        if !waiting.wait {
            return ask(client).await.map(drop);
        }
        let boot = follow::boot_id(&client).await?;
        let trial = if until == Until::Upgraded { trial::told(&client.to_node(node)).await? } else { None };
        let actor = ask(client.clone()).await?;
        let follow = Follow { client, node, out: &session.out, actor, boot, trial, until, debug: waiting.debug };
        follow.run(waiting.timeout).await
    });
    let results = join_all(work).await;
    if nodes.len() == 1 {
        return results.into_iter().next().unwrap_or(Ok(()));
    }
    let mut failed = 0;
    for (node, result) in nodes.iter().zip(results) {
        if let Err(error) = result {
            failed += 1;
            session.out.node_error(node, &stdx::error_chain(error.error.as_ref()));
        }
    }
    if failed == 0 { Ok(()) } else { Err(CommandError::nodes(format!("{failed} of {} nodes failed", nodes.len()))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_planes_are_upgraded_one_after_the_other_and_all_others_at_once_after_them() {
        let node = |name: &str, role| (name.to_owned(), role);
        let nodes = vec![
            node("w1", Role::Other),
            node("c1", Role::ControlPlane),
            node("w2", Role::Other),
            node("c2", Role::ControlPlane),
        ];
        assert_eq!(rounds(nodes), [vec!["c1"], vec!["c2"], vec!["w1", "w2"]]);
        assert_eq!(rounds(vec![node("w1", Role::Other)]), [["w1"]]);
        assert_eq!(rounds(vec![node("c1", Role::ControlPlane)]), [["c1"]]);
        assert!(rounds(Vec::new()).is_empty());
    }
}
