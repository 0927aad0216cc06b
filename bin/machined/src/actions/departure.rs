//! Steps by which a node leaves its cluster before it ends: its pods go elsewhere, or end; its member of etcd leaves; others
//! are told.

use std::path::Path;
use std::time::Duration;

use containers::pods::{Cleanup, Pods, clean_up};
use etcd_edge::NodeEtcd;
use kube_edge::{Connect, Drain, KubeApi};
use resources::MachineType;
use resources::k8s::Nodename;
use resources::runtime::{MachineResetSignal, MountStatus};
use resources::secrets::KubernetesSecrets;
use sequencer::{TaskContext, TaskError};
use services::ETCD_DATA;
use services::bootstrap::has_member;
use state::{StateError, Store};
use supervisor::{Supervisor, SupervisorError};
use sys::files;

use super::SEQUENCER;

/// How long the cordon may take, which `k8s.NodeApplyController` does for every machine that ends.
const CORDON: Duration = Duration::from_secs(30);
/// How long pods may take to end without the kubelet (Talos 1.7).
const PODS: Duration = Duration::from_secs(3 * 60);
const CORDON_POLL: Duration = Duration::from_secs(1);

/// Evicts the pods of this node once it is cordoned. A machine that is no node of a cluster has none.
///
/// # Errors
/// Names the pods that are left when the time is over; the API server does not answer or refuses.
pub(crate) async fn drain(
    store: &Store,
    connect: &dyn Connect,
    kubelet_kubeconfig: &Path,
    context: &TaskContext,
) -> Result<(), TaskError> {
    let Some((node, kubeconfig)) = identity(store, kubelet_kubeconfig)? else {
        tracing::info!("no drain: this machine is no node of a cluster");
        return Ok(());
    };
    let api = connect.connect(&kubeconfig).await?;
    let mut drain = Drain::default();
    let work = async { if is_cordoned(&*api, &node).await? { Ok(drain.run(&*api, &node).await?) } else { Ok(()) } };
    // Cancel-safe: evictions that were accepted stay.
    let ended: Option<Result<(), TaskError>> = tokio::select! {
        ended = work => Some(ended),
        () = context.cancel.cancelled() => None,
    };
    ended.unwrap_or_else(|| Err(format!("pods are still on this node: {}", drain.left()).into()))
}

/// The name of this node, and the kubeconfig that it may use: on control planes the local administrator's, on workers the
/// kubelet's.
fn identity(store: &Store, kubelet_kubeconfig: &Path) -> Result<Option<(String, String)>, TaskError> {
    let Some(nodename) = store.get_as::<Nodename>(Nodename::ID)?.filter(|name| !name.skip_node_registration) else {
        return Ok(None);
    };
    let kind = store.get_as::<MachineType>(MachineType::ID)?;
    let kubeconfig = if kind.is_some_and(|kind| kind.is_control_plane()) {
        let secrets = store.get_as::<KubernetesSecrets>(KubernetesSecrets::ID)?;
        secrets.map(|secrets| secrets.localhost_admin_kubeconfig.clone())
    } else {
        files::read(kubelet_kubeconfig)?.map(|text| String::from_utf8_lossy(&text).into_owned())
    };
    Ok(kubeconfig.filter(|text| !text.is_empty()).map(|kubeconfig| (nodename.nodename.clone(), kubeconfig)))
}

/// Waits for the cordon; false where the cluster has no such node.
async fn is_cordoned(api: &dyn KubeApi, node: &str) -> Result<bool, TaskError> {
    let cordon = async {
        loop {
            match api.node(node).await {
                Ok(None) => return Ok(false),
                Ok(Some(found)) if found.unschedulable => return Ok(true),
                Err(error) if !error.is_retryable() => return Err(error),
                Ok(Some(_)) => {}
                Err(error) => tracing::debug!(error = stdx::error_chain(&error), "waiting for the cordon"),
            }
            tokio::time::sleep(CORDON_POLL).await;
        }
    };
    match tokio::time::timeout(CORDON, cordon).await {
        Ok(cordoned) => Ok(cordoned?),
        Err(_) => {
            Err(format!("the node was not cordoned within {} s: it would get its pods back", CORDON.as_secs()).into())
        }
    }
}

/// Ends the kubelet, which would start them again, and then all pods.
///
/// # Errors
/// Names the pods that are left.
pub(crate) async fn clean_up_pods(supervisor: &Supervisor, pods: &dyn Pods, cleanup: Cleanup) -> Result<(), TaskError> {
    stop(supervisor, "kubelet").await?;
    if !supervisor.get("containerd").is_some_and(|containerd| containerd.is_up()) {
        tracing::info!("no pods: containerd does not run");
        return Ok(());
    }
    match tokio::time::timeout(PODS, clean_up(pods, cleanup)).await {
        Ok(cleaned) => Ok(cleaned?),
        Err(_) => Err(format!("pods have not ended within {} s", PODS.as_secs()).into()),
    }
}

/// Ends a service; one that is not there has ended.
async fn stop(supervisor: &Supervisor, service: &str) -> Result<(), SupervisorError> {
    match supervisor.stop(service).await {
        Err(SupervisorError::Unknown(_)) => Ok(()),
        stopped => stopped,
    }
}

/// Removes the member of this node from the cluster of etcd, and its data, which is of no use then. A node without data is
/// no member.
///
/// # Errors
/// It is the last member, or etcd does not answer or refuses: nothing was changed.
pub(crate) async fn leave_etcd(store: &Store, supervisor: &Supervisor, etcd: &NodeEtcd) -> Result<(), TaskError> {
    let Some(ephemeral) = store.get_as::<MountStatus>(MountStatus::EPHEMERAL)? else { return Ok(()) };
    let data = Path::new(&ephemeral.target).join(ETCD_DATA);
    if !has_member(&data) {
        return Ok(());
    }
    let client = etcd.client().await?;
    etcd_edge::leave(&*client).await?;
    tracing::info!("this node has left the cluster of etcd");
    stop(supervisor, "etcd").await?;
    // Removing waits for a disk.
    Ok(tokio::task::spawn_blocking(move || files::remove_tree(&data)).await??)
}

/// Has controllers tell others that this node is going for good.
pub(crate) fn send_reset_signal(store: &Store) -> Result<(), StateError> {
    store.put(MachineResetSignal::ID, MachineResetSignal {}, SEQUENCER).map(drop)
}

#[cfg(test)]
mod tests;
