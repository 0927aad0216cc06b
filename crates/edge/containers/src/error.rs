//! Why an image was not brought in, into snapshots or a directory.

use std::path::PathBuf;

use sys::mounts::MountError;

use crate::containerd::ContainerdError;
use crate::layer::LayerError;
use crate::registry::RegistryError;

/// Failure of a pull.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    #[error("pulling {reference}")]
    Registry {
        reference: String,
        #[source]
        source: RegistryError,
    },
    #[error("storing {reference}")]
    Containerd {
        reference: String,
        #[source]
        source: ContainerdError,
    },
    #[error("reading {what} of {reference}")]
    Malformed {
        reference: String,
        what: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("{reference} has no image for linux/{architecture}")]
    Platform { reference: String, architecture: &'static str },
    #[error("{reference} has {layers} layers, but its configuration lists {diff_ids}")]
    LayerCount { reference: String, layers: usize, diff_ids: usize },
    #[error("{what} of {reference} has digest {actual}, not {wanted}")]
    Digest { reference: String, what: &'static str, wanted: String, actual: String },
    #[error("unpacking layer {layer} of {reference}")]
    Layer {
        reference: String,
        layer: String,
        #[source]
        source: LayerError,
    },
    #[error("containerd shows the snapshot of {reference} in no way that is known here")]
    Snapshot { reference: String },
    #[error("mounting a snapshot of {reference}")]
    Mount {
        reference: String,
        #[source]
        source: MountError,
    },
    #[error("preparing {}", path.display())]
    Directory {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

impl PullError {
    /// Whether another attempt may succeed: the network, a registry, or what arrived of an image may be in order then.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Registry { source, .. } => source.is_retryable(),
            Self::Containerd { .. } | Self::Malformed { .. } | Self::Digest { .. } => true,
            Self::Layer { source, .. } => !source.is_too_large(),
            Self::Platform { .. }
            | Self::LayerCount { .. }
            | Self::Snapshot { .. }
            | Self::Mount { .. }
            | Self::Directory { .. } => false,
        }
    }

    /// Whether a registry has answered that it does not have the image, or does not give it to this machine. Beside another
    /// one that does not answer this may still be retryable.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Registry { source, .. } if source.is_refusal())
    }
}
