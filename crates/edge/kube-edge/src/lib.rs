//! Client of the Kubernetes API as the node needs it, the load balancer in front of the API servers, and the server that
//! gives the kubelet its static pods.
//!
//! [`KubeApi`] is the seam: [`RealKube`] talks to a server of any release from 1.25 on, `FakeKube` (feature `testing`)
//! keeps a cluster in memory. No decisions about content are made here, and no resources of the node are read.

mod api;
pub mod balancer;
mod bound_pod;
mod call;
mod create;
mod drain;
mod error;
#[cfg(any(test, feature = "testing"))]
mod fake;
mod node;
mod node_cache;
mod object;
mod real;
mod signing;
mod static_pods;

pub use api::{
    Applied, Connect, KubeApi, KubeletApi, NodeEvent, NodeEvents, Outcome, PodSummary, Readiness, ServerVersion,
    Workload,
};
pub use bound_pod::{BoundPod, Eviction, Upkeep};
pub use drain::Drain;
pub use error::KubeError;
#[cfg(any(test, feature = "testing"))]
pub use fake::{FakeConnect, FakeKube};
pub use node::{CONTROL_PLANE_LABEL, Node, NodeAddress, NodePatch, NodesByRole, Taint};
pub use node_cache::{NodeCache, NodesByName};
pub use object::ObjectRef;
pub use real::{RealConnect, RealKube};
pub use signing::{Signing, SigningRequest};
pub use static_pods::StaticPodServer;
