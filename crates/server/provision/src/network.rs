//! The network of a cluster on the host: a bridge with the gateway's address, a namespace and a veth pair for each node,
//! address translation outwards.

use std::fs::File;
use std::path::Path;

use crate::command::{IP, NFT, NSENTER, UNSHARE};
use crate::error::{Operation as _, ProvisionError};
use crate::host::Forwarding;
use crate::mounts;
use crate::plan::{BRIDGE_PREFIX, Plan, PlannedNode, bridge_name, link_prefix, table_name};
use crate::state::{Folder, make_folder};

/// Makes the bridge, lets the host forward, and translates addresses of packets that leave the cluster's network.
pub(crate) fn create(plan: &Plan) -> Result<(), ProvisionError> {
    let Plan { bridge, gateway, cidr, mtu, .. } = plan;
    let prefix = cidr.prefix_len();
    let commands = format!(
        "link add name {bridge} mtu {mtu} type bridge forward_delay 0 stp_state 0\n\
         address add {gateway}/{prefix} dev {bridge}\n\
         link set {bridge} up\n"
    );
    IP.run_with_input(["-batch", "-"], &commands).operation(|| format!("making bridge {bridge}"))?;
    Forwarding::of_host().allow()?;
    NFT.run_with_input(["-f", "-"], &rules(plan)).operation(|| format!("translating addresses of {cidr}"))?;
    Ok(())
}

fn rules(plan: &Plan) -> String {
    let Plan { table, cidr, bridge, .. } = plan;
    format!(
        "table ip {table} {{\n\
         \tchain postrouting {{\n\
         \t\ttype nat hook postrouting priority 100; policy accept;\n\
         \t\tip saddr {cidr} ip daddr != {cidr} oifname != \"{bridge}\" masquerade\n\
         \t}}\n\
         }}\n"
    )
}

/// Makes a node's network namespace with `eth0` in it, connected to the bridge.
pub(crate) fn attach(plan: &Plan, node: &PlannedNode, folder: &Folder) -> Result<(), ProvisionError> {
    let namespace = folder.namespace(&node.name);
    if let Some(parent) = namespace.parent() {
        make_folder(parent)?;
    }
    File::create(&namespace).map_err(ProvisionError::io("making", &namespace))?;
    let operation = || format!("connecting node {}", node.name);
    let path = namespace.to_string_lossy();
    UNSHARE.run([format!("--net={path}").as_str(), "ip", "link", "set", "lo", "up"]).operation(operation)?;
    let (link, mtu, bridge) = (&node.link, plan.mtu, &plan.bridge);
    let outside = format!(
        "link add name {link} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {path}\n\
         link set {link} master {bridge} up\n"
    );
    IP.run_with_input(["-batch", "-"], &outside).operation(operation)?;
    let (address, prefix, gateway) = (node.address, plan.cidr.prefix_len(), plan.gateway);
    let inside = format!(
        "address add {address}/{prefix} dev eth0\n\
         link set eth0 up\n\
         route add default via {gateway}\n"
    );
    let enter = format!("--net={path}");
    NSENTER.run_with_input([enter.as_str(), "ip", "-batch", "-"], &inside).operation(operation)?;
    Ok(())
}

/// Takes a node's network namespace and its connection to the bridge away, so that [`attach`] can make new ones.
pub(crate) fn detach(node: &PlannedNode, folder: &Folder) -> Result<(), ProvisionError> {
    let mut errors = Vec::new();
    mounts::unmount_below(&folder.namespace(&node.name), &mut errors);
    remove_link(&node.link, &mut errors);
    errors.into_iter().next().map_or(Ok(()), Err)
}

fn remove_link(link: &str, errors: &mut Vec<ProvisionError>) {
    let there = || Path::new("/sys/class/net").join(link).exists();
    if !there() {
        return;
    }
    let removed = IP.run(["link", "delete", link]).operation(|| format!("removing link {link}"));
    // A veth pair ends with its namespace, which the kernel clears away in its own time.
    if let Err(error) = removed
        && there()
    {
        errors.push(error);
    }
}

/// Removes what [`create`] and [`attach`] made on the host, by the cluster's name alone.
pub(crate) fn remove(name: &str, errors: &mut Vec<ProvisionError>) {
    links(name).iter().for_each(|link| remove_link(link, errors));
    let table = table_name(name);
    if NFT.run(["list", "table", "ip", &table]).is_ok() {
        let removed = NFT.run(["delete", "table", "ip", &table]);
        if let Err(error) = removed.operation(|| format!("removing nftables table {table}")) {
            errors.push(error);
        }
    }
    // Clusters whose state is elsewhere count too.
    if !any_bridge() {
        errors.extend(Forwarding::of_host().restore().err());
    }
}

/// Whether the host has a bridge of any cluster.
fn any_bridge() -> bool {
    let of_cluster = |link: &str| {
        link.strip_prefix(BRIDGE_PREFIX).is_some_and(|tag| tag.len() == 8 && tag.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    let entries = std::fs::read_dir("/sys/class/net").into_iter().flatten().filter_map(Result::ok);
    entries.filter_map(|entry| entry.file_name().into_string().ok()).any(|link| of_cluster(&link))
}

/// Links of the host that carry the cluster's names.
pub(crate) fn links(name: &str) -> Vec<String> {
    let (bridge, prefix) = (bridge_name(name), link_prefix(name));
    let Ok(entries) = std::fs::read_dir("/sys/class/net") else { return Vec::new() };
    entries
        .filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|link| *link == bridge || link.starts_with(&prefix))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::NodeSpec;

    #[test]
    fn only_packets_that_leave_the_network_are_translated() {
        let plan = Plan::new("a-b", "10.6.0.0/24", 1500, &NodeSpec { controlplanes: 1, workers: 0 }).unwrap();
        let rules = rules(&plan);
        assert!(rules.starts_with("table ip talos_a_b {"), "{rules}");
        let rule = format!("ip saddr 10.6.0.0/24 ip daddr != 10.6.0.0/24 oifname != \"{}\" masquerade", plan.bridge);
        assert!(rules.contains(&rule), "{rules}");
    }
}
