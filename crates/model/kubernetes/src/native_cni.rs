//! The node's side of the native pod network: a bridge whose addresses come from the node's own pod subnets.
//!
//! Traffic between nodes needs routes to the other nodes' pod subnets; those are kept by a controller, not here.

use ipnet::IpNet;
use serde_json::{Value, json};

/// The bridge of a node's pods.
pub const BRIDGE: &str = "cni0";
/// File name in the CNI configuration directory; sorts before the default names of network add-ons.
pub const FILE_NAME: &str = "10-native.conflist";
const NETWORK: &str = "native";
/// Leases do not outlive a boot, as pods do not.
const LEASES_DIR: &str = "/run/cni/ipam";

/// The network configuration list, or nothing while the node has no pod subnet. An MTU of 0 is left to the kernel.
#[must_use]
pub fn conflist(pod_cidrs: &[IpNet], mtu: u32) -> Option<Value> {
    if pod_cidrs.is_empty() {
        return None;
    }
    let ranges: Vec<Value> = pod_cidrs.iter().map(|cidr| json!([{ "subnet": cidr.trunc().to_string() }])).collect();
    let mut routes = Vec::new();
    if pod_cidrs.iter().any(|cidr| matches!(cidr, IpNet::V4(_))) {
        routes.push(json!({ "dst": "0.0.0.0/0" }));
    }
    if pod_cidrs.iter().any(|cidr| matches!(cidr, IpNet::V6(_))) {
        routes.push(json!({ "dst": "::/0" }));
    }
    let mut bridge = json!({
        "type": "bridge",
        "bridge": BRIDGE,
        "isGateway": true,
        // A node that registers under another name, or anew, gets other subnets. Without this its bridge keeps the former
        // address, and no pod can be started.
        "forceAddress": true,
        "ipMasq": false,
        "hairpinMode": true,
        "ipam": { "type": "host-local", "dataDir": LEASES_DIR, "ranges": ranges, "routes": routes },
    });
    if mtu > 0 {
        bridge["mtu"] = json!(mtu);
    }
    Some(json!({
        "cniVersion": "0.4.0",
        "name": NETWORK,
        "plugins": [bridge, { "type": "portmap", "capabilities": { "portMappings": true }, "snat": true }],
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn node_without_a_pod_subnet_has_no_network_yet() {
        assert_eq!(conflist(&[], 1500), None);
    }

    #[test]
    fn both_families_get_a_range_and_a_default_route() {
        let list = conflist(&nets(&["10.244.1.0/24", "fc00:db8:10:1::/64"]), 1450).unwrap();
        let bridge = &list["plugins"][0];
        assert_eq!(bridge["mtu"], 1450);
        assert_eq!((&bridge["isGateway"], &bridge["forceAddress"]), (&json!(true), &json!(true)));
        assert_eq!(bridge["ipMasq"], false);
        assert_eq!(
            bridge["ipam"]["ranges"],
            json!([[{ "subnet": "10.244.1.0/24" }], [{ "subnet": "fc00:db8:10:1::/64" }]])
        );
        assert_eq!(bridge["ipam"]["routes"], json!([{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }]));
        assert_eq!(list["plugins"][1]["type"], "portmap");
    }

    #[test]
    fn unknown_mtu_is_left_out() {
        let list = conflist(&nets(&["10.244.1.7/24"]), 0).unwrap();
        assert_eq!(list["plugins"][0].get("mtu"), None);
        assert_eq!(list["plugins"][0]["ipam"]["ranges"][0][0]["subnet"], "10.244.1.0/24");
    }
}
