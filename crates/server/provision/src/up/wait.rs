//! Waiting for a cluster: each wait asks again and again, tells what it hears, and ends at the deadline with a reason, and
//! with the log of the node and the service that it waited for.

use std::time::Duration;

use client::{CallError, Client};
use futures::StreamExt as _;
use kube_edge::{KubeApi, PodSummary, Readiness, RealKube, Workload};
use tokio::time::Instant;
use tonic::Code;
use wire::machine::apply_configuration_request::Mode;
use wire::machine::{ApplyConfigurationRequest, BootstrapRequest, LogsRequest, ServiceInfo};

use super::failure::{Failure, UpError};
use super::timings::Recorder;
use super::{Progress as _, ReadyNode};
use crate::cluster::Cluster;
use crate::driver::Ended;
use crate::plan::{Plan, PlannedNode, Role};

const STEP: Duration = Duration::from_millis(200);
const LOG_LINES: usize = 15;

/// The Deployment of the cluster's DNS, and the label of its pods.
const DNS: (&str, &str) = ("kube-system", "coredns");
/// Makes Services reachable on every node; a cluster may be without it.
const PROXY: (&str, &str) = ("kube-system", "kube-proxy");
const DNS_LABEL: (&str, &str) = ("k8s-app", "kube-dns");

/// Whether etcd is healthy on a node.
async fn etcd_of(client: &Client) -> Poll<()> {
    match services_of(client).await {
        Ok(services) => match services.iter().find(|service| service.id == "etcd") {
            Some(etcd) if etcd.health.as_ref().is_some_and(|health| health.healthy) => Poll::Done(()),
            Some(etcd) => Poll::NotYet(describe(etcd).into()),
            None => Poll::NotYet("there is no service etcd yet".to_owned().into()),
        },
        Err(error) => Poll::NotYet(stdx::error_chain(&error).into()),
    }
}

/// Result of one poll.
enum Poll<T> {
    Done(T),
    NotYet(Missing),
    /// Looking again changes nothing.
    Hopeless(Missing),
}

/// The missing condition and its node; the first control plane if no node is known.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Missing {
    reason: String,
    node: Option<String>,
}

impl From<String> for Missing {
    fn from(reason: String) -> Self {
        Self { reason, node: None }
    }
}

/// Dependencies of all waits.
pub(super) struct Waiting<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) client: &'a Client,
    pub(super) progress: &'a Recorder<'a>,
    pub(super) deadline: Instant,
}

impl Waiting<'_> {
    fn first(&self) -> Result<&PlannedNode, UpError> {
        let none = || crate::error::ProvisionError::Plan(crate::plan::PlanError::NoControlPlane);
        Ok(self.cluster.plan().first_control_plane().ok_or_else(none)?)
    }

    /// Hands a node in maintenance mode its configuration.
    pub(super) async fn apply(&self, node: &PlannedNode, configuration: &[u8]) -> Result<(), UpError> {
        let endpoint = node.address.to_string().parse().map_err(client::ConnectError::Endpoint)?;
        let options = client::ConnectOptions {
            dial_timeout: Duration::from_secs(2),
            ..client::ConnectOptions::insecure(vec![endpoint], Vec::new(), None)
        };
        let client = Client::connect_lazy(options)?.with_call_timeout(Duration::from_secs(10));
        let on = |reason| Missing { reason, node: Some(node.name.clone()) };
        self.until(&format!("configuration of {}", node.name), "machined", async || {
            let request = ApplyConfigurationRequest {
                data: configuration.to_vec().into(),
                mode: Mode::Auto.into(),
                ..ApplyConfigurationRequest::default()
            };
            let answer = client.apply_configuration(request).await;
            let error = match answer.map(|replies| replies.into_iter().find_map(|reply| reply.result.err())) {
                Ok(None) => return Poll::Done(()),
                Ok(Some(error)) => (error.code, error.to_string()),
                Err(error) => (error.code(), stdx::error_chain(&error)),
            };
            match error {
                (Code::InvalidArgument, text) => Poll::Hopeless(on(text)),
                (_, text) => Poll::NotYet(on(text)),
            }
        })
        .await
    }

    /// The machine API of the first control plane.
    pub(super) async fn api(&self) -> Result<(), UpError> {
        self.until("machine API", "apid", async || match self.client.version().await {
            Ok(_) => Poll::Done(()),
            Err(error) => Poll::NotYet(stdx::error_chain(&error).into()),
        })
        .await
    }

    /// The one call that makes a new cluster out of the first control plane.
    pub(super) async fn bootstrap(&self) -> Result<(), UpError> {
        self.until("bootstrap", "etcd", async || {
            let request = BootstrapRequest { recover_etcd: false, recover_skip_hash_check: false };
            let answer = self.client.bootstrap(request).await;
            let error = match answer.map(|replies| replies.into_iter().find_map(|reply| reply.result.err())) {
                Ok(None) => return Poll::Done(()),
                Ok(Some(error)) => (error.code, error.to_string()),
                Err(error) => (error.code(), stdx::error_chain(&error)),
            };
            match error {
                // An answer that was lost; etcd's own wait follows.
                (Code::AlreadyExists, _) => Poll::Done(()),
                (Code::PermissionDenied | Code::Unauthenticated | Code::Unimplemented, text) => {
                    Poll::Hopeless(text.into())
                }
                (_, text) => Poll::NotYet(text.into()),
            }
        })
        .await
    }

    pub(super) async fn etcd(&self) -> Result<(), UpError> {
        self.until("etcd", "etcd", async || etcd_of(self.client).await).await
    }

    /// etcd on every control plane, as a voting member; those of a cluster with one were waited for.
    pub(super) async fn members(&self) -> Result<(), UpError> {
        let nodes = &self.cluster.plan().nodes;
        let further: Vec<_> = nodes.iter().filter(|node| node.role == Role::ControlPlane).skip(1).collect();
        if further.is_empty() {
            return Ok(());
        }
        self.until("members of etcd", "etcd", async || {
            for node in &further {
                match etcd_of(&self.client.to_node(&node.address.to_string())).await {
                    Poll::Done(()) => self.progress.reached("a member of etcd", Some(&node.name)),
                    Poll::NotYet(missing) => {
                        return Poll::NotYet(Missing { node: Some(node.name.clone()), ..missing });
                    }
                    hopeless @ Poll::Hopeless(_) => return hopeless,
                }
            }
            Poll::Done(())
        })
        .await
    }

    /// The Kubernetes API; gives the administrator's kubeconfig.
    pub(super) async fn kubernetes(&self) -> Result<String, UpError> {
        self.until("Kubernetes API", "kubelet", async || {
            let text = match self.client.kubeconfig().await {
                Ok(text) => text,
                Err(error) if error.code() == Code::DataLoss => {
                    return Poll::Hopeless(stdx::error_chain(&error).into());
                }
                Err(error) => return Poll::NotYet(stdx::error_chain(&error).into()),
            };
            let asked = match RealKube::from_kubeconfig(&text).await {
                Ok(kube) => kube.version().await,
                Err(error) => Err(error),
            };
            match asked {
                Ok(_) => Poll::Done(text),
                Err(error) => Poll::NotYet(stdx::error_chain(&error).into()),
            }
        })
        .await
    }

    /// All nodes of the plan, registered and Ready.
    pub(super) async fn nodes(&self, kube: &dyn KubeApi) -> Result<Vec<ReadyNode>, UpError> {
        self.until("all nodes Ready", "kubelet", async || match kube.nodes().await {
            Ok(nodes) => {
                for node in &nodes {
                    self.progress.reached("registered", Some(&node.name));
                    if node.ready {
                        self.progress.reached("Ready", Some(&node.name));
                    }
                }
                if let Some(missing) = missing_nodes(self.cluster.plan(), &nodes) {
                    return Poll::NotYet(missing);
                }
                let ready = |node: kube_edge::Node| ReadyNode {
                    name: node.name,
                    ready: node.ready,
                    kubelet_version: node.kubelet_version,
                };
                Poll::Done(nodes.into_iter().map(ready).collect())
            }
            Err(error) => Poll::NotYet(stdx::error_chain(&error).into()),
        })
        .await
    }

    /// The cluster's DNS: its pods are ready when they have heard of the cluster's services and answer for them.
    pub(super) async fn dns(&self, kube: &dyn KubeApi) -> Result<(), UpError> {
        let (namespace, name) = DNS;
        self.until("cluster DNS", "kubelet", async || {
            match kube.readiness(Workload::Deployment, namespace, name).await {
                // Pods and nodes reach it by its Service.
                Ok(Some(readiness)) if readiness.desired > 0 && readiness.is_complete() => {
                    services(kube, self.cluster.plan().nodes.len()).await
                }
                Ok(Some(readiness)) => match kube.pods(namespace).await {
                    Ok(pods) => Poll::NotYet(missing_dns(readiness, &pods)),
                    Err(error) => Poll::NotYet(stdx::error_chain(&error).into()),
                },
                Ok(None) => Poll::NotYet(format!("there is no deployment {name} yet").into()),
                Err(error) => Poll::NotYet(stdx::error_chain(&error).into()),
            }
        })
        .await
    }

    /// The services of all nodes; none for an unreachable node.
    pub(super) async fn all_services(&self) -> Vec<(String, Vec<ServiceInfo>)> {
        let mut all = Vec::new();
        for node in &self.cluster.plan().nodes {
            let client = self.client.to_node(&node.address.to_string());
            if let Ok(services) = services_of(&client).await {
                all.push((node.name.clone(), services));
            }
        }
        all
    }

    /// Looks until it is done, the deadline has come, or a node's container has ended.
    async fn until<T>(&self, step: &str, service: &str, mut look: impl AsyncFnMut() -> Poll<T>) -> Result<T, UpError> {
        let began = Instant::now();
        self.progress.begin(step);
        let mut last = Missing::from("nothing was heard".to_owned());
        loop {
            // A look that is cut off at the deadline leaves nothing behind but a connection.
            match tokio::time::timeout_at(self.deadline, look()).await {
                Ok(Poll::Done(value)) => {
                    self.progress.end(step, began.elapsed());
                    return Ok(value);
                }
                Ok(Poll::NotYet(missing)) => {
                    self.progress.detail(&missing.reason);
                    last = missing;
                }
                Ok(Poll::Hopeless(missing)) => return Err(self.failed(step, service, missing).await?),
                Err(_) => {
                    let took = stdx::duration::format(Duration::from_secs(began.elapsed().as_secs()));
                    let reason = format!("time is up after {took}; last: {}", last.reason);
                    return Err(self.failed(step, service, Missing { reason, ..last }).await?);
                }
            }
            if let Some((node, ended)) = self.cluster.tend().await? {
                return Err(self.ended(step, &node, ended));
            }
            tokio::time::sleep_until(self.deadline.min(Instant::now() + STEP)).await;
        }
    }

    /// A node that ended for good.
    fn ended(&self, step: &str, node: &PlannedNode, ended: Ended) -> UpError {
        self.failure(step, node, format!("the node is {ended}"), None)
    }

    /// Collects what the service said that is missing, on the node where it is missing, or that node where the service
    /// cannot be asked.
    async fn failed(&self, step: &str, service: &str, missing: Missing) -> Result<UpError, UpError> {
        let named = missing.node.as_deref().and_then(|name| self.cluster.plan().node(name));
        let node = named.map_or_else(|| self.first(), Ok)?;
        let client = self.client.to_node(&node.address.to_string());
        let asking = async {
            let services = services_of(&client).await.ok()?;
            let blamed = blamed(&services, service)?;
            Some((blamed.id.clone(), describe(blamed), service_log(&client, &blamed.id).await))
        };
        let answer = tokio::time::timeout(Duration::from_secs(10), asking).await.ok().flatten();
        Ok(match answer {
            Some((id, state, lines)) if !lines.is_empty() => {
                self.failure(step, node, format!("{}; {state}", missing.reason), Some((id, lines)))
            }
            // A service that never ran has said nothing.
            Some((_, state, _)) => self.failure(step, node, format!("{}; {state}", missing.reason), None),
            None => self.failure(step, node, missing.reason, None),
        })
    }

    fn failure(&self, step: &str, node: &PlannedNode, reason: String, log: Option<(String, Vec<String>)>) -> UpError {
        let (service, last_lines) = match log {
            Some((service, lines)) => (Some(service), lines),
            None => (None, self.cluster.log_tail(&node.name, LOG_LINES)),
        };
        UpError::NotReady(Box::new(Failure {
            step: step.to_owned(),
            node: node.name.clone(),
            address: node.address,
            reason,
            service,
            last_lines,
            node_log: self.cluster.log_path(&node.name),
        }))
    }
}

/// Problems of the planned nodes; the first of them is the node to inspect. Nodes are known by their addresses: a patch may
/// give them other names.
fn missing_nodes(plan: &Plan, nodes: &[kube_edge::Node]) -> Option<Missing> {
    let is = |planned: &PlannedNode, node: &kube_edge::Node| {
        node.name == planned.name || node.ips("InternalIP").any(|address| address == planned.address)
    };
    let wrong = plan.nodes.iter().filter_map(|planned| match nodes.iter().find(|node| is(planned, node)) {
        None => Some((planned, format!("{} is not registered", planned.name))),
        Some(node) if !node.ready => Some((planned, format!("{} is not Ready", planned.name))),
        Some(_) => None,
    });
    let wrong: Vec<_> = wrong.collect();
    let (first, _) = wrong.first()?;
    let reasons: Vec<&str> = wrong.iter().map(|(_, reason)| reason.as_str()).collect();
    Some(Missing { reason: reasons.join(", "), node: Some(first.name.clone()) })
}

/// Problems of the cluster DNS pods, and the node of the first.
fn missing_dns(readiness: Readiness, pods: &[PodSummary]) -> Missing {
    let (label, value) = DNS_LABEL;
    let of_dns = pods.iter().filter(|pod| pod.labels.get(label).is_some_and(|of| of == value));
    let waiting = of_dns.filter(|pod| !pod.ready);
    let mut reason = format!("{} of {} pods of {} are ready", readiness.ready, readiness.desired, DNS.1);
    let mut node = None;
    for pod in waiting {
        let place = if pod.node.is_empty() { "no node" } else { &pod.node };
        reason.push_str(&format!(", {} on {place} is {}", pod.name, pod.phase));
        node = node.or_else(|| Some(pod.node.clone()).filter(|name| !name.is_empty()));
    }
    Missing { reason, node }
}

/// The service to blame: the one that was waited for unless it is well, else one that failed, else one that is not well.
fn blamed<'a>(services: &'a [ServiceInfo], wanted: &str) -> Option<&'a ServiceInfo> {
    let named = services.iter().find(|service| service.id == wanted);
    let unwell = |service: &&ServiceInfo| !is_well(service);
    named
        .filter(unwell)
        .or_else(|| services.iter().find(|service| service.state == "Failed"))
        .or_else(|| services.iter().find(unwell))
        .or(named)
}

fn is_well(service: &ServiceInfo) -> bool {
    let healthy = service.health.as_ref().is_none_or(|health| health.unknown || health.healthy);
    matches!(service.state.as_str(), "Running" | "Finished" | "Skipped") && healthy
}

/// Of the node that the client asks.
async fn services_of(client: &Client) -> Result<Vec<ServiceInfo>, CallError> {
    let replies = client.services().await?;
    Ok(replies.into_iter().filter_map(|reply| reply.result.ok()).flat_map(|list| list.services).collect())
}

async fn service_log(client: &Client, id: &str) -> Vec<String> {
    let request = LogsRequest {
        namespace: "system".to_owned(),
        id: id.to_owned(),
        tail_lines: i32::try_from(LOG_LINES).unwrap_or(i32::MAX),
        ..LogsRequest::default()
    };
    let Ok(mut stream) = client.logs(request).await else { return Vec::new() };
    let mut text = Vec::new();
    while let Some(Ok(reply)) = stream.next().await {
        if let Ok(data) = reply.result {
            text.extend_from_slice(&data.bytes);
        }
    }
    String::from_utf8_lossy(&text).lines().map(str::to_owned).collect()
}

fn describe(service: &ServiceInfo) -> String {
    let ServiceInfo { id, state, .. } = service;
    let health = service.health.as_ref().map(|health| health.last_message.as_str()).unwrap_or_default();
    let event = service.events.as_ref().and_then(|events| events.events.last());
    let said = event.map(|event| event.msg.as_str()).filter(|_| health.is_empty()).unwrap_or(health);
    if said.is_empty() { format!("{id} is {state}") } else { format!("{id} is {state}: {said}") }
}

/// Whether Services are reachable from all of so many nodes.
async fn services(kube: &dyn KubeApi, nodes: usize) -> Poll<()> {
    let (namespace, name) = PROXY;
    match kube.readiness(Workload::DaemonSet, namespace, name).await {
        // Kubernetes counts a new node in its own time.
        Ok(Some(readiness)) if !readiness.is_complete() || (readiness.desired as usize) < nodes => {
            Poll::NotYet(format!("{} of {nodes} pods of {name} are ready", readiness.ready).into())
        }
        Ok(_) => Poll::Done(()),
        Err(error) => Poll::NotYet(stdx::error_chain(&error).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::NodeSpec;

    #[test]
    fn the_node_to_look_at_is_the_first_one_that_is_missing() {
        let plan = Plan::new("a", "10.5.0.0/24", 1500, &NodeSpec { controlplanes: 1, workers: 2 }).unwrap();
        let node = |name: &str, ready| kube_edge::Node { name: name.to_owned(), ready, ..kube_edge::Node::default() };
        let (first, second, third) =
            (node("a-controlplane-1", true), node("a-worker-1", false), node("a-worker-2", true));
        let missing = missing_nodes(&plan, &[first.clone(), second]).unwrap();
        assert_eq!(missing.reason, "a-worker-1 is not Ready, a-worker-2 is not registered");
        assert_eq!(missing.node.as_deref(), Some("a-worker-1"));
        assert_eq!(missing_nodes(&plan, &[first, node("a-worker-1", true), third]), None);
    }

    #[test]
    fn a_node_with_another_name_is_found_by_its_address() {
        let plan = Plan::new("a", "10.5.0.0/24", 1500, &NodeSpec { controlplanes: 1, workers: 0 }).unwrap();
        let node = |address: &str, ready| kube_edge::Node {
            name: "cp-one".to_owned(),
            ready,
            addresses: vec![kube_edge::NodeAddress { kind: "InternalIP".to_owned(), address: address.to_owned() }],
            ..kube_edge::Node::default()
        };
        assert_eq!(missing_nodes(&plan, &[node("10.5.0.2", true)]), None);
        let unready = missing_nodes(&plan, &[node("10.5.0.2", false)]).unwrap();
        assert_eq!(unready.reason, "a-controlplane-1 is not Ready");
        assert_eq!(
            missing_nodes(&plan, &[node("10.5.0.9", true)]).unwrap().reason,
            "a-controlplane-1 is not registered"
        );
    }

    #[test]
    fn dns_that_is_missing_is_looked_for_where_its_pod_is() {
        let pod = |name: &str, node: &str, ready, label: &str| PodSummary {
            namespace: "kube-system".to_owned(),
            name: name.to_owned(),
            node: node.to_owned(),
            phase: "Pending".to_owned(),
            ready,
            ip: None,
            labels: [("k8s-app".to_owned(), label.to_owned())].into(),
        };
        let pods = [
            pod("proxy", "a-controlplane-1", false, "kube-proxy"),
            pod("dns-1", "a-controlplane-1", true, "kube-dns"),
            pod("dns-2", "", false, "kube-dns"),
            pod("dns-3", "a-worker-1", false, "kube-dns"),
        ];
        let missing = missing_dns(Readiness { desired: 3, ready: 1, updated: 3 }, &pods);
        let reason = "1 of 3 pods of coredns are ready, dns-2 on no node is Pending, dns-3 on a-worker-1 is Pending";
        assert_eq!(missing, Missing { reason: reason.to_owned(), node: Some("a-worker-1".to_owned()) });
    }

    #[test]
    fn the_service_that_was_waited_for_is_blamed_unless_it_is_well() {
        let service =
            |id: &str, state: &str| ServiceInfo { id: id.to_owned(), state: state.to_owned(), ..Default::default() };
        let blamed_of = |services: &[ServiceInfo]| blamed(services, "kubelet").map(|service| service.id.clone());
        let waiting = [service("trustd", "Failed"), service("kubelet", "Waiting")];
        assert_eq!(blamed_of(&waiting).as_deref(), Some("kubelet"));
        let running = [service("cri", "Waiting"), service("trustd", "Failed"), service("kubelet", "Running")];
        assert_eq!(blamed_of(&running).as_deref(), Some("trustd"));
        assert_eq!(blamed_of(&[service("cri", "Waiting"), service("kubelet", "Running")]).as_deref(), Some("cri"));
        assert_eq!(blamed_of(&[service("cri", "Running"), service("kubelet", "Running")]).as_deref(), Some("kubelet"));
        assert_eq!(blamed_of(&[]), None);
    }
}
