//! `version`: versions of client and nodes.

use clap::Args;
use client::Client;
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
    /// Shows the short version
    #[arg(long)]
    short: bool,
}

pub(crate) async fn run(args: VersionArgs, session: &Session) -> Result<(), CommandError> {
    if args.short {
        session.out.line(format!("Client {TAG}"))?;
    } else {
        session.out.line("Client:")?;
        session.out.line(block(&own_version()))?;
    }
    if args.client {
        return Ok(());
    }
    session.out.line("Server:")?;
    if !args.insecure {
        let client = session.client().await?;
        return show(client.version().await?, args.short, Replies::new(&session.out, &client), session);
    }
    let ask =
        async |client: Client| show(client.version().await?, args.short, Replies::new(&session.out, &client), session);
    session.on_insecure_nodes(&[], ask).await
}

fn show(
    replies: Vec<client::NodeReply<machine::Version>>,
    short: bool,
    mut nodes: Replies<'_>,
    session: &Session,
) -> Result<(), CommandError> {
    for (node, reply) in nodes.take_all(replies) {
        let version = reply.version.unwrap_or_default();
        session.out.line(format!("\tNODE:        {node}"))?;
        if short {
            session.out.line(format!("\tTag:         {}", version.tag))?;
            continue;
        }
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
