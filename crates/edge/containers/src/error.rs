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
