//! The networks of a cluster on the host: bridges with the gateways' addresses, address translation outwards, and a firewall
//! that keeps nodes and everybody else apart. Names follow from the cluster's name, so that all of it can be found again.

mod firewall;
mod forwarding;
pub(crate) mod host_firewall;

use std::path::Path;

use crate::command::{IP, NFT};
use crate::error::{HostError, Operation as _};
use crate::plan::{Network, Plan, bridges, is_bridge, is_link_of, table_name};
use crate::spec::ClusterSpec;

use self::firewall::Serves;
use self::forwarding::Forwarding;

/// Families of the tables that clusters have, and had: `ip` was that of an older program.
const FAMILIES: [&str; 2] = ["inet", "ip"];

/// Makes the bridges, lets the host forward, and sets the cluster's rules.
pub(crate) fn create(spec: &ClusterSpec) -> Result<(), HostError> {
    let Plan { bridge, mtu, table, .. } = &spec.plan;
    let serves = if spec.driver.machines().is_some() { Serves::Addresses } else { Serves::Nothing };
    // The rules first: no packet passes a bridge without them.
    let rules = firewall::rules(&spec.plan, serves, &spec.reachable, &spec.exposed);
    NFT.run_with_input(["-f", "-"], &rules).operation(|| format!("making nftables table {table}"))?;
    for Network { bridge, gateway, cidr, .. } in spec.plan.networks() {
        let prefix = cidr.prefix_len();
        let commands = format!(
            "link add name {bridge} mtu {mtu} type bridge forward_delay 0 stp_state 0\n\
             address add {gateway}/{prefix} dev {bridge}\n\
             link set {bridge} up\n"
        );
        IP.run_with_input(["-batch", "-"], &commands).operation(|| format!("making bridge {bridge}"))?;
    }
    Forwarding::of_host().allow()?;
    if !spec.exposed.is_empty() {
        // For packets of this host's own programs, from its loopback address. Nodes gain nothing by it: of what they send to
        // this host, the rules accept only what is listed there.
        let switch = Path::new("/proc/sys/net/ipv4/conf").join(bridge).join("route_localnet");
        std::fs::write(&switch, "1").map_err(HostError::io("writing", &switch))?;
    }
    for Network { number, bridge, .. } in spec.plan.networks() {
        host_firewall::make_room(&bridge, number == 0 && !spec.exposed.is_empty())?;
    }
    Ok(())
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
    host_firewall::remove_room(&bridges(name), errors);
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

/// Links of the host that carry the cluster's names.
pub(crate) fn links(name: &str) -> Vec<String> {
    let bridges = bridges(name);
    let mut links = host_links();
    links.retain(|link| bridges.contains(link) || is_link_of(name, link));
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
