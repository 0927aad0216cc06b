//! Errors of the provisioner. `Display` names the operation and its subject; the cause is the source.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::plan::PlanError;

/// One reason why a cluster cannot be created, found before anything changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The problem.
    pub what: String,
    /// Advice for the operator.
    pub remedy: String,
}

impl Problem {
    pub(crate) fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.what, self.remedy)
    }
}

/// Failure to create, inspect or remove a cluster.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    #[error(transparent)]
    Host(#[from] HostError),
    #[error(transparent)]
    Driver(#[from] DriverError),
    #[error("planning cluster")]
    Plan(#[source] PlanError),
    /// Nothing was changed.
    #[error("cluster {name} cannot be created: {}", join(.problems))]
    Refused { name: String, problems: Vec<Problem> },
    #[error("no cluster {name} in {}", .root.display())]
    NoSuchCluster { name: String, root: PathBuf },
    #[error("another command works on cluster {name}")]
    Busy { name: String },
    #[error("no node {node} in cluster {name}")]
    NoSuchNode { name: String, node: String },
    #[error("node {node} runs")]
    NodeRuns { node: String },
    #[error("node {node} was never started")]
    NodeAbsent { node: String },
    #[error("node {node} ended right after its start: {output}")]
    NodeEnded { node: String, output: String },
    #[error("decoding state of cluster in {}", .path.display())]
    Decode { path: PathBuf, source: serde_json::Error },
    /// Another program has to be used, or everything of the cluster removed by hand.
    #[error("the cluster in {} has state version {version}, this program knows up to {known}", .path.display())]
    NewerState { path: PathBuf, version: u64, known: u64 },
}

/// Failures of a driver.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    #[error(transparent)]
    Host(#[from] HostError),
    /// Trying again changes nothing.
    #[error("{subject} cannot be used: {reason}")]
    Unusable { subject: String, reason: String },
    #[error("starting node {node}: {reason}")]
    Start { node: String, reason: String },
    #[error("a step of the driver panicked")]
    Panicked(#[source] tokio::task::JoinError),
}

/// A file or a tool of the host that failed.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    #[error("{operation} {}", .path.display())]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
    #[error("encoding {subject}")]
    Encode { subject: &'static str, source: serde_json::Error },
    #[error("{operation}")]
    Command { operation: String, source: CommandError },
    #[error("processes {processes:?} of {owner} do not end")]
    StillRunning { owner: String, processes: Vec<u32> },
}

/// A tool of the host that could not be run or failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error("{program} is not installed (Debian package {package})")]
    Missing { program: &'static str, package: &'static str },
    #[error("starting {program}")]
    Start { program: &'static str, source: io::Error },
    #[error("{command}: {status}: {output}")]
    Failed { command: String, status: String, output: String },
}

impl HostError {
    pub(crate) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { operation, path, source }
    }
}

/// Names the operation on an error of a tool.
pub(crate) trait Operation<T> {
    fn operation(self, operation: impl FnOnce() -> String) -> Result<T, HostError>;
}

impl<T> Operation<T> for Result<T, CommandError> {
    fn operation(self, operation: impl FnOnce() -> String) -> Result<T, HostError> {
        self.map_err(|source| HostError::Command { operation: operation(), source })
    }
}

fn join(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
