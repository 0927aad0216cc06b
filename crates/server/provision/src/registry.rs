//! A registry that can only be pulled from: the images of an OCI image layout, for the nodes of a cluster.
//!
//! Speaks `GET` and `HEAD` of the distribution API for manifests and blobs. It has no uploads, no catalogue, no accounts,
//! and trusts the layout's blobs to have their digests; clients check them.

mod idle;
mod layout;
mod respond;
mod server;

pub use layout::{Descriptor, Layout, LayoutError};
pub use respond::{Body, respond};
pub use server::{Site, serve};
