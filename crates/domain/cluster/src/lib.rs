//! Controllers that know who belongs to the cluster: the identity of this node, what it tells the others, what they
//! tell, and the members that follow.
//!
//! One registry so far, the discovery service; the Kubernetes registry does not exist yet.

mod affiliate_merge;
mod config_status;
mod discovery_service;
mod endpoint;
mod info;
mod kubespan_config;
mod local_affiliate;
mod member;
mod node_identity;

use std::path::PathBuf;

use controller::Controller;

pub use affiliate_merge::AffiliateMergeController;
pub use config_status::ConfigController;
pub use discovery_service::DiscoveryServiceController;
pub use endpoint::EndpointController;
pub use info::InfoController;
pub use local_affiliate::LocalAffiliateController;
pub use member::MemberController;
pub use node_identity::{NodeIdentityController, new_node_id};

/// Where things are on a node.
#[derive(Debug, Clone)]
pub struct Paths {
    /// Certificate authorities that a discovery service's certificate may come from, PEM.
    pub ca_bundle: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        Self { ca_bundle: "/etc/ssl/certs/ca-certificates.crt".into() }
    }
}

/// All controllers of this crate, to be registered.
pub fn controllers(paths: &Paths) -> Vec<Box<dyn Controller>> {
    vec![
        Box::new(NodeIdentityController),
        Box::new(ConfigController::default()),
        Box::new(InfoController),
        Box::new(LocalAffiliateController),
        Box::new(DiscoveryServiceController::new(paths.ca_bundle.clone())),
        Box::new(AffiliateMergeController),
        Box::new(MemberController),
        Box::new(EndpointController),
        kubespan_config::controller(),
    ]
}

#[cfg(test)]
mod tests {
    use controller::testing::Harness;
    use resources::MachineType;
    use resources::cluster::{Identity, Member};
    use resources::config::MachineConfig;
    use resources::k8s::{Endpoint, Nodename};
    use resources::network::{HostnameStatus, NodeAddress};
    use resources::runtime::MountStatus;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn together_they_make_this_node_a_member_and_an_endpoint() {
        let state = tempfile::tempdir().unwrap();
        let harness = Harness::new();
        for controller in controllers(&Paths::default()) {
            harness.runtime.register_boxed(controller).unwrap();
        }
        harness.runtime.start();
        let text = "version: v1alpha1\nmachine:\n  type: controlplane\ncluster:\n  id: abc\n  discovery:\n    \
                    enabled: true\n    registries:\n      service:\n        disabled: true\n";
        harness.put(MachineConfig::ACTIVE_ID, MachineConfig::new(text));
        harness.put(MachineType::ID, MachineType::ControlPlane);
        let target = state.path().display().to_string();
        harness.put(MountStatus::STATE, MountStatus { target, ..MountStatus::default() });
        harness.put("hostname", HostnameStatus { hostname: "cp-1".into(), ..Default::default() });
        harness.put("nodename", Nodename { nodename: "cp-1".into(), ..Default::default() });
        harness.put("routed-no-k8s", NodeAddress { addresses: vec!["10.5.0.2/24".parse().unwrap()] });
        harness.settle().await;
        let member = harness.get::<Member>("cp-1").unwrap();
        assert_eq!(member.node_id, harness.get::<Identity>("local").unwrap().node_id);
        assert_eq!(harness.get::<Endpoint>("discovery").unwrap().addresses, member.addresses);
    }
}
