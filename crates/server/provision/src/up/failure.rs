//! Why a cluster did not come up, and where to look.

use std::path::PathBuf;

use client::talosconfig::TalosConfigError;
use client::{CallError, ConnectError};

use crate::agent::AgentError;
use crate::error::ProvisionError;
use crate::registry::LayoutError;

/// A wait that ended badly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The awaited condition.
    pub step: String,
    pub node: String,
    pub address: std::net::Ipv4Addr,
    /// The last observation, or the reason to give up.
    pub reason: String,
    /// The service that did not come up, where one is known.
    pub service: Option<String>,
    /// The last lines of its log, or of the node's.
    pub last_lines: Vec<String>,
    pub node_log: PathBuf,
}

/// Why [`super::up`] ended.
#[derive(Debug, thiserror::Error)]
pub enum UpError {
    #[error(transparent)]
    Provision(#[from] ProvisionError),
    #[error(transparent)]
    Agent(#[from] AgentError),
    #[error(transparent)]
    TalosConfig(#[from] TalosConfigError),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("bootstrapping the cluster")]
    Bootstrap(#[source] CallError),
    #[error("looking into the bundle or the installer's layout")]
    Bundle(#[from] LayoutError),
    #[error("bundle {} has no image {image}", .bundle.display())]
    MissingImage { bundle: PathBuf, image: String },
    /// Nothing was changed.
    #[error("the installer's layout {} has no image with a full reference", .0.display())]
    NoInstaller(PathBuf),
    #[error("bundle {} has Kubernetes {has} instead of {wanted}", .bundle.display())]
    KubernetesVersion { bundle: PathBuf, has: String, wanted: String },
    #[error("generating {subject}")]
    Generate { subject: &'static str, source: Box<dyn std::error::Error + Send + Sync> },
    /// Nothing was changed.
    #[error("the {subject} cannot be used: {reason}")]
    Input { subject: &'static str, reason: &'static str },
    /// Nothing was changed.
    #[error("file {:?} already exists", .0.display().to_string())]
    FileExists(PathBuf),
    #[error("writing {}", .path.display())]
    Write { path: PathBuf, source: std::io::Error },
    #[error("a patch is for node {0}, which the cluster does not have")]
    NoSuchNode(String),
    #[error("step {step:?} panicked")]
    Step { step: String, source: tokio::task::JoinError },
    #[error("{} did not become ready on {}: {}", .0.step, .0.node, .0.reason)]
    NotReady(Box<Failure>),
}

impl UpError {
    /// Whether something was made that can be looked at and must be destroyed.
    #[must_use]
    pub fn left_something(&self) -> bool {
        !matches!(
            self,
            Self::Provision(ProvisionError::Refused { .. } | ProvisionError::Plan(_))
                | Self::Bundle(_)
                | Self::MissingImage { .. }
                | Self::NoInstaller(_)
                | Self::KubernetesVersion { .. }
                | Self::Generate { .. }
                | Self::NoSuchNode(_)
                | Self::Input { .. }
                | Self::FileExists(_)
        )
    }
}
