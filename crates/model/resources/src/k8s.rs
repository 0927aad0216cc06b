//! Kubernetes on this node: components, manifests, the node object.

mod control_plane;
mod node;
mod static_pods;

pub use control_plane::*;
pub use node::*;
pub use static_pods::*;

/// Where the control plane's resources are.
pub const CONTROL_PLANE_NAMESPACE: &str = "controlplane";
/// Where the node's resources are.
pub const NAMESPACE: &str = "k8s";
