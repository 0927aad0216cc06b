//! `version`: versions of client and nodes.

use clap::Args;
use client::Client;
use serde_json::{Map, Value, json};
use stdx::version::TAG;
use wire::machine;

use crate::command_error::CommandError;
use crate::replies::Replies;
use crate::session::Session;

#[derive(Debug, Args)]
pub(crate) struct VersionArgs {
    /// Shows the client's version only
    #[arg(long)]
    client: bool,
    /// Asks a node in maintenance mode, without a client certificate
    #[arg(short, long)]
    insecure: bool,
    /// Prints the answers of the nodes as JSON
    #[arg(long, hide = true)]
    json: bool,
    /// Shows the short version
    #[arg(long)]
    short: bool,
}

pub(crate) async fn run(args: VersionArgs, session: &Session) -> Result<(), CommandError> {
    // JSON is about nodes alone.
    if !args.json {
        session.out.line("Client:")?;
        session.out.line(if args.short { format!("Talos {TAG}") } else { block(&own_version()) })?;
        if args.client {
            return Ok(());
        }
        session.out.line("Server:")?;
    }
    let show = async |client: Client| {
        let nodes = Replies::new(&session.out, &client);
        let replies = client.version().await?;
        if args.json { show_json(replies, nodes, session) } else { show(replies, nodes, session) }
    };
    if args.insecure { session.on_insecure_nodes(&[], show).await } else { show(session.client().await?).await }
}

/// The answers on one line, in the JSON form of their messages; fields that are not set are left out.
fn show_json(
    replies: Vec<client::NodeReply<machine::Version>>,
    mut nodes: Replies<'_>,
    session: &Session,
) -> Result<(), CommandError> {
    let messages: Vec<Value> = nodes.take_all(replies).into_iter().map(|(node, reply)| message(&node, reply)).collect();
    session.out.line(json!({ "messages": messages }).to_string())?;
    nodes.finish()
}

fn message(node: &str, reply: machine::Version) -> Value {
    let version = reply.version.unwrap_or_default();
    let texts = [
        ("tag", version.tag),
        ("sha", version.sha),
        ("built", version.built),
        ("goVersion", version.go_version),
        ("os", version.os),
        ("arch", version.arch),
    ];
    let set = texts.into_iter().filter(|(_, text)| !text.is_empty());
    let mut message = json!({
        "metadata": { "hostname": node },
        "version": set.map(|(key, text)| (key.to_owned(), Value::from(text))).collect::<Map<_, _>>(),
    });
    if let Some(platform) = reply.platform {
        message["platform"] = json!({ "name": platform.name, "mode": platform.mode });
    }
    if let Some(features) = reply.features {
        message["features"] = if features.rbac { json!({ "rbac": true }) } else { json!({}) };
    }
    message
}

fn show(
    replies: Vec<client::NodeReply<machine::Version>>,
    mut nodes: Replies<'_>,
    session: &Session,
) -> Result<(), CommandError> {
    for (node, reply) in nodes.take_all(replies) {
        let version = reply.version.unwrap_or_default();
        session.out.line(format!("\tNODE:        {node}"))?;
        session.out.line(block(&version))?;
        if let Some(platform) = reply.platform {
            session.out.line(format!("\tPlatform:    {} ({})", platform.name, platform.mode))?;
        }
        if reply.features.is_some_and(|features| features.rbac) {
            session.out.line("\tEnabled:     RBAC")?;
        }
    }
    nodes.finish()
}

fn own_version() -> machine::VersionInfo {
    machine::VersionInfo {
        tag: TAG.to_owned(),
        sha: build_info::COMMIT.to_owned(),
        built: build_info::DATE.to_owned(),
        go_version: build_info::COMPILER.to_owned(),
        os: std::env::consts::OS.to_owned(),
        arch: match std::env::consts::ARCH {
            "x86_64" => "amd64".to_owned(),
            "aarch64" => "arm64".to_owned(),
            other => other.to_owned(),
        },
    }
}

fn block(version: &machine::VersionInfo) -> String {
    let mut lines = vec![
        format!("\tTag:         {}", version.tag),
        format!("\tSHA:         {}", version.sha),
        format!("\tBuilt:       {}", version.built),
    ];
    if !version.go_version.is_empty() {
        lines.push(format!("\tGo version:  {}", version.go_version));
    }
    lines.push(format!("\tOS/Arch:     {}/{}", version.os, version.arch));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_version_has_no_empty_architecture() {
        let text = block(&own_version());
        assert!(text.starts_with(&format!("\tTag:         {TAG}\n")), "{text}");
        assert!(text.contains(&format!("\n\tSHA:         {}\n", build_info::COMMIT)), "{text}");
        assert!(text.contains(&format!("\n\tBuilt:       {}\n", build_info::DATE)), "{text}");
        assert!(text.ends_with("\tOS/Arch:     linux/amd64") || text.ends_with("\tOS/Arch:     linux/arm64"), "{text}");
    }
}
