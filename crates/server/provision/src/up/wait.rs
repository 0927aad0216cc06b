//! Waiting for a cluster: each wait asks again and again, tells what it hears, and ends at the deadline with a reason.

use std::time::Duration;

use client::{CallError, Client};
use futures::StreamExt as _;
use kube_edge::{KubeApi as _, RealKube};
use tokio::time::Instant;
use tonic::Code;
use wire::machine::apply_configuration_request::Mode;
use wire::machine::{ApplyConfigurationRequest, BootstrapRequest, LogsRequest, ServiceInfo};

use super::failure::{Failure, UpError};
use super::{Progress, ReadyNode};
use crate::cluster::Cluster;
use crate::driver::Ended;
use crate::plan::PlannedNode;

const STEP: Duration = Duration::from_millis(200);
const LOG_LINES: usize = 15;

/// What one look found.
enum Seen<T> {
    Done(T),
    /// What is missing.
    NotYet(String),
    /// Looking again changes nothing.
    Hopeless(String),
}

/// What all waits need.
pub(super) struct Waiting<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) client: &'a Client,
    pub(super) progress: &'a dyn Progress,
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
        self.until(&format!("configuration of {}", node.name), "machined", async || {
            let request = ApplyConfigurationRequest {
                data: configuration.to_vec().into(),
                mode: Mode::Auto.into(),
                ..ApplyConfigurationRequest::default()
            };
            let answer = client.apply_configuration(request).await;
            let error = match answer.map(|replies| replies.into_iter().find_map(|reply| reply.result.err())) {
                Ok(None) => return Seen::Done(()),
                Ok(Some(error)) => (error.code, error.to_string()),
                Err(error) => (error.code(), stdx::error_chain(&error)),
            };
            match error {
                (Code::InvalidArgument, text) => Seen::Hopeless(text),
                (_, text) => Seen::NotYet(text),
            }
        })
        .await
    }

    /// The machine API of the first control plane.
    pub(super) async fn api(&self) -> Result<(), UpError> {
        self.until("machine API", "apid", async || match self.client.version().await {
            Ok(_) => Seen::Done(()),
            Err(error) => Seen::NotYet(stdx::error_chain(&error)),
        })
        .await
    }

    /// The one call that makes a new cluster out of the first control plane.
    pub(super) async fn bootstrap(&self) -> Result<(), UpError> {
        self.until("bootstrap", "etcd", async || {
            let request = BootstrapRequest { recover_etcd: false, recover_skip_hash_check: false };
            let answer = self.client.bootstrap(request).await;
            let error = match answer.map(|replies| replies.into_iter().find_map(|reply| reply.result.err())) {
                Ok(None) => return Seen::Done(()),
                Ok(Some(error)) => (error.code, error.to_string()),
                Err(error) => (error.code(), stdx::error_chain(&error)),
            };
            match error {
                // An answer that was lost; etcd's own wait follows.
                (Code::AlreadyExists, _) => Seen::Done(()),
                (Code::PermissionDenied | Code::Unauthenticated | Code::Unimplemented, text) => Seen::Hopeless(text),
                (_, text) => Seen::NotYet(text),
            }
        })
        .await
    }

    pub(super) async fn etcd(&self) -> Result<(), UpError> {
        self.until("etcd", "etcd", async || match self.services().await {
            Ok(services) => match services.iter().find(|service| service.id == "etcd") {
                Some(etcd) if etcd.health.as_ref().is_some_and(|health| health.healthy) => Seen::Done(()),
                Some(etcd) => Seen::NotYet(describe(etcd)),
                None => Seen::NotYet("there is no service etcd yet".to_owned()),
            },
            Err(error) => Seen::NotYet(stdx::error_chain(&error)),
        })
        .await
    }

    /// The Kubernetes API; gives the administrator's kubeconfig.
    pub(super) async fn kubernetes(&self) -> Result<String, UpError> {
        self.until("Kubernetes API", "kubelet", async || {
            let text = match self.client.kubeconfig().await {
                Ok(text) => text,
                Err(error) if error.code() == Code::DataLoss => return Seen::Hopeless(stdx::error_chain(&error)),
                Err(error) => return Seen::NotYet(stdx::error_chain(&error)),
            };
            let asked = match RealKube::from_kubeconfig(&text).await {
                Ok(kube) => kube.version().await,
                Err(error) => Err(error),
            };
            match asked {
                Ok(_) => Seen::Done(text),
                Err(error) => Seen::NotYet(stdx::error_chain(&error)),
            }
        })
        .await
    }

    /// All nodes of the plan, registered and Ready.
    pub(super) async fn nodes(&self, kubeconfig: &str) -> Result<Vec<ReadyNode>, UpError> {
        let generate = |source| UpError::Generate { subject: "Kubernetes client", source: Box::new(source) };
        let kube = RealKube::from_kubeconfig(kubeconfig).await.map_err(generate)?;
        self.until("all nodes Ready", "kubelet", async || match kube.nodes().await {
            Ok(nodes) => {
                let missing = self.missing(&nodes);
                if !missing.is_empty() {
                    return Seen::NotYet(missing.join(", "));
                }
                let ready = |node: kube_edge::Node| ReadyNode {
                    name: node.name,
                    ready: node.ready,
                    kubelet_version: node.kubelet_version,
                };
                Seen::Done(nodes.into_iter().map(ready).collect())
            }
            Err(error) => Seen::NotYet(stdx::error_chain(&error)),
        })
        .await
    }

    /// What is wrong with nodes of the plan.
    fn missing(&self, nodes: &[kube_edge::Node]) -> Vec<String> {
        let wrong = |planned: &PlannedNode| match nodes.iter().find(|node| node.name == planned.name) {
            None => Some(format!("{} is not registered", planned.name)),
            Some(node) if !node.ready => Some(format!("{} is not Ready", planned.name)),
            Some(_) => None,
        };
        self.cluster.plan().nodes.iter().filter_map(wrong).collect()
    }

    async fn services(&self) -> Result<Vec<ServiceInfo>, CallError> {
        let replies = self.client.services().await?;
        Ok(replies.into_iter().filter_map(|reply| reply.result.ok()).flat_map(|list| list.services).collect())
    }

    /// Looks until it is done, the deadline has come, or a node's container has ended.
    async fn until<T>(&self, step: &str, service: &str, mut look: impl AsyncFnMut() -> Seen<T>) -> Result<T, UpError> {
        let began = Instant::now();
        self.progress.begin(step);
        let mut last = "nothing was heard".to_owned();
        loop {
            // A look that is cut off at the deadline leaves nothing behind but a connection.
            match tokio::time::timeout_at(self.deadline, look()).await {
                Ok(Seen::Done(value)) => {
                    self.progress.end(step, began.elapsed());
                    return Ok(value);
                }
                Ok(Seen::NotYet(reason)) => {
                    self.progress.detail(&reason);
                    last = reason;
                }
                Ok(Seen::Hopeless(reason)) => return Err(self.failed(step, service, reason).await?),
                Err(_) => {
                    let reason = format!(
                        "time is up after {}; last: {last}",
                        stdx::duration::format(Duration::from_secs(began.elapsed().as_secs()))
                    );
                    return Err(self.failed(step, service, reason).await?);
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
        let failure = Failure {
            step: step.to_owned(),
            reason: format!("the node is {ended}"),
            service: None,
            last_lines: self.cluster.log_tail(&node.name, LOG_LINES),
            node_log: self.cluster.log_path(&node.name),
            node: node.name.clone(),
        };
        UpError::NotReady(Box::new(failure))
    }

    /// Collects what the failed service said, or the node where nothing can be asked.
    async fn failed(&self, step: &str, service: &str, reason: String) -> Result<UpError, UpError> {
        let node = self.first()?;
        let asking = async {
            let services = self.services().await.unwrap_or_default();
            let failed = services.iter().find(|service| service.state == "Failed");
            let unhealthy = || services.iter().find(|info| info.id == service);
            let blamed = failed.or_else(unhealthy).map(|info| info.id.clone())?;
            let lines = self.service_log(&blamed).await;
            (!lines.is_empty()).then_some((blamed, lines))
        };
        let answer = tokio::time::timeout(Duration::from_secs(10), asking).await.ok().flatten();
        let (service, last_lines) = match answer {
            Some((service, lines)) => (Some(service), lines),
            None => (None, self.cluster.log_tail(&node.name, LOG_LINES)),
        };
        let failure = Failure {
            step: step.to_owned(),
            node: node.name.clone(),
            reason,
            service,
            last_lines,
            node_log: self.cluster.log_path(&node.name),
        };
        Ok(UpError::NotReady(Box::new(failure)))
    }

    async fn service_log(&self, id: &str) -> Vec<String> {
        let request = LogsRequest {
            namespace: "system".to_owned(),
            id: id.to_owned(),
            tail_lines: i32::try_from(LOG_LINES).unwrap_or(i32::MAX),
            ..LogsRequest::default()
        };
        let Ok(mut stream) = self.client.logs(request).await else { return Vec::new() };
        let mut text = Vec::new();
        while let Some(Ok(reply)) = stream.next().await {
            if let Ok(data) = reply.result {
                text.extend_from_slice(&data.bytes);
            }
        }
        String::from_utf8_lossy(&text).lines().map(str::to_owned).collect()
    }
}

fn describe(service: &ServiceInfo) -> String {
    let health = service.health.as_ref().map(|health| health.last_message.as_str()).unwrap_or_default();
    let event = service.events.as_ref().and_then(|events| events.events.last());
    let said = event.map(|event| event.msg.as_str()).filter(|_| health.is_empty()).unwrap_or(health);
    if said.is_empty() { format!("etcd is {}", service.state) } else { format!("etcd is {}: {said}", service.state) }
}
