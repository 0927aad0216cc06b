//! The checks, as functions of a view of the cluster. Each says which node it waits for and why.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use kube_edge::{KubeApi, KubeError, Node, NodesByRole, PodSummary, Workload};
use wire::machine as api;

/// The nodes that should be there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ClusterNodes {
    pub(super) control_planes: Vec<IpAddr>,
    pub(super) workers: Vec<IpAddr>,
}

impl ClusterNodes {
    fn all(&self) -> Vec<IpAddr> {
        self.control_planes.iter().chain(&self.workers).copied().collect()
    }
}

/// A view of a cluster. Errors are for operators.
#[async_trait]
pub(super) trait ClusterView: Send + Sync {
    /// The services of a node.
    async fn services(&self, node: IpAddr) -> Result<Vec<api::ServiceInfo>, String>;
    /// The members of etcd as a node sees them.
    async fn members(&self, node: IpAddr) -> Result<Vec<api::EtcdMember>, String>;
    /// Why a node has not finished its boot, nothing when it has.
    async fn unfinished(&self, node: IpAddr) -> Result<Option<String>, String>;
    /// Kubernetes.
    async fn kubernetes(&self) -> Result<Arc<dyn KubeApi>, String>;
}

/// A check that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CheckOutcome {
    Yes,
    /// Its subject is not part of this cluster.
    NotNeeded,
}

/// A check with its name and its time.
#[derive(Debug)]
pub(super) struct Check {
    pub(super) what: &'static str,
    pub(super) deadline: Duration,
    pub(super) kind: Kind,
}

/// Description of the check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    NodesKnown,
    Etcd,
    EtcdConsistent,
    EtcdOnControlPlanes,
    Apid,
    Kubelet,
    Boot,
    NodesReport,
    StaticPodsRunning,
    StaticPodsReady,
    NodesReady,
    KubeProxy,
    CoreDns,
    Schedulable,
}

const fn check(kind: Kind, what: &'static str, minutes: u64) -> Check {
    Check { what, deadline: Duration::from_secs(minutes * 60), kind }
}

/// Comes first where the nodes are taken from Kubernetes.
pub(super) const NODES_KNOWN: Check = check(Kind::NodesKnown, "control plane nodes of Kubernetes to be known", 5);

/// All checks, in order.
pub(super) const CHECKS: &[Check] = &[
    check(Kind::Etcd, "etcd to be healthy", 5),
    check(Kind::EtcdConsistent, "etcd members to be consistent across nodes", 5),
    check(Kind::EtcdOnControlPlanes, "etcd members to be control plane nodes", 5),
    check(Kind::Apid, "apid to be ready", 5),
    check(Kind::Kubelet, "kubelet to be healthy", 5),
    check(Kind::Boot, "all nodes to finish boot sequence", 5),
    check(Kind::NodesReport, "all k8s nodes to report", 5),
    check(Kind::StaticPodsRunning, "all control plane static pods to be running", 5),
    check(Kind::StaticPodsReady, "all control plane components to be ready", 5),
    check(Kind::NodesReady, "all k8s nodes to report ready", 10),
    check(Kind::KubeProxy, "kube-proxy to report ready", 3),
    check(Kind::CoreDns, "coredns to report ready", 3),
    check(Kind::Schedulable, "all k8s nodes to report schedulable", 5),
];

const SYSTEM: &str = "kube-system";
const STATIC_PODS: [&str; 3] = ["kube-apiserver", "kube-controller-manager", "kube-scheduler"];

impl Kind {
    /// Whether it holds now.
    pub(super) async fn holds(self, view: &dyn ClusterView, nodes: &ClusterNodes) -> Result<CheckOutcome, String> {
        match self {
            Self::NodesKnown => nodes_of_kubernetes(view).await.map(|_| CheckOutcome::Yes),
            Self::Etcd => service(view, "etcd", &nodes.control_planes).await,
            Self::Apid => service(view, "apid", &nodes.all()).await,
            Self::Kubelet => service(view, "kubelet", &nodes.all()).await,
            Self::EtcdConsistent => etcd_consistent(view, nodes).await,
            Self::EtcdOnControlPlanes => etcd_on_control_planes(view, nodes).await,
            Self::Boot => boot(view, nodes).await,
            Self::NodesReport => nodes_report(view, nodes).await,
            Self::StaticPodsRunning => static_pods(view, nodes, |pod| pod.phase == "Running", "running").await,
            Self::StaticPodsReady => static_pods(view, nodes, |pod| pod.ready, "ready").await,
            Self::NodesReady => each_node(view, nodes, |node| node.ready, "not ready").await,
            Self::Schedulable => each_node(view, nodes, |node| !node.unschedulable, "not schedulable").await,
            Self::KubeProxy => workload(view, Workload::DaemonSet, "kube-proxy").await,
            Self::CoreDns => workload(view, Workload::Deployment, "coredns").await,
        }
    }
}

/// One line for each node that has a problem.
fn problems(found: Vec<(IpAddr, String)>) -> Result<CheckOutcome, String> {
    if found.is_empty() {
        return Ok(CheckOutcome::Yes);
    }
    let mut text = String::new();
    for (node, why) in found {
        let separator = if text.is_empty() { "" } else { "; " };
        // Writing to a string cannot fail.
        write!(text, "{separator}{node}: {why}").ok();
    }
    Err(text)
}

async fn service(view: &dyn ClusterView, id: &str, nodes: &[IpAddr]) -> Result<CheckOutcome, String> {
    let answers = join_all(nodes.iter().map(|node| async move { (*node, view.services(*node).await) })).await;
    let problem = |services: Vec<api::ServiceInfo>| {
        let Some(service) = services.into_iter().find(|service| service.id == id) else {
            return Some(format!("there is no service {id}"));
        };
        if service.state != "Running" {
            let event = service.events.and_then(|events| events.events.into_iter().next_back());
            let message = event.map(|event| format!(" ({})", event.msg)).unwrap_or_default();
            return Some(format!("service {id} is {}{message}", service.state));
        }
        let health = service.health.unwrap_or_default();
        let unhealthy = !health.unknown && !health.healthy;
        unhealthy.then(|| format!("service {id} is not healthy: {}", health.last_message))
    };
    let found = answers.into_iter().filter_map(|(node, answer)| {
        let why = answer.map_or_else(Some, problem)?;
        Some((node, why))
    });
    problems(found.collect())
}

async fn etcd_consistent(view: &dyn ClusterView, nodes: &ClusterNodes) -> Result<CheckOutcome, String> {
    let mut first: Option<(IpAddr, BTreeSet<(u64, String)>)> = None;
    for node in &nodes.control_planes {
        let members = view.members(*node).await.map_err(|why| format!("{node}: {why}"))?;
        let members: BTreeSet<_> = members.into_iter().map(|member| (member.id, member.hostname)).collect();
        match &first {
            None => first = Some((*node, members)),
            Some((_, expected)) if *expected == members => {}
            Some((other, expected)) => {
                return Err(format!("{node} sees {} members of etcd, {other} sees {}", members.len(), expected.len()));
            }
        }
    }
    Ok(CheckOutcome::Yes)
}

async fn etcd_on_control_planes(view: &dyn ClusterView, nodes: &ClusterNodes) -> Result<CheckOutcome, String> {
    let Some(node) = nodes.control_planes.first() else { return Ok(CheckOutcome::NotNeeded) };
    let members = view.members(*node).await.map_err(|why| format!("{node}: {why}"))?;
    if members.len() != nodes.control_planes.len() {
        return Err(format!(
            "etcd has {} members for {} control plane nodes",
            members.len(),
            nodes.control_planes.len()
        ));
    }
    let is_at = |url: &String, address: &IpAddr| {
        url.contains(&format!("//{address}:")) || url.contains(&format!("//[{address}]:"))
    };
    let stray = members
        .iter()
        .find(|member| !member.peer_urls.iter().any(|url| nodes.control_planes.iter().any(|a| is_at(url, a))));
    match stray {
        Some(member) => {
            Err(format!("etcd member {} at {} is no control plane node", member.hostname, member.peer_urls.join(", ")))
        }
        None => Ok(CheckOutcome::Yes),
    }
}

async fn boot(view: &dyn ClusterView, nodes: &ClusterNodes) -> Result<CheckOutcome, String> {
    let all = nodes.all();
    let answers = join_all(all.iter().map(|node| async move { (*node, view.unfinished(*node).await) })).await;
    let found = answers.into_iter().filter_map(|(node, answer)| Some((node, answer.unwrap_or_else(Some)?)));
    problems(found.collect())
}

fn kube_error(error: &KubeError) -> String {
    format!("Kubernetes: {}", stdx::error_chain(error))
}

async fn kube_nodes(view: &dyn ClusterView) -> Result<Vec<Node>, String> {
    view.kubernetes().await?.nodes().await.map_err(|error| kube_error(&error))
}

/// The nodes that Kubernetes has, by their internal addresses.
pub(super) async fn nodes_of_kubernetes(view: &dyn ClusterView) -> Result<ClusterNodes, String> {
    let NodesByRole { control_planes, workers } = NodesByRole::of(&kube_nodes(view).await?);
    let nodes = ClusterNodes { control_planes, workers };
    if nodes.control_planes.is_empty() {
        return Err("Kubernetes has no control plane node".to_owned());
    }
    Ok(nodes)
}

fn find(nodes: &[Node], address: IpAddr) -> Option<&Node> {
    nodes.iter().find(|node| node.ips("InternalIP").any(|ip| ip == address))
}

async fn nodes_report(view: &dyn ClusterView, nodes: &ClusterNodes) -> Result<CheckOutcome, String> {
    let known = kube_nodes(view).await?;
    let expected = nodes.all();
    let missing = expected.iter().filter(|address| find(&known, **address).is_none());
    problems(missing.map(|address| (*address, "is no node of Kubernetes yet".to_owned())).collect())?;
    if known.len() != expected.len() {
        let names: Vec<_> = known.iter().map(|node| node.name.as_str()).collect();
        return Err(format!("Kubernetes has {} nodes ({}), not {}", known.len(), names.join(", "), expected.len()));
    }
    Ok(CheckOutcome::Yes)
}

async fn each_node(
    view: &dyn ClusterView,
    nodes: &ClusterNodes,
    is_fine: fn(&Node) -> bool,
    problem: &str,
) -> Result<CheckOutcome, String> {
    let known = kube_nodes(view).await?;
    let found = nodes.all().into_iter().filter_map(|address| match find(&known, address) {
        Some(node) if is_fine(node) => None,
        Some(node) => Some((address, format!("node {} is {problem}", node.name))),
        None => Some((address, "is no node of Kubernetes yet".to_owned())),
    });
    problems(found.collect())
}

async fn static_pods(
    view: &dyn ClusterView,
    nodes: &ClusterNodes,
    is_fine: fn(&PodSummary) -> bool,
    wanted: &str,
) -> Result<CheckOutcome, String> {
    let kubernetes = view.kubernetes().await?;
    let known = kubernetes.nodes().await.map_err(|error| kube_error(&error))?;
    let pods = kubernetes.pods(SYSTEM).await.map_err(|error| kube_error(&error))?;
    let mut found = Vec::new();
    for address in &nodes.control_planes {
        let Some(node) = find(&known, *address) else {
            found.push((*address, "is no node of Kubernetes yet".to_owned()));
            continue;
        };
        for component in STATIC_PODS {
            // The kubelet names the pod that shows a static pod after both.
            let name = format!("{component}-{}", node.name);
            match pods.iter().find(|pod| pod.name == name) {
                None => found.push((*address, format!("no pod {name}"))),
                Some(pod) if !is_fine(pod) => {
                    found.push((*address, format!("pod {name} is {}, not {wanted}", pod.phase)));
                }
                Some(_) => {}
            }
        }
    }
    problems(found)
}

async fn workload(view: &dyn ClusterView, kind: Workload, name: &str) -> Result<CheckOutcome, String> {
    let kubernetes = view.kubernetes().await?;
    match kubernetes.readiness(kind, SYSTEM, name).await.map_err(|error| kube_error(&error))? {
        None => Ok(CheckOutcome::NotNeeded),
        Some(readiness) if readiness.is_complete() => Ok(CheckOutcome::Yes),
        Some(readiness) => Err(format!("{} of {} pods of {name} are ready", readiness.ready, readiness.desired)),
    }
}
