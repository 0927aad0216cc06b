//! Containers of a node: pulls images into containerd or a directory, runs containers, lists running ones.
//!
//! The node's own containers (etcd, kubelet) are made here in the namespace `system`; those of pods are the kubelet's
//! and are only listed. Registries are spoken to by [`registry`]; containerd itself never reaches out for a node.

pub mod containerd;
mod error;
mod generated;
mod layer;
mod oci_document;
pub mod pods;
pub mod pull;
pub mod reference;
pub mod registry;
pub mod run;
mod source;
#[cfg(feature = "testing")]
pub mod testing;
pub mod unpack;

pub use containerd::{Containerd, ContainerdError, Namespace};
pub use error::PullError;
pub use layer::LayerError;
pub use reference::{ParseReferenceError, Reference};
pub use registry::{Credentials, HostConfig, Mirror, Proxy, Registries, RegistryError};
