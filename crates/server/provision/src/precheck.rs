//! Obstacles to creating a cluster, found before anything is changed. The driver reports its own.

use std::path::Path;

use ipnet::Ipv4Net;

use crate::driver::NodeDriver;
use crate::error::Problem;
use crate::exposed;
use crate::host;
use crate::network;
use crate::plan::{DISCOVERY_PORT, KEYS_PORT, Plan, overlap};
use crate::spec::ClusterSpec;
use crate::state::siblings;

/// Default pod and service networks of configurations.
const INNER: [(&str, &str); 2] = [("pods", "10.244.0.0/16"), ("services", "10.96.0.0/12")];

/// All problems together, so that they can be solved together.
pub(crate) fn check(root: &Path, spec: &ClusterSpec, driver: &dyn NodeDriver) -> Vec<Problem> {
    let mut problems = driver.problems(spec);
    check_layouts(spec, &mut problems);
    check_name(root, &spec.plan, &mut problems);
    for network in spec.plan.networks() {
        check_network(root, network.cidr, &mut problems);
    }
    let others = siblings(root).into_iter().filter_map(|(name, state)| Some((name, state?.exposed)));
    problems.extend(exposed::problems(&spec.exposed, &others.collect::<Vec<_>>()));
    let taken = host::wildcard_listeners();
    let keys = spec.kmsd.is_some().then_some((KEYS_PORT, "key"));
    for (port, service) in [(DISCOVERY_PORT, "discovery")].into_iter().chain(keys) {
        if taken.contains(&port) {
            problems.push(Problem::new(
                format!("port {port} of all addresses is taken, the {service} service needs it"),
                format!("stop the process that listens there; `ss -ltnp sport = {port}` shows it"),
            ));
        }
    }
    problems
}

/// Layouts that the cluster's registry could not read.
fn check_layouts(spec: &ClusterSpec, problems: &mut Vec<Problem>) {
    let installer = spec.driver.machines().and_then(|machines| machines.installer.as_ref());
    // The driver reports an installer that does not exist.
    let installer = installer.filter(|layout| layout.exists());
    for (name, layout) in [("bundle", spec.bundle.as_ref()), ("installer", installer)] {
        if let Some(layout) = layout.filter(|layout| !layout.join("index.json").is_file()) {
            let what = format!("{} is not an OCI image layout: it has no index.json", layout.display());
            problems.push(Problem::new(what, format!("build the {name} or name another")));
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machines::MachineSettings;
    use crate::plan::NodeSpec;
    use crate::spec::DriverSettings;

    #[test]
    fn a_bundle_and_an_installer_have_to_be_layouts() {
        let folder = tempfile::tempdir().unwrap();
        let problems = || {
            let installer = Some(folder.path().to_path_buf());
            let machines = MachineSettings { installer: installer.clone(), ..MachineSettings::default() };
            let spec = ClusterSpec {
                plan: Plan::new("one", "10.5.0.0/24", 1500, &NodeSpec { controlplanes: 1, workers: 0 }).unwrap(),
                driver: DriverSettings::Qemu(Box::new(machines)),
                bundle: installer,
                discoveryd: None,
                kmsd: None,
                reachable: vec![],
                exposed: vec![],
            };
            let mut problems = Vec::new();
            check_layouts(&spec, &mut problems);
            problems.into_iter().map(|problem| problem.remedy).collect::<Vec<_>>()
        };
        assert_eq!(problems(), ["build the bundle or name another", "build the installer or name another"]);
        std::fs::write(folder.path().join("index.json"), "{}").unwrap();
        assert_eq!(problems(), [""; 0]);
    }
}
