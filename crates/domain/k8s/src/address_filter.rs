//! `k8s.AddressFilterController`: which of the node's addresses belong to pods and Services.

use config::v1alpha1::Config;
use controller::Controller;
use ipnet::IpNet;
use resources::network::NodeAddressFilter;

use crate::machine_config::Projection;

/// Addresses that are not of Kubernetes.
const NO_K8S: &str = "no-k8s";
/// Addresses of pods and Services.
const ONLY_K8S: &str = "only-k8s";

pub(crate) fn controller() -> Box<dyn Controller> {
    Projection::shared("k8s.AddressFilterController", filters)
}

fn filters(config: &Config) -> Vec<(String, NodeAddressFilter)> {
    let cluster = config.cluster();
    let subnets: Vec<IpNet> = cluster.pod_cidrs().into_iter().chain(cluster.service_cidrs()).collect();
    vec![
        (NO_K8S.to_owned(), NodeAddressFilter { exclude_subnets: subnets.clone(), ..NodeAddressFilter::default() }),
        (ONLY_K8S.to_owned(), NodeAddressFilter { include_subnets: subnets, ..NodeAddressFilter::default() }),
    ]
}
