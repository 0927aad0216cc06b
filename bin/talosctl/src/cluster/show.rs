//! `cluster show`: the parts of a local cluster.

use std::path::Path;

use provision::agent::{self, Agent, Guard};
use provision::{Cluster, Ended, Limits, Network, NodeReport, NodeStatus, Phase, ProvisionError, State};

use crate::command_error::CommandError;
use crate::output::table::Table;
use crate::session::Session;

pub(crate) async fn run(name: &str, root: &Path, session: &Session) -> Result<(), CommandError> {
    let shown = Cluster::show(root, name).await.map_err(|error| {
        let hint = match &error {
            ProvisionError::NewerState { .. } => "use the talosctl that made the cluster".to_owned(),
            _ => format!("clusters are in {}; --state and --name choose another", root.display()),
        };
        CommandError::failed("showing the cluster").caused_by(error).hint(hint)
    });
    let (state, nodes) = shown?;
    session.out.line(text(&state, &nodes))?;
    let warning = match state.phase {
        Phase::Destroying => Some(format!(
            "the cluster is being destroyed, or was until somebody stopped that; \
             `talosctl cluster destroy --name {name}` removes what is left"
        )),
        Phase::Creating | Phase::Created => agent_warning(name, agent::status(root, name), agent::guarded(root, name)),
    };
    if let Some(warning) = warning {
        session.out.warning(warning);
    }
    nodes.iter().filter_map(|node| node_warning(name, node)).for_each(|warning| session.out.warning(warning));
    Ok(())
}

/// A note about the cluster's agent: none while it serves.
fn agent_warning(name: &str, agent: Option<Agent>, guard: Option<Guard>) -> Option<String> {
    const WITHOUT: &str = "nodes can neither pull images nor find new nodes";
    match (agent, guard) {
        (Some(_), _) => None,
        (None, Some(Guard { log, .. })) => Some(format!(
            "the cluster agent ended and is being started again; until then {WITHOUT}; {} says why it ended",
            log.display()
        )),
        (None, None) => Some(format!(
            "the cluster agent is not running: {WITHOUT}; `talosctl cluster agent --detach --name {name}` starts it"
        )),
    }
}

/// A note about a node: none while it runs.
fn node_warning(cluster: &str, node: &NodeReport) -> Option<String> {
    let NodeReport { name, status, .. } = node;
    match status {
        NodeStatus::Running { .. } => None,
        NodeStatus::Ended(Ended::PoweredOff) => Some(format!(
            "node {name} is powered off and stays so; `talosctl cluster power-on --name {cluster} {name}` starts it"
        )),
        NodeStatus::Ended(_) => Some(format!("node {name} is {status}; the cluster agent powers it on again")),
        NodeStatus::Absent => Some(format!("node {name} is absent")),
    }
}

/// The tables of a cluster and its nodes.
pub(super) fn text(state: &State, nodes: &[NodeReport]) -> String {
    let plan = &state.plan;
    let mut cluster = Table::default();
    cluster.row(["PROVISIONER", state.driver.as_str()]);
    cluster.row(["NAME", &plan.name]);
    cluster.row(["NETWORK NAME", &plan.bridge]);
    let networks = plan.networks();
    let list = |part: fn(&Network) -> String| networks.iter().map(part).collect::<Vec<_>>().join(",");
    cluster.row(["NETWORK CIDR", &list(|network| network.cidr.to_string())]);
    cluster.row(["NETWORK GATEWAY", &list(|network| network.gateway.to_string())]);
    cluster.row(["NETWORK MTU", &plan.mtu.to_string()]);
    cluster.row(["KUBERNETES ENDPOINT", state.kubernetes_endpoint.as_deref().unwrap_or("-")]);
    let mut table = Table::new(["NAME", "TYPE", "IP", "CPU", "RAM", "DISK"]);
    for node in nodes {
        let (address, cpus, memory) = (node.address.to_string(), cpus(node.limits), size(node.limits.memory));
        table.row([&node.name, node.role.as_str(), &address, &cpus, &memory, &size(node.disk)]);
    }
    format!("{}\n\nNODES:\n\n{}", cluster.take(), table.take())
}

fn cpus(limits: Limits) -> String {
    let text = |milli: u64| format!("{}.{:02}", milli / 1000, milli % 1000 / 10);
    limits.milli_cpus.map_or_else(|| "-".to_owned(), text)
}

fn size(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "-".to_owned(), |bytes| format!("{} MiB", bytes >> 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_that_does_not_serve_is_warned_of_with_what_happens_next() {
        let agent = Agent { pid: 2, registry_port: 5000 };
        let guard = || Some(Guard { pid: 3, log: "/clusters/one/logs/agent.log".into() });
        assert_eq!(agent_warning("one", Some(agent), guard()), None);
        assert_eq!(agent_warning("one", Some(agent), None), None, "a guard is missing for a moment only");
        let returns = agent_warning("one", None, guard()).unwrap();
        assert!(returns.contains("started again") && returns.contains("/clusters/one/logs/agent.log"), "{returns}");
        let gone = agent_warning("one", None, None).unwrap();
        assert!(gone.contains("`talosctl cluster agent --detach --name one` starts it"), "{gone}");
    }

    #[test]
    fn a_node_that_is_off_is_warned_of_with_how_to_start_it() {
        let report = |status| NodeReport {
            name: "one-worker-1".to_owned(),
            role: provision::Role::Worker,
            address: [10, 5, 0, 3].into(),
            status,
            limits: Limits::default(),
            disk: None,
        };
        assert_eq!(node_warning("one", &report(NodeStatus::Running { pid: 7 })), None);
        let off = node_warning("one", &report(NodeStatus::Ended(Ended::PoweredOff))).unwrap();
        assert!(off.contains("`talosctl cluster power-on --name one one-worker-1` starts it"), "{off}");
        let crashed = Ended::Crashed(provision::Exit::Signal(9));
        let crashed = node_warning("one", &report(NodeStatus::Ended(crashed))).unwrap();
        assert!(crashed.contains("is crashed (signal 9); the cluster agent powers it on again"), "{crashed}");
    }
}
