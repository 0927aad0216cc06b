//! The network of a cluster on the host: a bridge with the gateway's address, address translation outwards, and a firewall
//! that keeps nodes and everybody else apart. Names follow from the cluster's name, so that all of it can be found again.

mod firewall;
mod forwarding;
pub(crate) mod host_firewall;

use std::path::Path;

use crate::command::{IP, NFT};
use crate::error::{HostError, Operation as _};
use crate::plan::{BRIDGE_PREFIX, Plan, bridge_name, link_prefix, table_name};
use crate::spec::ClusterSpec;

use self::firewall::Serves;
use self::forwarding::Forwarding;

/// Families of the tables that clusters have, and had: `ip` was that of an older program.
const FAMILIES: [&str; 2] = ["inet", "ip"];

/// Makes the bridge, lets the host forward, and sets the cluster's rules.
pub(crate) fn create(spec: &ClusterSpec) -> Result<(), HostError> {
    let Plan { bridge, gateway, cidr, mtu, table, .. } = &spec.plan;
    let prefix = cidr.prefix_len();
    let serves = if spec.driver.machines().is_some() { Serves::Addresses } else { Serves::Nothing };
    // The rules first: no packet passes the bridge without them.
    let rules = firewall::rules(&spec.plan, serves, &spec.reachable, &spec.exposed);
    NFT.run_with_input(["-f", "-"], &rules).operation(|| format!("making nftables table {table}"))?;
    let commands = format!(
        "link add name {bridge} mtu {mtu} type bridge forward_delay 0 stp_state 0\n\
         address add {gateway}/{prefix} dev {bridge}\n\
         link set {bridge} up\n"
    );
    IP.run_with_input(["-batch", "-"], &commands).operation(|| format!("making bridge {bridge}"))?;
    Forwarding::of_host().allow()?;
    if !spec.exposed.is_empty() {
        // For packets of this host's own programs, from its loopback address. Nodes gain nothing by it: of what they send to
        // this host, the rules accept only what is listed there.
        let switch = Path::new("/proc/sys/net/ipv4/conf").join(bridge).join("route_localnet");
        std::fs::write(&switch, "1").map_err(HostError::io("writing", &switch))?;
    }
    host_firewall::make_room(bridge, !spec.exposed.is_empty())
}

/// Lets nodes reach a TCP port of the gateway. One that is open already stays so.
pub(crate) fn open_port(plan: &Plan, port: u16) -> Result<(), HostError> {
    let command = firewall::open_port(plan, port);
    NFT.run_with_input(["-f", "-"], &command).map(drop).operation(|| format!("opening port {port} to nodes"))
}

/// Removes a link, if it exists.
pub(crate) fn remove_link(link: &str, errors: &mut Vec<HostError>) {
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

/// Removes the results of [`create`], and all links of nodes, by the cluster's name alone.
pub(crate) fn remove(name: &str, errors: &mut Vec<HostError>) {
    links(name).iter().for_each(|link| remove_link(link, errors));
    host_firewall::remove_room(&bridge_name(name), errors);
    let table = table_name(name);
    for family in FAMILIES {
        if NFT.run(["list", "table", family, &table]).is_ok() {
            let removed = NFT.run(["delete", "table", family, &table]);
            errors.extend(removed.operation(|| format!("removing nftables table {family} {table}")).err());
        }
    }
    // Clusters whose state is elsewhere count too.
    if !any_bridge() {
        errors.extend(Forwarding::of_host().restore().err());
    }
}

/// Whether the host has a bridge of any cluster.
fn any_bridge() -> bool {
    host_links().iter().any(|link| is_bridge(link))
}

/// Whether a link has the name of a cluster's bridge.
fn is_bridge(link: &str) -> bool {
    link.strip_prefix(BRIDGE_PREFIX).is_some_and(|tag| tag.len() == 8 && tag.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Links of the host that carry the cluster's names.
pub(crate) fn links(name: &str) -> Vec<String> {
    let (bridge, prefix) = (bridge_name(name), link_prefix(name));
    let mut links = host_links();
    links.retain(|link| *link == bridge || link.starts_with(&prefix));
    links
}

/// Whether the host has rules of the cluster.
pub(crate) fn has_table(name: &str) -> bool {
    let table = table_name(name);
    FAMILIES.iter().any(|family| NFT.run(["list", "table", family, &table]).is_ok())
}

fn host_links() -> Vec<String> {
    let entries = std::fs::read_dir("/sys/class/net").into_iter().flatten().filter_map(Result::ok);
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}
