//! `cluster show`: what a local cluster consists of.

use std::path::Path;

use provision::{Cluster, Limits, NodeReport, State};

use crate::command_error::CommandError;
use crate::output::table::Table;
use crate::session::Session;

pub(crate) fn run(name: &str, root: &Path, session: &Session) -> Result<(), CommandError> {
    let shown = Cluster::show(root, name).map_err(|error| {
        CommandError::failed("showing the cluster")
            .caused_by(error)
            .hint(format!("clusters are in {}; --state and --name choose another", root.display()))
    });
    let (state, nodes) = shown?;
    session.out.line(text(&state, &nodes))?;
    if provision::agent::status(root, name).is_none() {
        session.out.warning(format!(
            "the cluster agent is not running: nodes can neither pull images nor find new nodes; \
             `talosctl cluster agent --detach --name {name}` starts it"
        ));
    }
    for node in nodes.iter().filter(|node| node.status != "running") {
        session.out.warning(format!("node {} is {}", node.name, node.status));
    }
    Ok(())
}

/// The tables of a cluster and its nodes.
pub(super) fn text(state: &State, nodes: &[NodeReport]) -> String {
    let plan = &state.plan;
    let mut cluster = Table::default();
    cluster.row(["PROVISIONER", "runc"]);
    cluster.row(["NAME", &plan.name]);
    cluster.row(["NETWORK NAME", &plan.bridge]);
    cluster.row(["NETWORK CIDR", &plan.cidr.to_string()]);
    cluster.row(["NETWORK GATEWAY", &plan.gateway.to_string()]);
    cluster.row(["NETWORK MTU", &plan.mtu.to_string()]);
    cluster.row(["KUBERNETES ENDPOINT", state.kubernetes_endpoint.as_deref().unwrap_or("-")]);
    let mut table = Table::new(["NAME", "TYPE", "IP", "CPU", "RAM", "DISK"]);
    for node in nodes {
        let limits = state.limits.get(&node.role).copied().unwrap_or_default();
        table.row([&node.name, node.role.as_str(), &node.address.to_string(), &cpus(limits), &memory(limits), "-"]);
    }
    format!("{}\n\nNODES:\n\n{}", cluster.take(), table.take())
}

fn cpus(limits: Limits) -> String {
    let text = |milli: u64| format!("{}.{:02}", milli / 1000, milli % 1000 / 10);
    limits.milli_cpus.map_or_else(|| "-".to_owned(), text)
}

fn memory(limits: Limits) -> String {
    limits.memory.map_or_else(|| "-".to_owned(), |bytes| format!("{} MiB", bytes >> 20))
}
