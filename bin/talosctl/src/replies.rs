//! Answers of several nodes: successes are printed, failures reported beside them, and the command fails if any node
//! did.

use client::{Client, NodeReply};

use crate::command_error::{CommandError, advice_for_node};
use crate::output::Output;
use crate::output::table::Table;

/// Collects the failures of one command.
#[derive(Debug)]
pub(crate) struct Replies<'a> {
    out: &'a Output,
    /// Name for answers without metadata: the dialled server.
    dialled: String,
    answered: usize,
    failed: usize,
    hints: Vec<&'static str>,
}

impl<'a> Replies<'a> {
    pub(crate) fn new(out: &'a Output, client: &Client) -> Self {
        let dialled = client.endpoint().map(|endpoint| endpoint.host().to_owned()).unwrap_or_default();
        Self { out, dialled, answered: 0, failed: 0, hints: Vec::new() }
    }

    /// The answer with its node, or `None` after reporting its error.
    pub(crate) fn take<T>(&mut self, reply: NodeReply<T>) -> Option<(String, T)> {
        let node = if reply.node.is_empty() { self.dialled.clone() } else { reply.node };
        match reply.result {
            Ok(answer) => {
                self.answered += 1;
                Some((node, answer))
            }
            Err(error) => {
                if let Some(hint) = advice_for_node(error.code, &error.message)
                    && !self.hints.contains(&hint)
                {
                    self.hints.push(hint);
                }
                self.fail(&node, &error);
                None
            }
        }
    }

    /// All successful answers with their nodes.
    pub(crate) fn take_all<T>(&mut self, replies: Vec<NodeReply<T>>) -> Vec<(String, T)> {
        replies.into_iter().filter_map(|reply| self.take(reply)).collect()
    }

    /// Reports the error of a node.
    pub(crate) fn fail(&mut self, node: &str, error: &dyn std::fmt::Display) {
        self.failed += 1;
        self.out.node_error(node, error);
    }

    /// Prints rows under their header, unless every node failed.
    pub(crate) fn print(&self, table: &mut Table) -> Result<(), CommandError> {
        if self.answered > 0 {
            self.out.line(table.take())?;
        }
        Ok(())
    }

    /// The outcome of the whole command.
    pub(crate) fn finish(self) -> Result<(), CommandError> {
        let error = match self.failed {
            0 => return Ok(()),
            1 => CommandError::nodes("one node returned an error"),
            count => CommandError::nodes(format!("{count} nodes returned errors")),
        };
        Err(self.hints.into_iter().fold(error, CommandError::hint))
    }
}
