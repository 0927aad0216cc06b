//! Addresses of the node, by kind and filter.

use std::collections::HashMap;
use std::net::IpAddr;

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use ipnet::IpNet;
use resources::enums::{OperationalState, Scope};
use resources::network::{AddressStatus, LinkStatus, NodeAddress, NodeAddressFilter};

/// The node's default address; kept as long as the node has it.
pub(crate) const DEFAULT_ID: &str = "default";
/// All addresses of links that are up.
pub(crate) const CURRENT_ID: &str = "current";
/// Those that others can send to.
pub(crate) const ROUTED_ID: &str = "routed";
/// All that there ever were since boot.
pub(crate) const ACCUMULATIVE_ID: &str = "accumulative";

/// `AddressStatus`, `LinkStatus`, `NodeAddressFilter` → `NodeAddress`: `default`, `current`, `routed`, `accumulative`,
/// and each of the last three through each filter as `KIND-FILTER`.
///
/// Left out: addresses of links that are down; loopback, link-local and multicast addresses. `routed` also leaves out
/// the addresses of the management tunnel.
#[derive(Debug)]
pub struct NodeAddressController;

#[async_trait]
impl Controller for NodeAddressController {
    fn name(&self) -> &'static str {
        "network.NodeAddressController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![Input::weak::<AddressStatus>(), Input::weak::<LinkStatus>(), Input::weak::<NodeAddressFilter>(), own()]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<NodeAddress>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let up: HashMap<u32, bool> =
            ctx.list::<LinkStatus>()?.iter().map(|link| (link.index, is_up(link.operational_state))).collect();
        let mut current = Vec::new();
        let mut routed = Vec::new();
        for status in ctx.list::<AddressStatus>()? {
            let Some(address) = status.address else { continue };
            if !up.get(&status.link_index).copied().unwrap_or(false) || !is_of_interest(address.addr(), status.scope) {
                continue;
            }
            current.push(address);
            if status.link_name != SIDEROLINK {
                routed.push(address);
            }
        }
        sort(&mut current);
        sort(&mut routed);
        let mut accumulative = list(ctx, ACCUMULATIVE_ID)?;
        accumulative.extend(&current);
        sort(&mut accumulative);

        let default = list(ctx, DEFAULT_ID)?.into_iter().find(|known| routed.contains(known));
        let default = default.or_else(|| choose_default(&routed));
        if let Some(default) = default {
            ctx.put(DEFAULT_ID, NodeAddress { addresses: vec![default] })?;
        }
        let filters = ctx.list::<NodeAddressFilter>()?;
        for (id, addresses) in [(CURRENT_ID, current), (ROUTED_ID, routed), (ACCUMULATIVE_ID, accumulative)] {
            for filter in &filters {
                let filtered = addresses.iter().filter(|net| passes(filter, net.addr())).copied().collect();
                ctx.put(&format!("{id}-{}", filter.id()), NodeAddress { addresses: filtered })?;
            }
            ctx.put(id, NodeAddress { addresses })?;
        }
        ctx.keep_touched::<NodeAddress>()
    }
}

const SIDEROLINK: &str = "siderolink";

/// It reads its own former outputs.
fn own() -> Input {
    Input::weak::<NodeAddress>()
}

fn list(ctx: &Ctx, id: &str) -> Result<Vec<IpNet>, ReconcileError> {
    Ok(ctx.get::<NodeAddress>(id)?.map(|node| node.addresses.clone()).unwrap_or_default())
}

fn is_up(state: OperationalState) -> bool {
    matches!(state, OperationalState::UP | OperationalState::UNKNOWN)
}

fn is_of_interest(address: IpAddr, scope: Scope) -> bool {
    let link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    scope.0 < Scope::LINK.0 && !address.is_loopback() && !address.is_multicast() && !link_local
}

/// IPv4 before IPv6, each in the order of its bytes, none twice.
fn sort(addresses: &mut Vec<IpNet>) {
    addresses.sort_by_key(|net| (net.addr(), net.prefix_len()));
    addresses.dedup();
}

/// The first address of a network of more than one; single addresses are shared or external ones.
fn choose_default(addresses: &[IpNet]) -> Option<IpNet> {
    addresses.iter().find(|net| net.prefix_len() < net.max_prefix_len()).or(addresses.first()).copied()
}

/// In one of the included subnets, where there are any, and in none of the excluded ones.
fn passes(filter: &NodeAddressFilter, address: IpAddr) -> bool {
    let within = |nets: &[IpNet]| nets.iter().any(|net| net.contains(&address));
    (filter.include_subnets.is_empty() || within(&filter.include_subnets)) && !within(&filter.exclude_subnets)
}

#[cfg(test)]
mod tests {
    use controller::testing::Harness;

    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn put_link(harness: &Harness, name: &str, index: u32, state: OperationalState) {
        harness.put(name, LinkStatus { index, operational_state: state, ..Default::default() });
    }

    fn put_address(harness: &Harness, link: &str, link_index: u32, address: &str) {
        let status =
            AddressStatus { address: Some(net(address)), link_index, link_name: link.into(), ..Default::default() };
        harness.put(&format!("{link}/{address}"), status);
    }

    fn addresses(harness: &Harness, id: &str) -> Vec<String> {
        let node = harness.get::<NodeAddress>(id).unwrap_or_else(|| panic!("no {id}"));
        node.addresses.iter().map(ToString::to_string).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn loopback_link_local_and_links_that_are_down_do_not_count() {
        let harness = Harness::with(NodeAddressController);
        put_link(&harness, "lo", 1, OperationalState::UNKNOWN);
        put_link(&harness, "eth0", 2, OperationalState::UP);
        put_link(&harness, "eth1", 3, OperationalState::DOWN);
        put_address(&harness, "lo", 1, "127.0.0.1/8");
        put_address(&harness, "eth0", 2, "10.5.0.2/24");
        put_address(&harness, "eth0", 2, "fe80::1/64");
        put_address(&harness, "eth0", 2, "fd00::2/64");
        put_address(&harness, "eth1", 3, "10.6.0.2/24");
        harness.settle().await;
        for id in ["current", "routed", "accumulative"] {
            assert_eq!(addresses(&harness, id), ["10.5.0.2/24", "fd00::2/64"], "{id}");
        }
        assert_eq!(addresses(&harness, "default"), ["10.5.0.2/24"]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_default_stays_while_it_can_and_accumulative_never_forgets() {
        let harness = Harness::with(NodeAddressController);
        put_link(&harness, "eth0", 2, OperationalState::UP);
        put_address(&harness, "eth0", 2, "10.5.0.9/24");
        harness.settle().await;
        put_address(&harness, "eth0", 2, "10.5.0.2/24");
        put_address(&harness, "eth0", 2, "10.5.0.1/32");
        harness.settle().await;
        assert_eq!(addresses(&harness, "default"), ["10.5.0.9/24"]);
        harness.destroy::<AddressStatus>("eth0/10.5.0.9/24");
        harness.settle().await;
        assert_eq!(addresses(&harness, "default"), ["10.5.0.2/24"]);
        assert_eq!(addresses(&harness, "current"), ["10.5.0.1/32", "10.5.0.2/24"]);
        assert_eq!(addresses(&harness, "accumulative"), ["10.5.0.1/32", "10.5.0.2/24", "10.5.0.9/24"]);
    }

    #[tokio::test(start_paused = true)]
    async fn each_filter_makes_its_own_lists() {
        let harness = Harness::with(NodeAddressController);
        put_link(&harness, "eth0", 2, OperationalState::UP);
        put_address(&harness, "eth0", 2, "10.5.0.2/24");
        put_address(&harness, "eth0", 2, "10.244.0.1/24");
        let pods = vec![net("10.244.0.0/16")];
        harness.put("k8s", NodeAddressFilter { exclude_subnets: pods.clone(), ..Default::default() });
        harness.put("only-k8s", NodeAddressFilter { include_subnets: pods, ..Default::default() });
        harness.settle().await;
        assert_eq!(addresses(&harness, "routed-k8s"), ["10.5.0.2/24"]);
        assert_eq!(addresses(&harness, "current-only-k8s"), ["10.244.0.1/24"]);
        assert_eq!(addresses(&harness, "current").len(), 2);
        harness.destroy::<NodeAddressFilter>("k8s");
        harness.settle().await;
        assert_eq!(harness.get::<NodeAddress>("routed-k8s"), None);
    }
}
