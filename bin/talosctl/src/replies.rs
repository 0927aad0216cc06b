//! Answers of several nodes: what succeeded is shown, what failed is reported beside it, and the command fails if any
//! node did.

use client::{Client, NodeReply};

use crate::command_error::CommandError;
use crate::output::Output;

/// Collects the failures of one command.
#[derive(Debug)]
pub(crate) struct Replies<'a> {
    out: &'a Output,
    /// Name for answers that carry none: the server that was dialled.
    dialled: String,
    failed: usize,
}

impl<'a> Replies<'a> {
    pub(crate) fn new(out: &'a Output, client: &Client) -> Self {
        let dialled = client.endpoint().map(|endpoint| endpoint.host().to_owned()).unwrap_or_default();
        Self { out, dialled, failed: 0 }
    }

    /// The answer with its node, or nothing after its error was reported.
    pub(crate) fn take<T>(&mut self, reply: NodeReply<T>) -> Option<(String, T)> {
        let node = if reply.node.is_empty() { self.dialled.clone() } else { reply.node };
        match reply.result {
            Ok(answer) => Some((node, answer)),
            Err(error) => {
                self.fail(&node, &error);
                None
            }
        }
    }

    /// All good answers with their nodes.
    pub(crate) fn take_all<T>(&mut self, replies: Vec<NodeReply<T>>) -> Vec<(String, T)> {
        replies.into_iter().filter_map(|reply| self.take(reply)).collect()
    }

    /// Reports an error of a node.
    pub(crate) fn fail(&mut self, node: &str, error: &dyn std::fmt::Display) {
        self.failed += 1;
        self.out.node_error(node, error);
    }

    /// Whether the command as a whole succeeded.
    pub(crate) fn finish(self) -> Result<(), CommandError> {
        match self.failed {
            0 => Ok(()),
            1 => Err(CommandError::nodes("one answer was an error")),
            count => Err(CommandError::nodes(format!("{count} answers were errors"))),
        }
    }
}
