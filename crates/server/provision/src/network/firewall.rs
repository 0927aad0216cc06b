//! The rules of a cluster, as text for `nft`. Pure.
//!
//! Nodes reach each other, other hosts (by the host's address), and of this host what is meant for them: the agent's registry
//! and discovery server, a resolver on the gateway, and what the operator named. Nobody reaches nodes through this host, but
//! for answers and by exposed ports; the host itself does. In side networks, nodes reach each other and nobody else. A packet that another table drops stays dropped, see [`super::host_firewall`].

use std::fmt::Write as _;
use std::net::SocketAddrV4;

use crate::boot::time;
use crate::exposed::ExposedPort;
use crate::plan::{DISCOVERY_PORT, Network, Plan};

/// What the host gives nodes before they have an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Serves {
    Nothing,
    /// By DHCP, files to boot from by TFTP, and the time.
    Addresses,
}

/// The table of a cluster.
pub(super) fn rules(plan: &Plan, serves: Serves, reachable: &[SocketAddrV4], exposed: &[ExposedPort]) -> String {
    let Plan { table, cidr, bridge, gateway, .. } = plan;
    let mut listeners = format!("{gateway} . {DISCOVERY_PORT}");
    for listener in reachable {
        // Writing to a string cannot fail.
        let _ = write!(listeners, ", {} . {}", listener.ip(), listener.port());
    }
    let (translations, accepted, loopback) = exposures(plan, exposed);
    let Sides { chain: side_chain, input: side_input, forward: side_forward } = sides(plan, serves);
    let (requests, time) = match serves {
        Serves::Nothing => (String::new(), String::new()),
        Serves::Addresses => served(plan),
    };
    format!(
        r#"table inet {table} {{
	set reachable {{
		type ipv4_addr . inet_service
		elements = {{ {listeners} }}
	}}
	chain from_nodes {{
		ct state established,related accept
{requests}		ip saddr != {cidr} drop
		meta l4proto {{ tcp, udp }} ip daddr . th dport @reachable accept
		ip daddr {gateway} meta l4proto {{ tcp, udp }} th dport 53 accept
		ip daddr {gateway} icmp type echo-request accept
		meta nfproto ipv4 reject with icmp type admin-prohibited
		drop
	}}
{side_chain}	chain input {{
		type filter hook input priority filter; policy accept;
		iifname "{bridge}" jump from_nodes
{side_input}	}}
	chain forward {{
		type filter hook forward priority filter; policy accept;
{side_forward}		iifname "{bridge}" oifname "{bridge}" accept
		iifname "{bridge}" ip saddr {cidr} accept
		iifname "{bridge}" drop
		oifname "{bridge}" ct state established,related accept
{accepted}		oifname "{bridge}" drop
	}}
	chain postrouting {{
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr {cidr} ip daddr != {cidr} oifname != "{bridge}" masquerade
{loopback}	}}
{time}{translations}}}
"#
    )
}

/// The rules of side networks: a chain for what their nodes send to this host, and lines of the base chains.
#[derive(Debug, Default)]
struct Sides {
    chain: String,
    input: String,
    forward: String,
}

fn sides(plan: &Plan, serves: Serves) -> Sides {
    let mut sides = Sides::default();
    if plan.side_networks.is_empty() {
        return sides;
    }
    let requests = match serves {
        Serves::Nothing => "",
        Serves::Addresses => "\t\tudp sport 68 udp dport 67 accept\n",
    };
    sides.chain = format!(
        "\tchain from_sides {{\n\t\tct state established,related accept\n{requests}\t\ticmp type echo-request accept\n\t\tdrop\n\t}}\n"
    );
    for Network { bridge, .. } in &plan.side_networks {
        // Writing to a string cannot fail.
        let _ = writeln!(sides.input, "\t\tiifname \"{bridge}\" jump from_sides");
        let _ = writeln!(
            sides.forward,
            "\t\tiifname \"{bridge}\" oifname \"{bridge}\" accept\n\t\tiifname \"{bridge}\" drop\n\t\toifname \"{bridge}\" drop"
        );
    }
    sides
}

/// What a machine may ask of its gateway, and the chain that leads questions for the time to the agent: the usual port may be
/// that of a time server of the host, which need not answer machines.
fn served(plan: &Plan) -> (String, String) {
    let Plan { cidr, bridge, gateway, .. } = plan;
    let port = time::PORT;
    let accepted = format!(
        "\t\tudp sport 68 udp dport 67 accept\n\t\tip saddr {cidr} ip daddr {gateway} udp dport {{ 69, {port} }} accept\n"
    );
    let chain = format!(
        "\tchain time_server {{\n\t\ttype nat hook prerouting priority dstnat; policy accept;\n\
         \t\tiifname \"{bridge}\" ip daddr {gateway} udp dport {usual} redirect to :{port}\n\t}}\n",
        usual = time::USUAL_PORT
    );
    (accepted, chain)
}

/// The rules of exposed ports: chains that translate, what is forwarded for them, and the source of this host's own packets.
fn exposures(plan: &Plan, exposed: &[ExposedPort]) -> (String, String, String) {
    let Some(node) = plan.first_control_plane().filter(|_| !exposed.is_empty()) else { return Default::default() };
    let Plan { cidr, bridge, .. } = plan;
    let (mut translating, mut accepted) = (String::new(), String::new());
    for ExposedPort { host, host_port, node_port, transport } in exposed {
        let at = if host.is_unspecified() { String::new() } else { format!("ip daddr {host} ") };
        let node = node.address;
        // Writing to a string cannot fail.
        let _ = writeln!(
            translating,
            "\t\tip saddr != {cidr} fib daddr type local {at}{transport} dport {host_port} dnat ip to {node}:{node_port}"
        );
        let _ = writeln!(
            accepted,
            "\t\toifname \"{bridge}\" ip daddr {node} {transport} dport {node_port} ct status dnat accept"
        );
    }
    let chain = |hook: &str, priority: &str| {
        format!("\tchain {hook} {{\n\t\ttype nat hook {hook} priority {priority}; policy accept;\n{translating}\t}}\n")
    };
    let chains = chain("prerouting", "dstnat") + &chain("output", "-100");
    (chains, accepted, format!("\t\tip saddr 127.0.0.0/8 oifname \"{bridge}\" masquerade\n"))
}

/// One more listener on the gateway.
pub(super) fn open_port(plan: &Plan, port: u16) -> String {
    format!("add element inet {} reachable {{ {} . {port} }}\n", plan.table, plan.gateway)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::NodeSpec;

    #[test]
    fn the_rules_of_a_cluster_are_about_its_bridge_and_its_network_alone() {
        let plan = Plan::new("a-b", "10.6.0.0/24", 1500, &NodeSpec { controlplanes: 1, workers: 0 }).unwrap();
        let exposed = |text: &str, host: [u8; 4]| ExposedPort::parse(text, host.into()).unwrap();
        let ports = [exposed("8080:80", [0, 0, 0, 0]), exposed("53:5353/udp", [192, 0, 2, 1])];
        let rules = rules(&plan, Serves::Addresses, &["192.0.2.1:5001".parse().unwrap()], &ports);
        assert!(rules.starts_with("table inet talos_a_b {"), "{rules}");
        assert!(rules.contains("elements = { 10.6.0.1 . 3000, 192.0.2.1 . 5001 }"), "{rules}");
        assert!(rules.contains("udp sport 68 udp dport 67 accept"), "{rules}");
        assert!(rules.contains("ip daddr 10.6.0.1 udp dport 123 redirect to :3123"), "{rules}");
        assert!(rules.contains("ip daddr 10.6.0.1 udp dport { 69, 3123 } accept"), "{rules}");
        // Receivers of logs may be UDP servers.
        assert!(rules.contains("meta l4proto { tcp, udp } ip daddr . th dport @reachable accept"), "{rules}");
        // Every rule of a base chain names the bridge or the network: packets of others pass.
        let chains = rules.split("chain ").skip(1).filter(|chain| chain.contains("hook"));
        for rule in chains.flat_map(str::lines).filter(|line| line.starts_with("\t\t") && !line.contains("hook")) {
            assert!(rule.contains(&plan.bridge) || rule.contains("10.6.0.0/24"), "{rule}");
        }
        let translated = "fib daddr type local ip daddr 192.0.2.1 udp dport 53 dnat ip to 10.6.0.2:5353";
        assert_eq!(rules.matches(translated).count(), 2, "{rules}");
        assert!(rules.contains("fib daddr type local tcp dport 8080 dnat ip to 10.6.0.2:80"), "{rules}");
        let mut wide = plan.clone();
        wide.add_network("10.7.0.0/24").unwrap();
        let side = wide.side_networks[0].bridge.clone();
        let wide = super::rules(&wide, Serves::Addresses, &[], &[]);
        let lines = ["iifname \"SIDE\" oifname \"SIDE\" accept", "iifname \"SIDE\" drop", "oifname \"SIDE\" drop"];
        let positions = lines.map(|line| wide.find(&line.replace("SIDE", &side)).unwrap());
        let own = wide.find(&format!("iifname \"{}\" ip saddr 10.6.0.0/24 accept", plan.bridge)).unwrap();
        assert!(
            positions.is_sorted() && positions[2] < own,
            "what nodes send to a side network is not forwarded: {wide}"
        );
        assert!(wide.contains(&format!("iifname \"{side}\" jump from_sides")), "{wide}");
        let containers = super::rules(&plan, Serves::Nothing, &[], &[]);
        assert!(!containers.contains("123") && !containers.contains("udp dport 67"), "{containers}");
        assert_eq!(open_port(&plan, 5000), "add element inet talos_a_b reachable { 10.6.0.1 . 5000 }\n");
    }
}
