//! The host's own firewall: a packet that it drops stays dropped, whatever a cluster's table accepts.
//!
//! Docker's has a chain for rules of others, where room is made for the cluster. Of any other the operator is told, with the
//! commands that let nodes through: which rule of his may go is not ours to decide.

use serde_json::Value;

use crate::command::{IPTABLES, NFT};
use crate::error::{HostError, Operation as _};
use crate::plan::Plan;

/// Docker evaluates it before its own rules, and leaves it alone.
const DOCKER_CHAIN: &str = "DOCKER-USER";

/// A base chain with policy drop.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Dropping {
    hook: &'static str,
    family: String,
    table: String,
    chain: String,
}

/// Lets packets of the bridge through where Docker's firewall drops them, and those to exposed ports.
pub(super) fn make_room(bridge: &str, exposed: bool) -> Result<(), HostError> {
    if !docker_drops() {
        return Ok(());
    }
    let answers = ["-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED"];
    let translated = ["-m", "conntrack", "--ctstate", "DNAT"];
    let rules = [("-i", [].as_slice()), ("-o", &answers), ("-o", &translated)];
    for (side, more) in &rules[..if exposed { 3 } else { 2 }] {
        let mut arguments = vec!["--wait", "-I", DOCKER_CHAIN, side, bridge];
        arguments.extend(*more);
        arguments.extend(["-j", "ACCEPT"]);
        IPTABLES.run(arguments).operation(|| format!("letting nodes through {DOCKER_CHAIN}"))?;
    }
    Ok(())
}

/// Reverts [`make_room`] for bridges.
pub(super) fn remove_room(bridges: &[String], errors: &mut Vec<HostError>) {
    if !iptables_in_use() {
        return;
    }
    let Ok(chain) = IPTABLES.run(["--wait", "-S", DOCKER_CHAIN]) else { return };
    for arguments in bridges.iter().flat_map(|bridge| room_of(&chain, bridge)) {
        let removed = IPTABLES.run(std::iter::once("--wait".to_owned()).chain(arguments));
        errors.extend(removed.operation(|| format!("removing rules of {DOCKER_CHAIN}")).err());
    }
}

/// The commands that delete the rules of a bridge from a chain as `iptables -S` shows it.
fn room_of(chain: &str, bridge: &str) -> Vec<Vec<String>> {
    let rules = chain.lines().filter_map(|line| line.strip_prefix("-A "));
    let ours = rules.filter(|rule| rule.split(' ').any(|word| word == bridge));
    ours.map(|rule| std::iter::once("-D".to_owned()).chain(rule.split(' ').map(str::to_owned)).collect()).collect()
}

/// Notes about the host's firewall, one sentence each.
pub(crate) fn notices(plan: &Plan) -> Vec<String> {
    let bridge = &plan.bridge;
    let rules = NFT.run(["-j", "list", "ruleset"]).unwrap_or_default();
    let docker = docker_drops();
    let mut notices = Vec::new();
    if docker {
        notices
            .push(format!("Docker's firewall drops forwarded packets; {DOCKER_CHAIN} lets those of {bridge} through"));
    }
    for Dropping { hook, family, table, chain } in dropping(&rules) {
        if docker && hook == "forward" && table == "filter" && chain == "FORWARD" {
            continue;
        }
        let place = format!("{family} {table} {chain}");
        notices.push(match hook {
            "input" => format!(
                "this machine's firewall drops packets to itself (nftables {place}): nodes may not reach the registry and \
                 the discovery service; `nft insert rule {place} iifname {bridge} accept` lets them (the cluster's own \
                 rules still apply)"
            ),
            _ => format!(
                "this machine's firewall drops forwarded packets (nftables {place}): nodes may not reach other hosts; \
                 `nft insert rule {place} iifname {bridge} accept` and `nft insert rule {place} oifname {bridge} ct state \
                 established,related accept` let them"
            ),
        });
    }
    notices
}

/// Whether packets that no rule accepts are dropped by a firewall that has Docker's chain in it.
fn docker_drops() -> bool {
    iptables_in_use()
        && IPTABLES
            .run(["--wait", "-S", "FORWARD"])
            .is_ok_and(|rules| rules.lines().any(|line| line == "-P FORWARD DROP"))
        && IPTABLES.run(["--wait", "-S", DOCKER_CHAIN]).is_ok()
}

/// Whether the filter table is in use. Querying with `iptables` would create one.
fn iptables_in_use() -> bool {
    let legacy = || std::fs::read_to_string("/proc/net/ip_tables_names").is_ok_and(|names| names.contains("filter"));
    IPTABLES.find().is_some() && (NFT.run(["list", "table", "ip", "filter"]).is_ok() || legacy())
}

/// The base chains of others, of IPv4 or of both, that drop by their policy or by their last rule.
fn dropping(ruleset: &str) -> Vec<Dropping> {
    let parsed: Value = serde_json::from_str(ruleset).unwrap_or_default();
    let objects: Vec<&Value> = parsed["nftables"].as_array().into_iter().flatten().collect();
    let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let chains = objects.iter().map(|object| &object["chain"]).filter_map(|chain| {
        let hook = ["input", "forward"].into_iter().find(|hook| chain["hook"] == *hook)?;
        let family = text(chain, "family");
        let (table, name) = (text(chain, "table"), text(chain, "name"));
        let ours = table.starts_with("talos");
        let dropping = chain["policy"] == "drop" || last_rule_drops(&objects, &family, &table, &name);
        let found = dropping && !ours && chain["type"] == "filter" && (family == "ip" || family == "inet");
        found.then_some(Dropping { hook, family, table, chain: name })
    });
    chains.collect()
}

fn last_rule_drops(objects: &[&Value], family: &str, table: &str, chain: &str) -> bool {
    let rules = objects.iter().map(|object| &object["rule"]);
    let mut of_chain =
        rules.filter(|rule| rule["family"] == family && rule["table"] == table && rule["chain"] == chain);
    let Some(expressions) = of_chain.next_back().and_then(|rule| rule["expr"].as_array()) else { return false };
    let is = |expression: &Value, kinds: &[&str]| kinds.iter().any(|kind| expression.get(kind).is_some());
    expressions.iter().all(|expression| is(expression, &["counter", "log", "drop", "reject"]))
        && expressions.iter().any(|expression| is(expression, &["drop", "reject"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ruleset(text: &str) -> Vec<String> {
        let found = dropping(text);
        found.into_iter().map(|d| format!("{} {} {} {}", d.hook, d.family, d.table, d.chain)).collect()
    }

    #[test]
    fn a_policy_or_a_last_rule_that_drops_is_found_and_what_is_ours_is_not() {
        let chain = |family: &str, table: &str, name: &str, hook: &str, policy: &str| {
            format!(
                r#"{{"chain":{{"family":"{family}","table":"{table}","name":"{name}","type":"filter","hook":"{hook}","prio":0,"policy":"{policy}"}}}}"#
            )
        };
        let rule = |table: &str, chain: &str, expr: &str| {
            format!(r#"{{"rule":{{"family":"inet","table":"{table}","chain":"{chain}","expr":[{expr}]}}}}"#)
        };
        let objects = [
            r#"{"metainfo":{"version":"1.0.6"}}"#.to_owned(),
            chain("ip", "filter", "FORWARD", "forward", "drop"),
            chain("ip", "filter", "INPUT", "input", "accept"),
            chain("ip6", "filter", "FORWARD", "forward", "drop"),
            chain("inet", "firewalld", "filter_FORWARD", "forward", "accept"),
            rule("firewalld", "filter_FORWARD", r#"{"match":{}},{"accept":null}"#),
            rule("firewalld", "filter_FORWARD", r#"{"counter":{}},{"reject":{"type":"icmpx"}}"#),
            chain("inet", "open", "forward", "forward", "accept"),
            rule("open", "forward", r#"{"match":{}},{"drop":null}"#),
            chain("inet", "talos_one", "forward", "forward", "accept"),
            rule("talos_one", "forward", r#"{"drop":null}"#),
            chain("inet", "host", "input", "input", "drop"),
        ];
        let text = format!(r#"{{"nftables":[{}]}}"#, objects.join(","));
        let wanted = ["forward ip filter FORWARD", "forward inet firewalld filter_FORWARD", "input inet host input"];
        assert_eq!(ruleset(&text), wanted);
        assert!(ruleset("").is_empty() && ruleset("{}").is_empty());
    }

    #[test]
    fn room_is_taken_back_for_one_bridge_alone() {
        let chain = "-N DOCKER-USER\n-A DOCKER-USER -i talos00000001 -j ACCEPT\n\
                     -A DOCKER-USER -o talos00000001 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
                     -A DOCKER-USER -i talos00000002 -j ACCEPT\n-A DOCKER-USER -j RETURN\n";
        let commands: Vec<String> = room_of(chain, "talos00000001").iter().map(|words| words.join(" ")).collect();
        let wanted = [
            "-D DOCKER-USER -i talos00000001 -j ACCEPT",
            "-D DOCKER-USER -o talos00000001 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        ];
        assert_eq!(commands, wanted);
    }
}
