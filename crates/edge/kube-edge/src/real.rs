//! The real Kubernetes API.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt as _};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1 as core;
use kube::api::{Api, ListParams, Patch, PatchParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};

use crate::api::{
    Applied, Connect, KubeApi, KubeletApi, NodeEvent, NodeEvents, PodSummary, Readiness, ServerVersion, Workload,
};
use crate::bound_pod::{BoundPod, Eviction};
use crate::call::{FIELD_MANAGER, within};
use crate::error::KubeError;
use crate::node::{Node, NodePatch};
use crate::signing::{Signing, SigningRequest};
use crate::{create, signing};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Server-side timeout of a watch, which is then resumed. Shorter than the client's.
const WATCH_SECONDS: u32 = 240;

/// Makes [`RealKube`] clients.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealConnect;

#[async_trait]
impl Connect for RealConnect {
    async fn connect(&self, kubeconfig: &str) -> Result<Arc<dyn KubeApi>, KubeError> {
        Ok(Arc::new(RealKube::from_kubeconfig(kubeconfig).await?))
    }

    async fn connect_kubelet(&self, kubeconfig: &str) -> Result<Arc<dyn KubeletApi>, KubeError> {
        Ok(Arc::new(RealKube::from_kubeconfig(kubeconfig).await?))
    }
}

/// A client of one API server, or of a balancer in front of several.
#[derive(Clone)]
pub struct RealKube {
    /// Asks again by itself where a server is busy.
    client: kube::Client,
    /// Gives each answer as it is: a pod's budget forbids its eviction by the status of a busy server.
    once: kube::Client,
}

impl std::fmt::Debug for RealKube {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RealKube")
    }
}

impl RealKube {
    /// Files that the kubeconfig names are read now; make a new client when they change.
    ///
    /// # Errors
    /// A kubeconfig that cannot be read or credentials that cannot be used.
    pub async fn from_kubeconfig(text: &str) -> Result<Self, KubeError> {
        let kubeconfig = Kubeconfig::from_yaml(text).map_err(|error| KubeError::Kubeconfig(Box::new(error)))?;
        let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .map_err(|error| KubeError::Kubeconfig(Box::new(error)))?;
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        config.proxy_url = None;
        let client = |config| kube::Client::try_from(config).map_err(|error| KubeError::Client(Box::new(error)));
        let with_retries = client(config.clone())?;
        config.default_retry = false;
        Ok(Self { client: with_retries, once: client(config)? })
    }

    fn nodes_api(&self) -> Api<core::Node> {
        Api::all(self.client.clone())
    }
}

#[async_trait]
impl KubeApi for RealKube {
    async fn version(&self) -> Result<ServerVersion, KubeError> {
        let info = within("asking", "the version", self.client.apiserver_version()).await?;
        Ok(ServerVersion { git_version: info.git_version, major: info.major, minor: info.minor })
    }

    async fn is_ready(&self) -> Result<bool, KubeError> {
        let failed = |error| KubeError::Transport {
            operation: "asking",
            subject: "whether the server is ready".to_owned(),
            cause: Box::new(error),
        };
        let request = http::Request::get("/readyz").body(Vec::new()).map_err(failed)?;
        match within("asking", "whether the server is ready", self.client.request_text(request)).await {
            Ok(_) => Ok(true),
            // The response of a starting server: 500 and the list of unfinished hooks.
            Err(error) if error.code().is_some_and(|code| code >= 500) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn request_certificate(&self, request: &SigningRequest) -> Result<String, KubeError> {
        signing::create(&self.client, request).await
    }

    async fn signing(&self, name: &str) -> Result<Signing, KubeError> {
        signing::state(&self.client, name).await
    }

    async fn node(&self, name: &str) -> Result<Option<Node>, KubeError> {
        let node = within("getting", &format!("node {name}"), self.nodes_api().get_opt(name)).await?;
        Ok(node.map(Node::from))
    }

    async fn nodes(&self) -> Result<Vec<Node>, KubeError> {
        let list = within("listing", "nodes", self.nodes_api().list(&ListParams::default())).await?;
        Ok(list.items.into_iter().map(Node::from).collect())
    }

    fn watch_nodes(&self, only: Option<&str>) -> NodeEvents {
        let fields = only.map(|name| format!("metadata.name={name}"));
        let watch = NodeWatch { api: self.nodes_api(), fields, at: WatchPosition::List };
        stream::unfold(Some(watch), |watch| async move {
            let mut watch = watch?;
            match watch.next().await {
                Ok(event) => Some((Ok(event), Some(watch))),
                Err(error) => Some((Err(error), None)),
            }
        })
        .boxed()
    }

    async fn patch_node(&self, name: &str, patch: &NodePatch) -> Result<(), KubeError> {
        let body = Patch::Merge(patch.to_merge_patch());
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let api = self.nodes_api();
        within("patching", &format!("node {name}"), api.patch(name, &params, &body)).await?;
        Ok(())
    }

    async fn create_missing(&self, objects: &[Value]) -> Vec<Applied> {
        create::create_missing(&self.client, objects).await
    }

    async fn pods(&self, namespace: &str) -> Result<Vec<PodSummary>, KubeError> {
        let api: Api<core::Pod> = Api::namespaced(self.client.clone(), namespace);
        let subject = format!("pods of namespace {namespace}");
        let list = within("listing", &subject, api.list(&ListParams::default())).await?;
        Ok(list.items.into_iter().map(pod_summary).collect())
    }

    async fn pods_on(&self, node: &str) -> Result<Vec<BoundPod>, KubeError> {
        let api: Api<core::Pod> = Api::all(self.client.clone());
        let params = ListParams::default().fields(&format!("spec.nodeName={node}"));
        let list = within("listing", &format!("pods of node {node}"), api.list(&params)).await?;
        Ok(list.items.into_iter().map(BoundPod::from).collect())
    }

    async fn evict(&self, pod: &BoundPod) -> Result<Eviction, KubeError> {
        let subject = format!("pod {}/{}", pod.namespace, pod.name);
        let failed = |cause: http::Error| KubeError::Transport {
            operation: "evicting",
            subject: subject.clone(),
            cause: Box::new(cause),
        };
        let path = format!("/api/v1/namespaces/{}/pods/{}/eviction", pod.namespace, pod.name);
        let request = http::Request::post(path).header(http::header::CONTENT_TYPE, "application/json");
        let request = request.body(eviction(pod).to_string().into_bytes()).map_err(failed)?;
        match within("evicting", &subject, self.once.request::<Value>(request)).await {
            Ok(_) => Ok(Eviction::Accepted),
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(Eviction::Gone),
            Err(KubeError::Status { code: 429, message, .. }) => Ok(Eviction::Forbidden(message)),
            Err(error) => Err(error),
        }
    }

    async fn readiness(&self, kind: Workload, namespace: &str, name: &str) -> Result<Option<Readiness>, KubeError> {
        match kind {
            Workload::DaemonSet => {
                let api: Api<DaemonSet> = Api::namespaced(self.client.clone(), namespace);
                let found = within("getting", &format!("daemon set {namespace}/{name}"), api.get_opt(name)).await?;
                Ok(found.map(|set| {
                    let status = set.status.unwrap_or_default();
                    Readiness {
                        desired: count(status.desired_number_scheduled),
                        ready: count(status.number_ready),
                        updated: count(status.updated_number_scheduled.unwrap_or_default()),
                    }
                }))
            }
            Workload::Deployment => {
                let api: Api<Deployment> = Api::namespaced(self.client.clone(), namespace);
                let found = within("getting", &format!("deployment {namespace}/{name}"), api.get_opt(name)).await?;
                Ok(found.map(|deployment| {
                    let status = deployment.status.unwrap_or_default();
                    Readiness {
                        desired: count(deployment.spec.and_then(|spec| spec.replicas).unwrap_or(1)),
                        ready: count(status.ready_replicas.unwrap_or_default()),
                        updated: count(status.updated_replicas.unwrap_or_default()),
                    }
                }))
            }
        }
    }

    async fn endpoints(&self, namespace: &str, name: &str) -> Result<Vec<IpAddr>, KubeError> {
        let api: Api<core::Endpoints> = Api::namespaced(self.client.clone(), namespace);
        let found = within("getting", &format!("endpoints {namespace}/{name}"), api.get_opt(name)).await?;
        let subsets = found.and_then(|endpoints| endpoints.subsets).unwrap_or_default();
        let mut ips: Vec<IpAddr> = subsets
            .into_iter()
            .flat_map(|subset| subset.addresses.unwrap_or_default())
            .filter_map(|address| address.ip.parse().ok())
            .collect();
        ips.sort();
        ips.dedup();
        Ok(ips)
    }
}

#[async_trait]
impl KubeletApi for RealKube {
    async fn pods(&self) -> Result<Vec<Value>, KubeError> {
        let request = http::Request::get("/pods").body(Vec::new()).map_err(|error| KubeError::Transport {
            operation: "asking",
            subject: "the kubelet for pods".to_owned(),
            cause: Box::new(error),
        })?;
        let mut list: Value = within("asking", "the kubelet for pods", self.client.request(request)).await?;
        Ok(match list["items"].take() {
            Value::Array(pods) => pods,
            _ => Vec::new(),
        })
    }
}

/// Of this pod, not of its successor with the same name.
fn eviction(pod: &BoundPod) -> Value {
    json!({
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": { "namespace": pod.namespace, "name": pod.name },
        "deleteOptions": { "preconditions": { "uid": pod.uid } },
    })
}

fn count(value: i32) -> u32 {
    u32::try_from(value).unwrap_or_default()
}

fn pod_summary(pod: core::Pod) -> PodSummary {
    let status = pod.status.unwrap_or_default();
    PodSummary {
        namespace: pod.metadata.namespace.unwrap_or_default(),
        name: pod.metadata.name.unwrap_or_default(),
        node: pod.spec.and_then(|spec| spec.node_name).unwrap_or_default(),
        phase: status.phase.unwrap_or_default(),
        ready: status
            .conditions
            .unwrap_or_default()
            .iter()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True"),
        ip: status.pod_ip.and_then(|ip| ip.parse().ok()),
        labels: pod.metadata.labels.unwrap_or_default(),
    }
}

/// List, then watch from there; a version that is too old means to list again.
struct NodeWatch {
    api: Api<core::Node>,
    fields: Option<String>,
    at: WatchPosition,
}

enum WatchPosition {
    List,
    Resume(String),
    Following { version: String, events: BoxStream<'static, kube::Result<WatchEvent<core::Node>>> },
}

impl NodeWatch {
    async fn next(&mut self) -> Result<NodeEvent, KubeError> {
        loop {
            match std::mem::replace(&mut self.at, WatchPosition::List) {
                WatchPosition::List => return self.list().await,
                WatchPosition::Resume(version) => self.resume(version).await?,
                WatchPosition::Following { version, events } => {
                    if let Some(event) = self.follow(version, events).await? {
                        return Ok(event);
                    }
                }
            }
        }
    }

    async fn list(&mut self) -> Result<NodeEvent, KubeError> {
        let params = ListParams { field_selector: self.fields.clone(), ..ListParams::default() };
        let list = within("listing", "nodes", self.api.list(&params)).await?;
        self.at = WatchPosition::Resume(list.metadata.resource_version.unwrap_or_default());
        Ok(NodeEvent::Snapshot(list.items.into_iter().map(Node::from).collect()))
    }

    async fn resume(&mut self, version: String) -> Result<(), KubeError> {
        let params = WatchParams { field_selector: self.fields.clone(), ..WatchParams::default() };
        let params = params.timeout(WATCH_SECONDS);
        match within("watching", "nodes", self.api.watch(&params, &version)).await {
            Ok(events) => {
                self.at = WatchPosition::Following { version, events: events.boxed() };
                Ok(())
            }
            // Too old: the state is already back at listing.
            Err(error) if error.code() == Some(410) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// One event, or nothing when the state changed instead.
    async fn follow(
        &mut self,
        version: String,
        mut events: BoxStream<'static, kube::Result<WatchEvent<core::Node>>>,
    ) -> Result<Option<NodeEvent>, KubeError> {
        let (version, event) = match events.next().await {
            None => {
                self.at = WatchPosition::Resume(version);
                return Ok(None);
            }
            Some(Err(error)) => return Err(KubeError::from_kube("watching", "nodes", error)),
            Some(Ok(WatchEvent::Error(status))) if status.code == 410 => return Ok(None),
            Some(Ok(WatchEvent::Error(status))) => {
                return Err(KubeError::from_kube("watching", "nodes", kube::Error::Api(status)));
            }
            Some(Ok(WatchEvent::Bookmark(bookmark))) => (bookmark.metadata.resource_version, None),
            Some(Ok(WatchEvent::Added(node) | WatchEvent::Modified(node))) => {
                let node = Node::from(node);
                (node.resource_version.clone(), Some(NodeEvent::Changed(Box::new(node))))
            }
            Some(Ok(WatchEvent::Deleted(node))) => {
                let node = Node::from(node);
                (node.resource_version, Some(NodeEvent::Gone(node.name)))
            }
        };
        self.at = WatchPosition::Following { version, events };
        Ok(event)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::Upkeep;

    /// Whether head and body of a request are there.
    fn is_whole(request: &[u8]) -> bool {
        let text = String::from_utf8_lossy(request).to_lowercase();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
        body.len() >= length
    }

    /// A server that answers one request with this status, and returns the request.
    async fn answer(listener: &TcpListener, status: &str, body: &str) -> String {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !is_whole(&request) {
            assert!(stream.read_buf(&mut request).await.unwrap() > 0, "the request ended early");
        }
        let length = body.len();
        let head = format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n");
        stream.write_all(format!("{head}Connection: close\r\n\r\n{body}").as_bytes()).await.unwrap();
        String::from_utf8(request).unwrap()
    }

    #[tokio::test]
    async fn an_eviction_is_of_one_pod_and_its_answer_tells_why_not() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = listener.local_addr().unwrap();
        let kubeconfig = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{{name: c, cluster: {{server: 'http://{server}'}}}}]\n\
             users: [{{name: u, user: {{}}}}]\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n"
        );
        let kube = RealKube::from_kubeconfig(&kubeconfig).await.unwrap();
        let pod = BoundPod { namespace: "a".into(), name: "b".into(), uid: "7".into(), upkeep: Upkeep::Evictable };
        let status = |code: u16, message: &str| {
            json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "x", "code": code, "message": message })
                .to_string()
        };
        for (line, body, expected) in [
            ("201 Created", json!({ "kind": "Status", "status": "Success" }).to_string(), Eviction::Accepted),
            ("429 Too Many Requests", status(429, "the budget"), Eviction::Forbidden("the budget".into())),
            ("404 Not Found", status(404, "no pod"), Eviction::Gone),
            ("409 Conflict", status(409, "another uid"), Eviction::Gone),
        ] {
            let (evicted, request) = tokio::join!(kube.evict(&pod), answer(&listener, line, &body));
            assert_eq!(evicted.unwrap(), expected);
            assert!(request.starts_with("POST /api/v1/namespaces/a/pods/b/eviction HTTP/1.1"), "{request}");
            assert!(request.contains(r#""preconditions":{"uid":"7"}"#), "{request}");
        }
    }
}
