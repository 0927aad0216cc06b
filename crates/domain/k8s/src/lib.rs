//! Controllers of Kubernetes on a node: the kubelet's configuration, static pods of the control plane, manifests of a new
//! cluster, the way to the API servers, the node object and the native pod network.
//!
//! Rendered documents come from `kubernetes`, clients from `kube-edge` and `netlink`. The kubelet itself is run by
//! the supervisor, as its `ServiceSpec` says.

mod address_filter;
mod control_plane_config;
mod control_plane_static_pod;
mod endpoint;
mod extra_manifest;
mod kube_clients;
mod kube_prism;
mod kubelet_config;
mod kubelet_identity;
mod kubelet_service;
mod kubelet_spec;
mod kubelet_static_pod;
mod kubernetes_access;
mod machine_config;
mod manifest;
mod manifest_apply;
mod native_pod_network;
mod node_apply;
mod node_cordoned_spec;
mod node_ip;
mod node_spec;
mod node_status;
mod nodename;
mod pod_subnet_allocation;
mod pod_subnet_plan;
mod pod_subnets;
mod render_configs;
mod render_secrets;
mod root;
mod static_pod_config;
mod static_pod_server;

use std::sync::Arc;

use controller::Controller;
use http_fetch::Fetch;
use kube_edge::Connect;
use netlink::Router;

pub use control_plane_static_pod::ControlPlaneStaticPodController;
pub use endpoint::{EndpointController, StaticEndpointController};
pub use extra_manifest::ExtraManifestController;
pub use kube_prism::{KubePrismConfigController, KubePrismController, KubePrismEndpointsController};
pub use kubelet_config::KubeletConfigController;
pub use kubelet_identity::KubeletIdentityController;
pub use kubelet_service::KubeletServiceController;
pub use kubelet_spec::KubeletSpecController;
pub use kubelet_static_pod::KubeletStaticPodController;
pub use manifest::ManifestController;
pub use manifest_apply::{MANIFEST_APPLY_LOCK, ManifestApplyController};
pub use native_pod_network::{NATIVE_ROUTES, NativePodNetworkController};
pub use node_apply::NodeApplyController;
pub use node_cordoned_spec::NodeCordonedSpecController;
pub use node_ip::NodeIpController;
pub use node_status::NodeStatusController;
pub use nodename::NodenameController;
pub use pod_subnet_allocation::{POD_SUBNET_LOCK, PodSubnetAllocationController};
pub use render_configs::RenderConfigsStaticPodController;
pub use render_secrets::RenderSecretsStaticPodController;
pub use root::Root;
pub use static_pod_server::StaticPodServerController;

/// The controllers' access to the world outside the store.
#[derive(Debug, Clone)]
pub struct Edges {
    /// Where the node's files are.
    pub root: Root,
    pub connect: Arc<dyn Connect>,
    /// Routes to pods, and masquerading of their other traffic.
    pub routes: Arc<dyn Router>,
    /// Held while manifests are applied, and while nodes get their pod subnets.
    pub lock: Arc<dyn etcd_edge::ClusterLock>,
    pub fetch: Arc<dyn Fetch>,
}

/// All controllers of this crate, to be registered with the runtime.
#[must_use]
pub fn controllers(edges: &Edges) -> Vec<Box<dyn Controller>> {
    let Edges { root, connect, routes, lock, fetch } = edges.clone();
    let mut all: Vec<Box<dyn Controller>> = vec![
        Box::new(NodenameController),
        Box::new(NodeIpController::default()),
        Box::new(KubeletConfigController),
        Box::new(KubeletSpecController),
        Box::new(KubeletIdentityController::new(root.clone(), Arc::clone(&connect))),
        Box::new(KubeletServiceController::new(root.clone())),
        Box::new(KubeletStaticPodController::new(root.clone(), Arc::clone(&connect))),
        Box::new(StaticPodServerController::default()),
        Box::new(RenderConfigsStaticPodController::new(root.clone())),
        Box::new(RenderSecretsStaticPodController::new(root.clone())),
        Box::new(ControlPlaneStaticPodController::new(Arc::clone(&connect))),
        Box::new(ManifestController),
        Box::new(ExtraManifestController::new(fetch)),
        Box::new(ManifestApplyController::new(Arc::clone(&connect), Arc::clone(&lock))),
        Box::new(EndpointController::new(root.clone(), Arc::clone(&connect))),
        Box::new(StaticEndpointController),
        Box::new(KubePrismEndpointsController),
        Box::new(KubePrismConfigController),
        Box::new(KubePrismController::default()),
        Box::new(PodSubnetAllocationController::new(Arc::clone(&connect), lock)),
        Box::new(NodeApplyController::new(root.clone(), Arc::clone(&connect))),
        Box::new(NodeStatusController::new(root.clone(), Arc::clone(&connect))),
        Box::new(NodeCordonedSpecController),
        Box::new(NativePodNetworkController::new(root, connect, routes)),
        address_filter::controller(),
        node_ip::config_controller(),
        kubernetes_access::controller(),
        node_spec::label_controller(),
        node_spec::taint_controller(),
        static_pod_config::controller(),
    ];
    all.extend(control_plane_config::controllers());
    all
}

#[cfg(test)]
mod tests;
