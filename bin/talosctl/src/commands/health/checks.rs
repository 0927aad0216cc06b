//! The checks of `health --server=false`: in order, each with its own deadline, each wait with its reason.

use std::collections::BTreeSet;
use std::future::Future;
use std::net::IpAddr;
use std::time::Duration;

use client::Client;
use kube_edge::{KubeApi as _, Node, NodesByRole, RealKube};
use serde_json::Value;
use wire::machine::{EtcdMembers, ServiceList};

use crate::command_error::CommandError;
use crate::session::Session;

/// Poll interval.
const INTERVAL: Duration = Duration::from_secs(1);
/// Deadline of most checks.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// Deadline for nodes to become ready.
const READY_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// The checks' connections and nodes.
pub(super) struct Cluster {
    pub(super) client: Client,
    /// The node that is asked about the others.
    pub(super) node: String,
    /// From the command line; empty: discovered.
    pub(super) control_planes: Vec<String>,
    pub(super) workers: Vec<String>,
    pub(super) k8s_endpoint: Option<String>,
}

/// Reason that a check does not hold yet.
type Unmet = String;

pub(super) async fn run(mut cluster: Cluster, session: &Session) -> Result<(), CommandError> {
    if cluster.control_planes.is_empty() && cluster.workers.is_empty() {
        let found = wait(session, "control plane nodes to be known", CHECK_TIMEOUT, || discover(&cluster)).await?;
        (cluster.control_planes, cluster.workers) = found;
    }
    let nodes = format!("control plane {:?}, workers {:?}", cluster.control_planes, cluster.workers);
    session.out.note(format!("discovered nodes: {nodes}"));
    wait(session, "etcd to be healthy", CHECK_TIMEOUT, || service(&cluster, "etcd", &cluster.control_planes)).await?;
    wait(session, "etcd members to be the same on all nodes", CHECK_TIMEOUT, || etcd_members(&cluster)).await?;
    for id in ["apid", "kubelet"] {
        let all: Vec<String> = cluster.control_planes.iter().chain(&cluster.workers).cloned().collect();
        wait(session, &format!("{id} to be healthy"), CHECK_TIMEOUT, || service(&cluster, id, &all)).await?;
    }
    let kube = wait(session, "Kubernetes to answer", CHECK_TIMEOUT, || kubernetes(&cluster)).await?;
    wait(session, "all Kubernetes nodes to be ready", READY_TIMEOUT, || ready(&cluster, &kube)).await
}

/// Polls a check; prints its condition once, and again whenever the reason changes.
async fn wait<T, F: Future<Output = Result<T, Unmet>>>(
    session: &Session,
    what: &str,
    timeout: Duration,
    mut check: impl FnMut() -> F,
) -> Result<T, CommandError> {
    let mut last = String::from("no answer yet");
    session.out.note(format!("waiting for {what}: ..."));
    let held = tokio::time::timeout(timeout, async {
        loop {
            match check().await {
                Ok(value) => return value,
                Err(unmet) if unmet == last => {}
                Err(unmet) => {
                    session.out.note(format!("waiting for {what}: {unmet}"));
                    last = unmet;
                }
            }
            tokio::time::sleep(INTERVAL).await;
        }
    });
    match held.await {
        Ok(value) => {
            session.out.note(format!("waiting for {what}: OK"));
            Ok(value)
        }
        Err(_) => Err(CommandError::failed(format!(
            "waiting for {what} took longer than {}: {last}",
            stdx::duration::format(timeout)
        ))),
    }
}

fn unmet(error: impl std::error::Error) -> Unmet {
    stdx::error_chain(&error)
}

/// Control planes and workers, by the first address of each: the members that discovery knows, else the nodes of Kubernetes.
async fn discover(cluster: &Cluster) -> Result<(Vec<String>, Vec<String>), Unmet> {
    let state = cluster.client.to_node(&cluster.node).state();
    let members = state.list("cluster", "Members.cluster.talos.dev").await.map_err(unmet)?;
    let members = by_type(members.iter().map(|member| &member.spec));
    or_of_kubernetes(members, async { kubernetes(cluster).await?.nodes().await.map_err(unmet) }).await
}

/// The members if there is a control plane among them, else the nodes of Kubernetes, by their roles.
async fn or_of_kubernetes(
    members: (Vec<String>, Vec<String>),
    nodes: impl Future<Output = Result<Vec<Node>, Unmet>>,
) -> Result<(Vec<String>, Vec<String>), Unmet> {
    if !members.0.is_empty() {
        return Ok(members);
    }
    let failed = |why: Unmet| format!("discovery knows none; Kubernetes: {why}");
    let nodes = NodesByRole::of(&nodes.await.map_err(failed)?);
    if nodes.control_planes.is_empty() {
        return Err(failed("no control plane node".to_owned()));
    }
    let texts = |addresses: Vec<IpAddr>| addresses.iter().map(ToString::to_string).collect();
    Ok((texts(nodes.control_planes), texts(nodes.workers)))
}

fn by_type<'a>(members: impl Iterator<Item = &'a Value>) -> (Vec<String>, Vec<String>) {
    let (mut control_planes, mut workers) = (Vec::new(), Vec::new());
    for member in members {
        let address = member["addresses"].get(0).and_then(Value::as_str);
        let Some(address) = address else { continue };
        match member["machineType"].as_str() {
            Some("controlplane" | "init") => control_planes.push(address.to_owned()),
            _ => workers.push(address.to_owned()),
        }
    }
    (control_planes, workers)
}

/// Whether a service is running and healthy on all these nodes.
async fn service(cluster: &Cluster, id: &str, nodes: &[String]) -> Result<(), Unmet> {
    for node in nodes {
        let replies = cluster.client.to_nodes([node.as_str()]).services().await.map_err(unmet)?;
        for reply in replies {
            let list = reply.result.map_err(|error| format!("{node}: {error}"))?;
            service_state(&list, id).map_err(|reason| format!("{node}: {reason}"))?;
        }
    }
    Ok(())
}

fn service_state(list: &ServiceList, id: &str) -> Result<(), Unmet> {
    let service = list.services.iter().find(|service| service.id == id);
    let service = service.ok_or_else(|| format!("there is no service {id}"))?;
    if service.state != "Running" {
        return Err(format!("service {id} is {}", service.state));
    }
    match &service.health {
        Some(health) if health.healthy || health.unknown => Ok(()),
        Some(health) => Err(format!("service {id} is not healthy: {}", health.last_message)),
        None => Ok(()),
    }
}

/// Whether each control plane reports the same members, one per control plane and no learner.
async fn etcd_members(cluster: &Cluster) -> Result<(), Unmet> {
    let mut known: Option<BTreeSet<u64>> = None;
    for node in &cluster.control_planes {
        let replies = cluster.client.to_nodes([node.as_str()]).etcd_members(true).await.map_err(unmet)?;
        for reply in replies {
            let members = reply.result.map_err(|error| format!("{node}: {error}"))?;
            let ids =
                member_ids(&members, cluster.control_planes.len()).map_err(|reason| format!("{node}: {reason}"))?;
            if known.replace(ids.clone()).is_some_and(|before| before != ids) {
                return Err(format!("{node} knows other members than the nodes before it"));
            }
        }
    }
    Ok(())
}

fn member_ids(members: &EtcdMembers, expected: usize) -> Result<BTreeSet<u64>, Unmet> {
    if let Some(learner) = members.members.iter().find(|member| member.is_learner) {
        return Err(format!("etcd member {} is still a learner", learner.hostname));
    }
    if members.members.len() != expected {
        return Err(format!("{} etcd members, {expected} control plane nodes", members.members.len()));
    }
    Ok(members.members.iter().map(|member| member.id).collect())
}

async fn kubernetes(cluster: &Cluster) -> Result<RealKube, Unmet> {
    let node = cluster.control_planes.first().unwrap_or(&cluster.node);
    let mut text = cluster.client.to_nodes([node.as_str()]).kubeconfig().await.map_err(unmet)?;
    if let Some(endpoint) = &cluster.k8s_endpoint {
        text = with_server(&text, endpoint)?;
    }
    let kube = RealKube::from_kubeconfig(&text).await.map_err(unmet)?;
    kube.version().await.map_err(unmet)?;
    Ok(kube)
}

/// The kubeconfig with the API server's address replaced.
fn with_server(text: &str, endpoint: &str) -> Result<String, Unmet> {
    let mut tree: Value = yaml::from_str(text).map_err(unmet)?;
    let server = if endpoint.contains("://") { endpoint.to_owned() } else { format!("https://{endpoint}:6443") };
    for entry in tree["clusters"].as_array_mut().into_iter().flatten() {
        entry["cluster"]["server"] = Value::String(server.clone());
    }
    yaml::to_string(&tree).map_err(unmet)
}

/// Whether each node is registered in Kubernetes, and all of these are ready.
async fn ready(cluster: &Cluster, kube: &RealKube) -> Result<(), Unmet> {
    let nodes = kube.nodes().await.map_err(unmet)?;
    let addresses: BTreeSet<IpAddr> = nodes.iter().flat_map(|node| node.ips("InternalIP")).collect();
    let missing = cluster.control_planes.iter().chain(&cluster.workers).find(|node| {
        // Nodes given by name cannot be compared with addresses.
        node.parse::<IpAddr>().is_ok_and(|address| !addresses.contains(&address))
    });
    if let Some(missing) = missing {
        return Err(format!("{missing} is not registered in Kubernetes yet"));
    }
    match nodes.iter().find(|node| !node.ready) {
        Some(node) => Err(format!("node {} is not ready", node.name)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use wire::machine::{EtcdMember, ServiceHealth, ServiceInfo};

    use super::*;

    #[test]
    fn members_are_sorted_by_type_and_those_without_address_left_out() {
        let members = [
            json!({"machineType": "controlplane", "addresses": ["10.5.0.2", "fd00::2"]}),
            json!({"machineType": "worker", "addresses": ["10.5.0.3"]}),
            json!({"machineType": "worker", "addresses": []}),
        ];
        let expected = (vec!["10.5.0.2".to_owned()], vec!["10.5.0.3".to_owned()]);
        assert_eq!(by_type(members.iter()), expected);
    }

    /// Without discovery this waited for members until its deadline.
    #[tokio::test]
    async fn nodes_are_taken_from_kubernetes_where_discovery_knows_no_control_plane() {
        let node = |address: &str, is_control_plane: bool| {
            let label = (kube_edge::CONTROL_PLANE_LABEL.to_owned(), String::new());
            Node {
                addresses: vec![kube_edge::NodeAddress { kind: "InternalIP".into(), address: address.into() }],
                labels: is_control_plane.then_some(label).into_iter().collect(),
                ..Node::default()
            }
        };
        let texts = |addresses: &[&str]| addresses.iter().map(ToString::to_string).collect::<Vec<_>>();
        let worker = (Vec::new(), texts(&["10.5.0.3"]));
        let all = async { Ok(vec![node("10.5.0.2", true), node("10.5.0.3", false)]) };
        let expected = (texts(&["10.5.0.2"]), texts(&["10.5.0.3"]));
        assert_eq!(or_of_kubernetes(worker.clone(), all).await, Ok(expected.clone()));
        let why = or_of_kubernetes(worker.clone(), async { Ok(vec![node("10.5.0.3", false)]) }).await;
        assert_eq!(why, Err("discovery knows none; Kubernetes: no control plane node".to_owned()));
        let why = or_of_kubernetes(worker, async { Err("refused".to_owned()) }).await;
        assert_eq!(why, Err("discovery knows none; Kubernetes: refused".to_owned()));
        assert_eq!(or_of_kubernetes(expected.clone(), async { Err("not asked".to_owned()) }).await, Ok(expected));
    }

    #[test]
    fn a_service_must_run_and_be_healthy() {
        let health = |healthy| Some(ServiceHealth { healthy, last_message: "refused".into(), ..Default::default() });
        let of = |state: &str, health| {
            let service = ServiceInfo { id: "etcd".into(), state: state.into(), health, ..Default::default() };
            service_state(&ServiceList { services: vec![service], metadata: None }, "etcd")
        };
        assert_eq!(of("Running", health(true)), Ok(()));
        assert_eq!(of("Running", health(false)), Err("service etcd is not healthy: refused".to_owned()));
        assert_eq!(of("Waiting", health(true)), Err("service etcd is Waiting".to_owned()));
        assert_eq!(service_state(&ServiceList::default(), "etcd"), Err("there is no service etcd".to_owned()));
    }

    #[test]
    fn etcd_needs_one_voting_member_for_each_control_plane() {
        let of = |learners: &[bool]| {
            let members = learners.iter().enumerate().map(|(at, learner)| EtcdMember {
                id: at as u64,
                hostname: format!("m{at}"),
                is_learner: *learner,
                ..Default::default()
            });
            member_ids(&EtcdMembers { members: members.collect(), ..Default::default() }, 2)
        };
        assert_eq!(of(&[false, false]), Ok(BTreeSet::from([0, 1])));
        assert_eq!(of(&[false]), Err("1 etcd members, 2 control plane nodes".to_owned()));
        assert_eq!(of(&[false, true]), Err("etcd member m1 is still a learner".to_owned()));
    }

    #[test]
    fn the_endpoint_can_be_replaced() {
        let text = "clusters:\n- name: a\n  cluster: {server: https://x:6443}\n";
        let replaced = with_server(text, "10.5.0.2").unwrap();
        let tree: Value = yaml::from_str(&replaced).unwrap();
        assert_eq!(tree["clusters"][0]["cluster"]["server"], "https://10.5.0.2:6443");
    }
}
