//! Kubernetes on this node: components, manifests, the node object.

mod control_plane;
mod node;
mod static_pods;

pub use control_plane::*;
pub use node::*;
pub use static_pods::*;

/// Namespace of control plane resources.
pub const CONTROL_PLANE_NAMESPACE: &str = "controlplane";
/// Namespace of node resources.
pub const NAMESPACE: &str = "k8s";
