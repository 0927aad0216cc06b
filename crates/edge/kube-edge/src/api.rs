//! The seam to the Kubernetes API.

use std::fmt::Debug;
use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use serde_json::Value;

use crate::bound_pod::{BoundPod, Eviction};
use crate::error::KubeError;
use crate::node::{Node, NodePatch};
use crate::object::ObjectRef;
use crate::signing::{Signing, SigningRequest};

/// Version of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerVersion {
    /// Such as `v1.30.0`.
    pub git_version: String,
    pub major: String,
    pub minor: String,
}

/// A change of the set of nodes. A stream begins with a snapshot and may repeat it.
#[derive(Debug, Clone, PartialEq)]
pub enum NodeEvent {
    Snapshot(Vec<Node>),
    Changed(Box<Node>),
    Gone(String),
}

/// Ends after an error; subscribe again, with backoff.
pub type NodeEvents = BoxStream<'static, Result<NodeEvent, KubeError>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Created,
    /// Left as it is.
    AlreadyThere,
}

/// Outcome for one object.
#[derive(Debug)]
pub struct Applied {
    pub object: ObjectRef,
    pub outcome: Result<Outcome, KubeError>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodSummary {
    pub namespace: String,
    pub name: String,
    /// Empty until scheduled.
    pub node: String,
    /// `Pending`, `Running`, `Succeeded`, `Failed` or `Unknown`.
    pub phase: String,
    pub ready: bool,
    pub ip: Option<IpAddr>,
    pub labels: std::collections::BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    DaemonSet,
    Deployment,
}

/// Pods of a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Readiness {
    pub desired: u32,
    pub ready: u32,
    /// Of the current template.
    pub updated: u32,
}

impl Readiness {
    /// All desired pods are ready and of the current template.
    #[must_use]
    pub const fn is_complete(self) -> bool {
        self.ready >= self.desired && self.updated >= self.desired
    }
}

/// Kubernetes, as far as a node uses it.
///
/// **Guarantees.** Every call but the watch ends within about ten seconds.
/// **Errors.** [`KubeError::is_retryable`] says whether the same call may succeed later.
#[async_trait]
pub trait KubeApi: Debug + Send + Sync {
    /// Also tells whether the server is reachable and accepts the credentials.
    async fn version(&self) -> Result<ServerVersion, KubeError>;

    /// Whether the server has finished its start, including the creation of default roles. A server that has not is
    /// `Ok(false)`.
    async fn is_ready(&self) -> Result<bool, KubeError>;

    /// Asks for a certificate; returns the name of the request.
    async fn request_certificate(&self, request: &SigningRequest) -> Result<String, KubeError>;

    /// The state of the request of that name.
    async fn signing(&self, name: &str) -> Result<Signing, KubeError>;

    async fn node(&self, name: &str) -> Result<Option<Node>, KubeError>;

    async fn nodes(&self) -> Result<Vec<Node>, KubeError>;

    /// Follows all nodes, or one.
    fn watch_nodes(&self, only: Option<&str>) -> NodeEvents;

    /// Patches only the given fields. With a resource version, fails with [`KubeError::is_conflict`] when the node has
    /// changed since.
    async fn patch_node(&self, name: &str, patch: &NodePatch) -> Result<(), KubeError>;

    /// Creates missing objects and leaves existing ones; namespaces first, then resource definitions, then the rest in
    /// the given order. Every object gets an outcome, in that order; a failure does not keep the others back.
    async fn create_missing(&self, objects: &[Value]) -> Vec<Applied>;

    async fn pods(&self, namespace: &str) -> Result<Vec<PodSummary>, KubeError>;

    /// The pods that are bound to a node, of all namespaces.
    async fn pods_on(&self, node: &str) -> Result<Vec<BoundPod>, KubeError>;

    /// Asks for the end of a pod, with the time that it takes to end; another pod of that name is left alone.
    async fn evict(&self, pod: &BoundPod) -> Result<Eviction, KubeError>;

    /// `None` if there is no such workload.
    async fn readiness(&self, kind: Workload, namespace: &str, name: &str) -> Result<Option<Readiness>, KubeError>;

    /// Ready addresses behind a Service; empty if there is no such Service.
    async fn endpoints(&self, namespace: &str, name: &str) -> Result<Vec<IpAddr>, KubeError>;
}

/// The kubelet of this node.
#[async_trait]
pub trait KubeletApi: Debug + Send + Sync {
    /// All pods that it knows, as objects of the API, static ones included.
    async fn pods(&self) -> Result<Vec<Value>, KubeError>;
}

/// Creates clients from kubeconfigs; replaceable by a fake.
#[async_trait]
pub trait Connect: Debug + Send + Sync {
    /// A client; does not yet talk to the server.
    async fn connect(&self, kubeconfig: &str) -> Result<Arc<dyn KubeApi>, KubeError>;

    /// A client of the kubelet that the kubeconfig names as its server; does not yet talk to it.
    async fn connect_kubelet(&self, kubeconfig: &str) -> Result<Arc<dyn KubeletApi>, KubeError>;
}
