//! A cluster in memory, stricter than a server: unknown kinds, missing namespaces and missing nodes are refused.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::{self, StreamExt as _};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::watch;

use crate::api::{
    Applied, Connect, KubeApi, KubeletApi, NodeEvent, NodeEvents, Outcome, PodSummary, Readiness, ServerVersion,
    Workload,
};
use crate::bound_pod::{BoundPod, Eviction, Upkeep};
use crate::create;
use crate::error::KubeError;
use crate::node::{Node, NodePatch};
use crate::object::ObjectRef;
use crate::signing::{Signing, SigningRequest};

/// Kinds without a namespace that every server has, among those that are created here.
const CLUSTER_KINDS: &[&str] = &["Namespace", "Node", "ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"];
const NAMESPACED_KINDS: &[&str] = &[
    "ConfigMap",
    "DaemonSet",
    "Deployment",
    "Endpoints",
    "Pod",
    "Role",
    "RoleBinding",
    "Secret",
    "Service",
    "ServiceAccount",
];
const NAMESPACES: &[&str] = &["default", "kube-node-lease", "kube-public", "kube-system"];

#[derive(Debug, Default)]
struct State {
    reachable: bool,
    refused: BTreeMap<&'static str, u16>,
    nodes: BTreeMap<String, Node>,
    objects: BTreeMap<ObjectRef, Value>,
    pods: Vec<PodSummary>,
    kubelet_pods: Vec<Value>,
    /// By node and name.
    bound: BTreeMap<(String, String), BoundPod>,
    /// Names of pods that a budget protects.
    protected: BTreeSet<String>,
    evictions: Vec<String>,
    readiness: BTreeMap<(String, String), Readiness>,
    endpoints: BTreeMap<(String, String), Vec<IpAddr>>,
    starting: bool,
    requests: Vec<(SigningRequest, Signing)>,
    version: u64,
}

/// Clones share one cluster.
#[derive(Debug, Clone)]
pub struct FakeKube {
    release: String,
    state: Arc<Mutex<State>>,
    /// Raised with every change.
    revision: watch::Sender<u64>,
}

impl FakeKube {
    /// A reachable cluster without nodes.
    #[must_use]
    pub fn new(release: &str) -> Self {
        let state = State { reachable: true, ..State::default() };
        Self { release: release.to_owned(), state: Arc::new(Mutex::new(state)), revision: watch::Sender::new(0) }
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state.lock());
        self.revision.send_modify(|revision| *revision += 1);
        result
    }

    pub fn set_reachable(&self, reachable: bool) {
        self.change(|state| state.reachable = reachable);
    }

    /// From now on answers an operation (such as `patching`) with this code; 0 lifts that.
    pub fn refuse(&self, operation: &'static str, code: u16) {
        self.change(|state| {
            state.refused.remove(operation);
            if code != 0 {
                state.refused.insert(operation, code);
            }
        });
    }

    /// Reachable, but not through with its own start.
    pub fn set_starting(&self, starting: bool) {
        self.change(|state| state.starting = starting);
    }

    /// The requests for certificates, in order.
    #[must_use]
    pub fn requests(&self) -> Vec<SigningRequest> {
        self.state.lock().requests.iter().map(|(request, _)| request.clone()).collect()
    }

    /// Decides on the newest request.
    pub fn decide(&self, signing: Signing) {
        self.change(|state| {
            if let Some((_, decided)) = state.requests.last_mut() {
                *decided = signing;
            }
        });
    }

    /// Creates or replaces; the resource version is the fake's.
    pub fn put_node(&self, mut node: Node) {
        self.change(|state| {
            state.version += 1;
            node.resource_version = state.version.to_string();
            state.nodes.insert(node.name.clone(), node);
        });
    }

    pub fn remove_node(&self, name: &str) {
        self.change(|state| state.nodes.remove(name));
    }

    #[must_use]
    pub fn stored_node(&self, name: &str) -> Option<Node> {
        self.state.lock().nodes.get(name).cloned()
    }

    pub fn put_pod(&self, pod: PodSummary) {
        self.change(|state| state.pods.push(pod));
    }

    /// Binds a pod to a node.
    pub fn bind_pod(&self, node: &str, pod: BoundPod) {
        self.change(|state| state.bound.insert((node.to_owned(), pod.name.clone()), pod));
    }

    /// Names of the pods that are bound to a node, sorted.
    #[must_use]
    pub fn bound_pods(&self, node: &str) -> Vec<String> {
        self.state.lock().bound.keys().filter(|(at, _)| at == node).map(|(_, name)| name.clone()).collect()
    }

    /// Has a disruption budget protect a pod of this name.
    pub fn forbid_eviction(&self, name: &str, forbidden: bool) {
        self.change(|state| {
            state.protected.remove(name);
            if forbidden {
                state.protected.insert(name.to_owned());
            }
        });
    }

    /// The evictions that were accepted, in order.
    #[must_use]
    pub fn evictions(&self) -> Vec<String> {
        self.state.lock().evictions.clone()
    }

    /// The pods reported by the kubelet.
    pub fn set_kubelet_pods(&self, pods: Vec<Value>) {
        self.change(|state| state.kubelet_pods = pods);
    }

    pub fn put_readiness(&self, namespace: &str, name: &str, readiness: Readiness) {
        self.change(|state| state.readiness.insert((namespace.to_owned(), name.to_owned()), readiness));
    }

    pub fn put_endpoints(&self, namespace: &str, name: &str, addresses: Vec<IpAddr>) {
        self.change(|state| state.endpoints.insert((namespace.to_owned(), name.to_owned()), addresses));
    }

    /// Everything created so far.
    #[must_use]
    pub fn objects(&self) -> BTreeMap<ObjectRef, Value> {
        self.state.lock().objects.clone()
    }

    fn check(&self, operation: &'static str, subject: &str) -> Result<(), KubeError> {
        let state = self.state.lock();
        if !state.reachable {
            return Err(unreachable_server(operation, subject));
        }
        match state.refused.get(operation) {
            Some(code) => Err(status(operation, subject, *code, "Refused")),
            None => Ok(()),
        }
    }

    fn create_one(state: &mut State, object: &Value) -> Result<(ObjectRef, Outcome), KubeError> {
        let mut reference = ObjectRef::of(object);
        if [&reference.api_version, &reference.kind, &reference.name].iter().any(|part| part.is_empty()) {
            return Err(KubeError::IncompleteManifest { object: reference });
        }
        if state.namespaced(&reference)? {
            if reference.namespace.is_empty() {
                "default".clone_into(&mut reference.namespace);
            }
            if !state.namespaces().contains(&reference.namespace) {
                return Err(status("creating", &reference.to_string(), 404, "NotFound"));
            }
        } else if !reference.namespace.is_empty() {
            return Err(status("creating", &reference.to_string(), 400, "BadRequest"));
        }
        if state.objects.contains_key(&reference) {
            return Ok((reference, Outcome::AlreadyThere));
        }
        state.objects.insert(reference.clone(), object.clone());
        Ok((reference, Outcome::Created))
    }
}

impl State {
    fn namespaces(&self) -> BTreeSet<String> {
        let created = self.objects.keys().filter(|object| object.kind == "Namespace");
        NAMESPACES.iter().map(|name| (*name).to_owned()).chain(created.map(|object| object.name.clone())).collect()
    }

    /// Whether a kind lives in namespaces; an error if there is no such kind.
    fn namespaced(&self, object: &ObjectRef) -> Result<bool, KubeError> {
        let custom = self.objects.values().filter(|definition| definition["kind"] == "CustomResourceDefinition").find(
            |definition| {
                definition.pointer("/spec/group").and_then(Value::as_str) == Some(object.group())
                    && definition.pointer("/spec/names/kind").and_then(Value::as_str) == Some(object.kind.as_str())
            },
        );
        if let Some(definition) = custom {
            return Ok(definition.pointer("/spec/scope").and_then(Value::as_str) == Some("Namespaced"));
        }
        if CLUSTER_KINDS.contains(&object.kind.as_str()) {
            return Ok(false);
        }
        if NAMESPACED_KINDS.contains(&object.kind.as_str()) && !object.group().contains("dev") {
            return Ok(true);
        }
        Err(KubeError::UnknownKind { api_version: object.api_version.clone(), kind: object.kind.clone() })
    }
}

fn unreachable_server(operation: &'static str, subject: &str) -> KubeError {
    let cause = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
    KubeError::Transport { operation, subject: subject.to_owned(), cause: Box::new(cause) }
}

fn status(operation: &'static str, subject: &str, code: u16, reason: &str) -> KubeError {
    KubeError::Status {
        operation,
        subject: subject.to_owned(),
        code,
        reason: reason.to_owned(),
        message: "said the fake".to_owned(),
    }
}

/// The events seen by a subscriber and the next ones.
struct Follower {
    fake: FakeKube,
    only: Option<String>,
    revision: watch::Receiver<u64>,
    seen: Option<BTreeMap<String, Node>>,
    queue: VecDeque<NodeEvent>,
}

impl Follower {
    async fn next(&mut self) -> Result<NodeEvent, KubeError> {
        loop {
            if let Some(event) = self.queue.pop_front() {
                return Ok(event);
            }
            self.fake.check("watching", "nodes")?;
            let now = self.current();
            match self.seen.replace(now.clone()) {
                None => return Ok(NodeEvent::Snapshot(now.into_values().collect())),
                Some(before) => {
                    self.queue.extend(
                        now.values()
                            .filter(|node| before.get(&node.name) != Some(*node))
                            .map(|node| NodeEvent::Changed(Box::new(node.clone()))),
                    );
                    self.queue.extend(before.into_keys().filter(|name| !now.contains_key(name)).map(NodeEvent::Gone));
                }
            }
            if self.queue.is_empty() && self.revision.changed().await.is_err() {
                return Err(unreachable_server("watching", "nodes"));
            }
        }
    }

    fn current(&self) -> BTreeMap<String, Node> {
        let mut nodes = self.fake.state.lock().nodes.clone();
        nodes.retain(|name, _| self.only.as_ref().is_none_or(|only| only == name));
        nodes
    }
}

#[async_trait]
impl KubeApi for FakeKube {
    async fn version(&self) -> Result<ServerVersion, KubeError> {
        self.check("asking", "the version")?;
        let mut parts = self.release.trim_start_matches('v').split('.').map(str::to_owned);
        let (major, minor) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        Ok(ServerVersion { git_version: self.release.clone(), major, minor })
    }

    async fn is_ready(&self) -> Result<bool, KubeError> {
        self.check("asking", "whether the server is ready")?;
        Ok(!self.state.lock().starting)
    }

    async fn request_certificate(&self, request: &SigningRequest) -> Result<String, KubeError> {
        self.check("creating", "a signing request")?;
        self.change(|state| {
            state.requests.push((request.clone(), Signing::Pending));
            Ok(format!("{}{}", request.name_prefix, state.requests.len()))
        })
    }

    async fn signing(&self, name: &str) -> Result<Signing, KubeError> {
        self.check("getting", name)?;
        let state = self.state.lock();
        let named = |(index, (request, _)): &(usize, &(SigningRequest, Signing))| {
            format!("{}{}", request.name_prefix, index + 1) == name
        };
        Ok(state.requests.iter().enumerate().find(named).map_or(Signing::Unknown, |(_, (_, signing))| signing.clone()))
    }

    async fn node(&self, name: &str) -> Result<Option<Node>, KubeError> {
        self.check("getting", name)?;
        Ok(self.stored_node(name))
    }

    async fn nodes(&self) -> Result<Vec<Node>, KubeError> {
        self.check("listing", "nodes")?;
        Ok(self.state.lock().nodes.values().cloned().collect())
    }

    fn watch_nodes(&self, only: Option<&str>) -> NodeEvents {
        let follower = Follower {
            fake: self.clone(),
            only: only.map(str::to_owned),
            revision: self.revision.subscribe(),
            seen: None,
            queue: VecDeque::new(),
        };
        stream::unfold(Some(follower), |follower| async move {
            let mut follower = follower?;
            match follower.next().await {
                Ok(event) => Some((Ok(event), Some(follower))),
                Err(error) => Some((Err(error), None)),
            }
        })
        .boxed()
    }

    async fn patch_node(&self, name: &str, patch: &NodePatch) -> Result<(), KubeError> {
        self.check("patching", name)?;
        self.change(|state| {
            state.version += 1;
            let version = state.version.to_string();
            let node = state.nodes.get_mut(name).ok_or_else(|| status("patching", name, 404, "NotFound"))?;
            if patch.resource_version.as_ref().is_some_and(|wanted| *wanted != node.resource_version) {
                return Err(status("patching", name, 409, "Conflict"));
            }
            if !patch.pod_cidrs.is_empty() {
                if !node.pod_cidrs.is_empty() && node.pod_cidrs != patch.pod_cidrs {
                    return Err(status("patching", name, 422, "Invalid"));
                }
                node.pod_cidrs.clone_from(&patch.pod_cidrs);
            }
            for (map, changes) in [(&mut node.labels, &patch.labels), (&mut node.annotations, &patch.annotations)] {
                for (key, value) in changes {
                    match value {
                        Some(value) => map.insert(key.clone(), value.clone()),
                        None => map.remove(key),
                    };
                }
            }
            if let Some(taints) = &patch.taints {
                node.taints.clone_from(taints);
            }
            node.unschedulable = patch.unschedulable.unwrap_or(node.unschedulable);
            node.resource_version = version;
            Ok(())
        })
    }

    async fn create_missing(&self, objects: &[Value]) -> Vec<Applied> {
        let mut applied = Vec::new();
        for object in create::ordered(objects) {
            let reference = ObjectRef::of(&object);
            let outcome = match self.check("creating", &reference.to_string()) {
                Ok(()) => self.change(|state| Self::create_one(state, &object)),
                Err(error) => Err(error),
            };
            applied.push(match outcome {
                Ok((object, outcome)) => Applied { object, outcome: Ok(outcome) },
                Err(error) => Applied { object: reference, outcome: Err(error) },
            });
        }
        applied
    }

    async fn pods(&self, namespace: &str) -> Result<Vec<PodSummary>, KubeError> {
        self.check("listing", namespace)?;
        let pods = &self.state.lock().pods;
        Ok(pods.iter().filter(|pod| pod.namespace == namespace).cloned().collect())
    }

    /// A pod that was evicted is seen once more, as leaving.
    async fn pods_on(&self, node: &str) -> Result<Vec<BoundPod>, KubeError> {
        self.check("listing", node)?;
        self.change(|state| {
            let pods: Vec<BoundPod> =
                state.bound.iter().filter(|((at, _), _)| at == node).map(|(_, pod)| pod.clone()).collect();
            state.bound.retain(|(at, _), pod| at != node || pod.upkeep != Upkeep::Leaving);
            Ok(pods)
        })
    }

    /// Stricter than a server: a pod that would come back, or is not evicted for another reason, is refused.
    async fn evict(&self, pod: &BoundPod) -> Result<Eviction, KubeError> {
        self.check("evicting", &pod.name)?;
        self.change(|state| {
            let found = state.bound.values_mut().find(|bound| bound.uid == pod.uid);
            let Some(found) = found else { return Ok(Eviction::Gone) };
            if found.upkeep != Upkeep::Evictable {
                return Err(status("evicting", &pod.name, 422, "Invalid"));
            }
            if state.protected.contains(&pod.name) {
                return Ok(Eviction::Forbidden("its disruption budget allows none".to_owned()));
            }
            found.upkeep = Upkeep::Leaving;
            state.evictions.push(format!("{}/{}", pod.namespace, pod.name));
            Ok(Eviction::Accepted)
        })
    }

    async fn readiness(&self, _kind: Workload, namespace: &str, name: &str) -> Result<Option<Readiness>, KubeError> {
        self.check("getting", name)?;
        Ok(self.state.lock().readiness.get(&(namespace.to_owned(), name.to_owned())).copied())
    }

    async fn endpoints(&self, namespace: &str, name: &str) -> Result<Vec<IpAddr>, KubeError> {
        self.check("getting", name)?;
        let key = (namespace.to_owned(), name.to_owned());
        Ok(self.state.lock().endpoints.get(&key).cloned().unwrap_or_default())
    }
}

#[async_trait]
impl KubeletApi for FakeKube {
    async fn pods(&self) -> Result<Vec<Value>, KubeError> {
        self.check("asking", "the kubelet for pods")?;
        Ok(self.state.lock().kubelet_pods.clone())
    }
}

/// Returns the same fake to every caller and records the callers.
#[derive(Debug, Clone)]
pub struct FakeConnect {
    kube: FakeKube,
    kubeconfigs: Arc<Mutex<Vec<String>>>,
}

impl FakeConnect {
    #[must_use]
    pub fn new(kube: FakeKube) -> Self {
        Self { kube, kubeconfigs: Arc::default() }
    }

    #[must_use]
    pub fn kubeconfigs(&self) -> Vec<String> {
        self.kubeconfigs.lock().clone()
    }
}

#[async_trait]
impl Connect for FakeConnect {
    async fn connect(&self, kubeconfig: &str) -> Result<Arc<dyn KubeApi>, KubeError> {
        self.kubeconfigs.lock().push(kubeconfig.to_owned());
        Ok(Arc::new(self.kube.clone()))
    }

    async fn connect_kubelet(&self, kubeconfig: &str) -> Result<Arc<dyn KubeletApi>, KubeError> {
        self.kubeconfigs.lock().push(kubeconfig.to_owned());
        Ok(Arc::new(self.kube.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[tokio::test]
    async fn definition_makes_its_kind_known_and_existing_objects_stay() {
        let fake = FakeKube::new("v1.30.0");
        let thing = json!({ "apiVersion": "x.dev/v1", "kind": "Thing", "metadata": { "name": "t" } });
        let alone = fake.create_missing(std::slice::from_ref(&thing)).await;
        assert!(matches!(&alone[0].outcome, Err(KubeError::UnknownKind { kind, .. }) if kind == "Thing"));

        let definition = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": { "name": "things.x.dev" },
            "spec": { "group": "x.dev", "names": { "kind": "Thing" }, "scope": "Namespaced" },
        });
        let objects = [thing, definition];
        for wanted in [Outcome::Created, Outcome::AlreadyThere] {
            for applied in fake.create_missing(&objects).await {
                assert_eq!(applied.outcome.unwrap(), wanted, "{}", applied.object);
            }
        }
    }

    #[tokio::test]
    async fn object_in_a_missing_namespace_is_refused() {
        let fake = FakeKube::new("v1.30.0");
        let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "m", "namespace": "no" } });
        let applied = fake.create_missing(&[map]).await;
        assert!(applied[0].outcome.as_ref().is_err_and(KubeError::is_not_found));
    }

    #[tokio::test]
    async fn patch_of_an_older_version_conflicts() {
        let fake = FakeKube::new("v1.30.0");
        fake.put_node(Node { name: "n".into(), ..Node::default() });
        let patch = NodePatch { resource_version: Some("0".into()), ..NodePatch::default() };
        assert!(fake.patch_node("n", &patch).await.is_err_and(|error| error.is_conflict()));
        assert!(fake.patch_node("m", &NodePatch::default()).await.is_err_and(|error| error.is_not_found()));
    }
}
