//! `k8s.NodeIPConfigController` and `k8s.NodeIPController`: which addresses the kubelet announces.

use std::net::IpAddr;

use async_trait::async_trait;
use config::v1alpha1::Config;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use ipnet::IpNet;
use resources::k8s::{NodeIp, NodeIpConfig};
use resources::network::NodeAddress;
use resources::subnets::{SubnetError, SubnetFilter};

use controller::Projection;

/// Addresses that others reach the node at.
const ROUTED: &str = "routed";

pub(crate) fn config_controller() -> Box<dyn Controller> {
    Projection::boxed("k8s.NodeIPConfigController", node_ip_config)
}

fn node_ip_config(config: &Config) -> Vec<(String, NodeIpConfig)> {
    let cluster = config.cluster();
    let configured = config.machine().kubelet.as_ref().and_then(|kubelet| kubelet.node_ip.as_ref());
    let mut valid = configured.map(|node_ip| node_ip.valid_subnets.clone()).unwrap_or_default();
    let (pods, services) = (cluster.pod_cidrs(), cluster.service_cidrs());
    if valid.is_empty() {
        let families = || pods.iter().chain(&services);
        if families().any(|net| matches!(net, IpNet::V4(_))) {
            valid.push("0.0.0.0/0".to_owned());
        }
        if families().any(|net| matches!(net, IpNet::V6(_))) {
            valid.push("::/0".to_owned());
        }
    }
    let exclude = pods.iter().chain(&services).map(ToString::to_string).collect();
    vec![(NodeIpConfig::ID.to_owned(), NodeIpConfig { valid_subnets: valid, exclude_subnets: exclude })]
}

/// Chooses at most one address of each family.
#[derive(Debug, Default)]
pub struct NodeIpController {
    /// It was reported that none of these addresses fits.
    reported: Vec<IpNet>,
}

#[async_trait]
impl Controller for NodeIpController {
    fn name(&self) -> &'static str {
        "k8s.NodeIPController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![Input::weak::<NodeIpConfig>().id(NodeIpConfig::ID), Input::weak::<NodeAddress>().id(ROUTED)]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<NodeIp>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let (Some(config), Some(addresses)) =
            (ctx.get::<NodeIpConfig>(NodeIpConfig::ID)?, ctx.get::<NodeAddress>(ROUTED)?)
        else {
            return ctx.keep_touched::<NodeIp>();
        };
        let chosen = choose(&addresses.addresses, &config.valid_subnets, &config.exclude_subnets)?;
        if chosen.is_empty() {
            self.report(&addresses.addresses, &config);
            // The former choice stays: a briefly missing address must not restart the kubelet.
            return Ok(());
        }
        self.reported.clear();
        ctx.put(NodeIp::ID, NodeIp { addresses: chosen })?;
        Ok(())
    }
}

impl NodeIpController {
    /// Reports once for each set of addresses; a node that has none yet is about to get one.
    fn report(&mut self, addresses: &[IpNet], config: &NodeIpConfig) {
        if addresses.is_empty() || self.reported == addresses {
            return;
        }
        let has: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        let NodeIpConfig { valid_subnets, exclude_subnets } = config;
        tracing::warn!(
            addresses = has.join(", "),
            valid_subnets = valid_subnets.join(", "),
            exclude_subnets = exclude_subnets.join(", "),
            "no address of the node is in the valid subnets: the kubelet has none to announce"
        );
        self.reported = addresses.to_vec();
    }
}

/// The first address of each family that the networks accept.
fn choose(addresses: &[IpNet], valid: &[String], exclude: &[String]) -> Result<Vec<IpAddr>, SubnetError> {
    let filter = SubnetFilter::parse(valid, exclude)?;
    let fitting: Vec<IpAddr> = addresses.iter().map(IpNet::addr).filter(|ip| filter.accepts(*ip)).collect();
    let first = |of_family: fn(&IpAddr) -> bool| fitting.iter().copied().find(of_family);
    Ok([first(IpAddr::is_ipv4), first(IpAddr::is_ipv6)].into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    fn chosen(addresses: &[&str], valid: &[&str], exclude: &[&str]) -> Vec<String> {
        let ips = choose(&nets(addresses), &texts(valid), &texts(exclude)).unwrap();
        ips.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn first_of_each_family_is_chosen_and_pod_addresses_are_not() {
        let addresses = ["10.244.0.1/24", "10.5.0.2/24", "192.168.1.1/24", "fd00::2/64"];
        assert_eq!(chosen(&addresses, &["0.0.0.0/0"], &["10.244.0.0/16"]), ["10.5.0.2"]);
        assert_eq!(chosen(&addresses, &["0.0.0.0/0", "::/0"], &["10.244.0.0/16"]), ["10.5.0.2", "fd00::2"]);
        assert_eq!(chosen(&addresses, &["192.168.0.0/16"], &[]), ["192.168.1.1"]);
        assert_eq!(chosen(&addresses, &["0.0.0.0/0", "!10.0.0.0/8"], &[]), ["192.168.1.1"]);
        assert_eq!(chosen(&addresses, &["172.16.0.0/12"], &[]), Vec::<String>::new());
    }

    #[test]
    fn what_is_no_subnet_is_refused() {
        let error = choose(&[], &texts(&["nonsense"]), &[]).unwrap_err();
        assert_eq!(error.text, "nonsense");
    }
}
