//! The pods of this node, by containerd's CRI: stopped or removed when a node ends, in place of a kubelet that has ended.
//!
//! Pods are never started here. [`Pods`] is the seam; [`Cri`] talks to containerd, `FakePods` (feature `testing`) refuses
//! what containerd refuses.

use std::fmt::Debug;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{self, StreamExt as _};
use tonic::transport::Channel;

use crate::containerd::{ContainerdError, MAX_MESSAGE};
use crate::generated::runtime::v1::runtime_service_client::RuntimeServiceClient;
use crate::generated::runtime::v1::{
    ContainerFilter, ContainerState, ListContainersRequest, ListPodSandboxRequest, NamespaceMode,
    PodSandboxStatusRequest, RemovePodSandboxRequest, StopContainerRequest, StopPodSandboxRequest,
};

/// Pods that are stopped side by side: more would only wait for the same disk.
const AT_ONCE: usize = 16;
/// Time between SIGTERM and SIGKILL (Talos 1.7).
const GRACE: Duration = Duration::from_secs(30);

/// The network of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PodNetwork {
    /// One that a plug-in gave it, and has to take back.
    Own,
    /// The node's.
    Host,
}

/// A pod as the CRI has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sandbox {
    pub id: String,
    pub namespace: String,
    pub name: String,
    pub network: PodNetwork,
}

/// Whether something is left of pods that were stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cleanup {
    /// The kubelet of the next boot finds them, and starts them again.
    Stop,
    /// Nothing is left of them.
    Remove,
}

/// The pods of a node.
#[async_trait]
pub trait Pods: Debug + Send + Sync {
    /// All of them, also those that have ended.
    ///
    /// # Errors
    /// `Call`.
    async fn sandboxes(&self) -> Result<Vec<Sandbox>, ContainerdError>;

    /// Ends its containers, which get `grace` after SIGTERM, and then its network. A pod that has ended, or is gone, is left
    /// as it is.
    ///
    /// # Errors
    /// `Call`.
    async fn stop(&self, sandbox: &Sandbox, grace: Duration) -> Result<(), ContainerdError>;

    /// Removes a pod that was stopped, with its containers.
    ///
    /// # Errors
    /// `Call`.
    async fn remove(&self, sandbox: &Sandbox) -> Result<(), ContainerdError>;
}

/// Pods that could not be stopped or removed.
#[derive(Debug, thiserror::Error)]
pub enum CleanupError {
    #[error(transparent)]
    List(#[from] ContainerdError),
    #[error("pods are left: {}", .0.join("; "))]
    Left(Vec<String>),
}

/// Stops all pods, those with a network of their own first: the plug-ins that take their networks back may be pods of the
/// node's network. A pod that cannot be stopped keeps none of the others. Cancel-safe: what is left is stopped by the next
/// call.
///
/// # Errors
/// Names the pods that are left, each with the reason.
pub async fn clean_up(pods: &dyn Pods, cleanup: Cleanup) -> Result<(), CleanupError> {
    let all = pods.sandboxes().await?;
    let mut left = Vec::new();
    for network in [PodNetwork::Own, PodNetwork::Host] {
        let of_network = all.iter().filter(|sandbox| sandbox.network == network);
        let work: Vec<_> = of_network.map(|sandbox| end(pods, sandbox, cleanup)).collect();
        let ended = stream::iter(work).buffer_unordered(AT_ONCE).collect::<Vec<_>>().await;
        left.extend(ended.into_iter().filter_map(Result::err));
    }
    left.sort();
    if left.is_empty() { Ok(()) } else { Err(CleanupError::Left(left)) }
}

async fn end(pods: &dyn Pods, sandbox: &Sandbox, cleanup: Cleanup) -> Result<(), String> {
    let ended = async {
        pods.stop(sandbox, GRACE).await?;
        match cleanup {
            Cleanup::Stop => Ok(()),
            Cleanup::Remove => pods.remove(sandbox).await,
        }
    };
    let Sandbox { namespace, name, .. } = sandbox;
    ended.await.map_err(|error: ContainerdError| format!("{namespace}/{name}: {}", stdx::error_chain(&error)))?;
    tracing::info!(pod = format!("{namespace}/{name}"), ?cleanup, "pod ended");
    Ok(())
}

/// The CRI of a containerd.
#[derive(Debug, Clone)]
pub struct Cri {
    channel: Channel,
}

impl Cri {
    /// The one behind a socket; the connection is made when the first call needs it.
    pub fn new(socket: &Path) -> Self {
        Self { channel: transport::unix::channel(socket) }
    }

    fn client(&self) -> RuntimeServiceClient<Channel> {
        RuntimeServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    /// The network of a pod; none if it is gone.
    async fn network(&self, id: &str) -> Result<Option<PodNetwork>, ContainerdError> {
        let request = PodSandboxStatusRequest { pod_sandbox_id: id.to_owned() };
        let answer = self.client().pod_sandbox_status(request).await;
        let answer = match answer.map_err(ContainerdError::call("asking for the state of pod", id)) {
            Err(error) if error.is_not_found() => return Ok(None),
            answer => answer?.into_inner(),
        };
        let options = answer.status.and_then(|status| status.linux?.namespaces?.options);
        let is_host = options.is_some_and(|options| options.network() == NamespaceMode::Node);
        Ok(Some(if is_host { PodNetwork::Host } else { PodNetwork::Own }))
    }
}

/// What is gone already has ended.
fn ended(result: Result<(), ContainerdError>) -> Result<(), ContainerdError> {
    if result.as_ref().is_err_and(ContainerdError::is_not_found) { Ok(()) } else { result }
}

#[async_trait]
impl Pods for Cri {
    async fn sandboxes(&self) -> Result<Vec<Sandbox>, ContainerdError> {
        let answer = self.client().list_pod_sandbox(ListPodSandboxRequest {}).await;
        let items = answer.map_err(ContainerdError::call("listing pods of", "this node"))?.into_inner().items;
        let mut sandboxes = Vec::new();
        for item in items {
            let Some(network) = self.network(&item.id).await? else { continue };
            let metadata = item.metadata.unwrap_or_default();
            sandboxes.push(Sandbox { id: item.id, namespace: metadata.namespace, name: metadata.name, network });
        }
        Ok(sandboxes)
    }

    async fn stop(&self, sandbox: &Sandbox, grace: Duration) -> Result<(), ContainerdError> {
        let filter = Some(ContainerFilter { pod_sandbox_id: sandbox.id.clone() });
        let answer = self.client().list_containers(ListContainersRequest { filter }).await;
        let containers = answer.map_err(ContainerdError::call("listing containers of pod", &sandbox.id))?.into_inner();
        let running = containers.containers.into_iter().filter(|container| {
            container.pod_sandbox_id == sandbox.id && container.state() != ContainerState::ContainerExited
        });
        let timeout = i64::try_from(grace.as_secs()).unwrap_or(i64::MAX);
        let stops = running.map(|container| async move {
            let failed = ContainerdError::call("stopping container", &container.id);
            let request = StopContainerRequest { container_id: container.id.clone(), timeout };
            ended(self.client().stop_container(request).await.map(drop).map_err(failed))
        });
        for stopped in futures::future::join_all(stops).await {
            stopped?;
        }
        let request = StopPodSandboxRequest { pod_sandbox_id: sandbox.id.clone() };
        let stopped = self.client().stop_pod_sandbox(request).await;
        ended(stopped.map(drop).map_err(ContainerdError::call("stopping pod", &sandbox.id)))
    }

    async fn remove(&self, sandbox: &Sandbox) -> Result<(), ContainerdError> {
        let request = RemovePodSandboxRequest { pod_sandbox_id: sandbox.id.clone() };
        let removed = self.client().remove_pod_sandbox(request).await;
        ended(removed.map(drop).map_err(ContainerdError::call("removing pod", &sandbox.id)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{FakePods, PodCall};

    fn sandbox(name: &str, network: PodNetwork) -> Sandbox {
        Sandbox { id: format!("id of {name}"), namespace: "default".into(), name: name.into(), network }
    }

    fn pods() -> FakePods {
        FakePods::new([
            sandbox("cni", PodNetwork::Host),
            sandbox("web", PodNetwork::Own),
            sandbox("db", PodNetwork::Own),
        ])
    }

    #[tokio::test(start_paused = true)]
    async fn pods_with_networks_of_their_own_end_first() {
        let pods = pods();
        clean_up(&pods, Cleanup::Stop).await.unwrap();
        assert_eq!(pods.calls(), ["web", "db", "cni"].map(|name| PodCall::Stop(name.into(), GRACE)));
        assert_eq!(pods.names(), ["cni", "web", "db"]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_removed_was_stopped_and_a_pod_that_stays_keeps_no_other() {
        let pods = pods();
        pods.fail("web");
        let error = clean_up(&pods, Cleanup::Remove).await.unwrap_err();
        assert!(
            matches!(&error, CleanupError::Left(left) if left.len() == 1 && left[0].starts_with("default/web: ")),
            "{error}"
        );
        assert_eq!(pods.names(), ["web"]);
        clean_up(&pods, Cleanup::Remove).await.unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn a_containerd_that_does_not_answer_is_an_error() {
        let error = clean_up(&Cri::new(Path::new("/nonexistent")), Cleanup::Stop).await.unwrap_err();
        assert!(
            matches!(error, CleanupError::List(ContainerdError::Call { operation: "listing pods of", .. })),
            "{error}"
        );
    }
}
