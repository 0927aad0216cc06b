//! `logs` and `dmesg`: logs of services, containers and the kernel.

use std::collections::HashMap;

use clap::Args;
use client::NodeStream;
use futures::StreamExt as _;
use wire::common::Data;
use wire::machine::{DmesgRequest, LogsRequest};

use crate::command_error::CommandError;
use crate::commands::containers;
use crate::replies::Replies;
use crate::session::Session;

#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// Service, or container with --kubernetes
    #[arg(value_name = "service name")]
    service: String,
    /// Follows the log
    #[arg(short, long)]
    follow: bool,
    /// Shows the log of a Kubernetes container (namespace k8s.io)
    #[arg(short, long)]
    kubernetes: bool,
    /// Lines to show from the end (default: all)
    #[arg(long, value_name = "int32", default_value_t = -1, hide_default_value = true, allow_negative_numbers = true)]
    tail: i32,
}

#[derive(Debug, Args)]
pub(crate) struct DmesgArgs {
    /// Follows the log
    #[arg(short, long)]
    follow: bool,
    /// Shows new lines only (with --follow)
    #[arg(long)]
    tail: bool,
}

pub(crate) async fn run(args: LogsArgs, session: &Session) -> Result<(), CommandError> {
    let (namespace, driver) = containers::namespace(args.kubernetes);
    let request = LogsRequest {
        namespace: namespace.to_owned(),
        id: args.service,
        driver: driver.into(),
        follow: args.follow,
        tail_lines: args.tail,
    };
    let client = session.client().await?;
    let stream = client.logs(request).await?;
    show_lines(stream, Replies::new(&session.out, &client), session).await
}

pub(crate) async fn dmesg(args: DmesgArgs, session: &Session) -> Result<(), CommandError> {
    let client = session.client().await?;
    let stream = client.dmesg(DmesgRequest { follow: args.follow, tail: args.tail }).await?;
    show_lines(stream, Replies::new(&session.out, &client), session).await
}

/// Prints whole lines, each prefixed with its node.
async fn show_lines(
    mut stream: NodeStream<Data>,
    mut nodes: Replies<'_>,
    session: &Session,
) -> Result<(), CommandError> {
    let mut lines = Lines::default();
    while let Some(part) = stream.next().await {
        if let Some((node, data)) = nodes.take(part?) {
            session.out.raw(&lines.push(&node, &data.bytes))?;
        }
    }
    session.out.raw(&lines.rest())?;
    nodes.finish()
}

/// Joins chunks of a stream into lines, separately for each node.
#[derive(Debug, Default)]
struct Lines {
    begun: HashMap<String, Vec<u8>>,
}

impl Lines {
    /// The lines completed by this chunk.
    fn push(&mut self, node: &str, part: &[u8]) -> Vec<u8> {
        let begun = self.begun.entry(node.to_owned()).or_default();
        let mut complete = Vec::new();
        let mut rest = part;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let (line, after) = rest.split_at(end + 1);
            write_line(&mut complete, node, begun, line);
            begun.clear();
            rest = after;
        }
        begun.extend_from_slice(rest);
        complete
    }

    /// The remainder at the end of the streams.
    fn rest(self) -> Vec<u8> {
        let mut rest = Vec::new();
        for (node, begun) in self.begun {
            if !begun.is_empty() {
                write_line(&mut rest, &node, &begun, b"\n");
            }
        }
        rest
    }
}

fn write_line(into: &mut Vec<u8>, node: &str, begun: &[u8], line: &[u8]) {
    into.extend_from_slice(node.as_bytes());
    into.extend_from_slice(b": ");
    into.extend_from_slice(begun);
    into.extend_from_slice(line);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_two_nodes_become_whole_lines() {
        let mut lines = Lines::default();
        assert_eq!(lines.push("a", b"one\ntw"), b"a: one\n");
        assert_eq!(lines.push("b", b"uno\n"), b"b: uno\n");
        assert_eq!(lines.push("a", b"o\n\nthr"), b"a: two\na: \n");
        assert_eq!(lines.rest(), b"a: thr\n");
    }
}
