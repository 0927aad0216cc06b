//! `k8s.AddressFilterController`: which of the node's addresses belong to pods and Services.

use config::v1alpha1::Config;
use controller::Controller;
use ipnet::IpNet;
use resources::network::NodeAddressFilter;

use controller::Projection;

/// Addresses that are not of Kubernetes.
const NO_K8S: &str = "no-k8s";
/// Addresses of pods and Services.
const ONLY_K8S: &str = "k8s";

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

#[cfg(test)]
mod tests {
    use super::*;
    use config::Documents;

    #[test]
    fn pods_and_services_are_kept_apart_from_the_rest() {
        let documents = Documents::from_yaml(b"version: v1alpha1\nmachine:\n  type: worker\n").unwrap();
        let filters = filters(documents.v1alpha1().unwrap());
        let ids: Vec<_> = filters.iter().map(|(id, _)| id.as_str()).collect();
        assert_eq!(ids, ["no-k8s", "k8s"]);
        let subnets = ["10.244.0.0/16", "10.96.0.0/12"].map(|text| text.parse::<IpNet>().unwrap());
        assert_eq!(filters[0].1.exclude_subnets, subnets);
        assert_eq!(filters[1].1.include_subnets, subnets);
    }
}
