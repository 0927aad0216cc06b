//! Obstacles to creating a cluster, found before anything is changed. The driver reports its own.

use std::path::Path;

use ipnet::Ipv4Net;

use crate::driver::NodeDriver;
use crate::error::Problem;
use crate::exposed;
use crate::host;
use crate::network;
use crate::plan::{DISCOVERY_PORT, Plan, overlap};
use crate::spec::ClusterSpec;
use crate::state::siblings;

/// Default pod and service networks of configurations.
const INNER: [(&str, &str); 2] = [("pods", "10.244.0.0/16"), ("services", "10.96.0.0/12")];

/// All problems together, so that they can be solved together.
pub(crate) fn check(root: &Path, spec: &ClusterSpec, driver: &dyn NodeDriver) -> Vec<Problem> {
    let mut problems = driver.problems(spec);
    if let Some(bundle) = &spec.bundle
        && !bundle.join("index.json").is_file()
    {
        let what = format!("{} is not an OCI image layout: it has no index.json", bundle.display());
        problems.push(Problem::new(what, "build the bundle or name another"));
    }
    check_name(root, &spec.plan, &mut problems);
    for network in spec.plan.networks() {
        check_network(root, network.cidr, &mut problems);
    }
    let others = siblings(root).into_iter().filter_map(|(name, state)| Some((name, state?.exposed)));
    problems.extend(exposed::problems(&spec.exposed, &others.collect::<Vec<_>>()));
    if host::wildcard_listeners().contains(&DISCOVERY_PORT) {
        let what = format!("port {DISCOVERY_PORT} of all addresses is taken, the discovery service needs it");
        problems.push(Problem::new(
            what,
            format!("stop the process that listens there; `ss -ltnp sport = {DISCOVERY_PORT}` shows it"),
        ));
    }
    problems
}

fn check_name(root: &Path, plan: &Plan, problems: &mut Vec<Problem>) {
    let name = &plan.name;
    if root.join(name).exists() {
        let what = format!("a cluster {name} exists in {}", root.display());
        problems
            .push(Problem::new(what, format!("choose another --name, or `talosctl cluster destroy --name {name}`")));
        return;
    }
    if let Some(link) = network::links(name).first() {
        let what = format!("the link {link} of a cluster {name} exists, but its state is not in {}", root.display());
        problems.push(Problem::new(
            what,
            format!("choose another --name, or `talosctl cluster destroy --force --name {name}`"),
        ));
    }
}

fn check_network(root: &Path, cidr: Ipv4Net, problems: &mut Vec<Problem>) {
    for (what, inner) in INNER {
        if inner.parse().is_ok_and(|inner| overlap(cidr, inner)) {
            let what = format!("network {cidr} overlaps {inner} of the cluster's {what}");
            problems.push(Problem::new(what, "choose another --cidr"));
        }
    }
    let mut used = false;
    for (name, state) in siblings(root) {
        let networks = state.map(|state| state.plan.networks()).unwrap_or_default();
        for other in networks.into_iter().map(|network| network.cidr).filter(|other| overlap(cidr, *other)) {
            used = true;
            let what = format!("network {cidr} overlaps {other} of cluster {name}");
            problems.push(Problem::new(what, "choose another --cidr"));
        }
    }
    if used {
        return;
    }
    for (network, link) in host::routes() {
        if overlap(cidr, network) {
            let what = format!("network {cidr} overlaps {network}, which this machine reaches by {link}");
            problems.push(Problem::new(what, "choose another --cidr"));
        }
    }
}
