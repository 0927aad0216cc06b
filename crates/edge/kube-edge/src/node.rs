//! A Kubernetes node, as far as the operating system cares.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::SystemTime;

use ipnet::IpNet;
use k8s_openapi::api::core::v1 as core;
use serde_json::{Map, Value, json};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeAddress {
    /// `InternalIP`, `ExternalIP`, `Hostname`, …
    pub kind: String,
    pub address: String,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Taint {
    pub key: String,
    /// May be empty.
    pub value: String,
    pub effect: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Node {
    pub name: String,
    pub uid: String,
    pub resource_version: String,
    pub ready: bool,
    /// When it was registered; in whole seconds.
    pub created_at: Option<SystemTime>,
    /// Since when it is ready, or is not; in whole seconds.
    pub ready_since: Option<SystemTime>,
    pub unschedulable: bool,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub taints: Vec<Taint>,
    pub pod_cidrs: Vec<IpNet>,
    pub addresses: Vec<NodeAddress>,
    pub kubelet_version: String,
}

impl Node {
    /// Addresses of one kind that are IP addresses.
    pub fn ips<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = IpAddr> + 'a {
        self.addresses
            .iter()
            .filter(move |address| address.kind == kind)
            .filter_map(|address| address.address.parse().ok())
    }
}

/// The label of control plane nodes.
pub const CONTROL_PLANE_LABEL: &str = "node-role.kubernetes.io/control-plane";

/// The first internal address of each node that has one, by the node's role.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodesByRole {
    pub control_planes: Vec<IpAddr>,
    pub workers: Vec<IpAddr>,
}

impl NodesByRole {
    /// In the order of `nodes`.
    #[must_use]
    pub fn of(nodes: &[Node]) -> Self {
        let mut by_role = Self::default();
        for node in nodes {
            let Some(address) = node.ips("InternalIP").next() else { continue };
            let is_control_plane = node.labels.contains_key(CONTROL_PLANE_LABEL);
            (if is_control_plane { &mut by_role.control_planes } else { &mut by_role.workers }).push(address);
        }
        by_role
    }
}

impl From<core::Node> for Node {
    fn from(node: core::Node) -> Self {
        let metadata = node.metadata;
        let spec = node.spec.unwrap_or_default();
        let status = node.status.unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        let readiness = conditions.iter().find(|condition| condition.type_ == "Ready");
        let pod_cidrs = match spec.pod_cidrs {
            Some(all) if !all.is_empty() => all,
            _ => spec.pod_cidr.into_iter().collect(),
        };
        Self {
            name: metadata.name.unwrap_or_default(),
            uid: metadata.uid.unwrap_or_default(),
            resource_version: metadata.resource_version.unwrap_or_default(),
            ready: readiness.is_some_and(|condition| condition.status == "True"),
            created_at: metadata.creation_timestamp.map(|time| time.0.into()),
            ready_since: readiness.and_then(|condition| Some(condition.last_transition_time.as_ref()?.0.into())),
            unschedulable: spec.unschedulable.unwrap_or_default(),
            labels: metadata.labels.unwrap_or_default(),
            annotations: metadata.annotations.unwrap_or_default(),
            taints: spec
                .taints
                .unwrap_or_default()
                .into_iter()
                .map(|taint| Taint { key: taint.key, value: taint.value.unwrap_or_default(), effect: taint.effect })
                .collect(),
            pod_cidrs: pod_cidrs.iter().filter_map(|cidr| cidr.parse().ok()).collect(),
            addresses: status
                .addresses
                .unwrap_or_default()
                .into_iter()
                .map(|address| NodeAddress { kind: address.type_, address: address.address })
                .collect(),
            kubelet_version: status.node_info.map(|info| info.kubelet_version).unwrap_or_default(),
        }
    }
}

/// Changes to a node. Unnamed fields stay unchanged.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodePatch {
    /// New values; `None` removes.
    pub labels: BTreeMap<String, Option<String>>,
    pub annotations: BTreeMap<String, Option<String>>,
    /// All taints that the node shall have.
    pub taints: Option<Vec<Taint>>,
    pub unschedulable: Option<bool>,
    /// The node's pod subnets, for good: a server refuses to change them. Empty leaves them.
    pub pod_cidrs: Vec<IpNet>,
    /// Only if the node is still at this version.
    pub resource_version: Option<String>,
}

impl NodePatch {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
            && self.annotations.is_empty()
            && self.taints.is_none()
            && self.unschedulable.is_none()
            && self.pod_cidrs.is_empty()
    }

    /// As a JSON merge patch (RFC 7396).
    #[must_use]
    pub fn to_merge_patch(&self) -> Value {
        let mut metadata = Map::new();
        if !self.labels.is_empty() {
            metadata.insert("labels".to_owned(), json!(self.labels));
        }
        if !self.annotations.is_empty() {
            metadata.insert("annotations".to_owned(), json!(self.annotations));
        }
        if let Some(version) = &self.resource_version {
            metadata.insert("resourceVersion".to_owned(), json!(version));
        }
        let mut spec = Map::new();
        if let Some(taints) = &self.taints {
            spec.insert("taints".to_owned(), Value::Array(taints.iter().map(taint_json).collect()));
        }
        if let Some(unschedulable) = self.unschedulable {
            spec.insert("unschedulable".to_owned(), json!(unschedulable));
        }
        if let Some(first) = self.pod_cidrs.first() {
            // The older field is the first of them; a server that gets only one of both fields refuses the patch.
            spec.insert("podCIDR".to_owned(), json!(first.to_string()));
            spec.insert("podCIDRs".to_owned(), self.pod_cidrs.iter().map(ToString::to_string).collect());
        }
        let mut patch = Map::new();
        if !metadata.is_empty() {
            patch.insert("metadata".to_owned(), Value::Object(metadata));
        }
        if !spec.is_empty() {
            patch.insert("spec".to_owned(), Value::Object(spec));
        }
        Value::Object(patch)
    }
}

fn taint_json(taint: &Taint) -> Value {
    let mut json = json!({ "key": taint.key, "effect": taint.effect });
    if !taint.value.is_empty() {
        json["value"] = json!(taint.value);
    }
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_is_read_with_one_or_many_pod_subnets() {
        let json = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": { "name": "w1", "uid": "u", "resourceVersion": "7" },
            "spec": { "podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24", "fd00::/64"],
                      "taints": [{ "key": "a", "effect": "NoSchedule" }] },
            "status": { "conditions": [{ "type": "Ready", "status": "True" }],
                        "addresses": [{ "type": "InternalIP", "address": "10.5.0.3" },
                                      { "type": "Hostname", "address": "w1" }] },
        });
        let node = Node::from(serde_json::from_value::<core::Node>(json).unwrap());
        assert!(node.ready);
        assert_eq!(node.pod_cidrs.len(), 2);
        assert_eq!(node.ips("InternalIP").map(|ip| ip.to_string()).collect::<Vec<_>>(), ["10.5.0.3"]);
        assert_eq!(node.taints[0].effect, "NoSchedule");

        let old = json!({ "metadata": { "name": "w1" }, "spec": { "podCIDR": "10.244.1.0/24" } });
        let node = Node::from(serde_json::from_value::<core::Node>(old).unwrap());
        assert_eq!(node.pod_cidrs, ["10.244.1.0/24".parse::<IpNet>().unwrap()]);
        assert!(!node.ready);
    }

    #[test]
    fn a_node_is_read_with_the_times_of_its_registration_and_its_readiness() {
        let node: core::Node = serde_json::from_value(json!({
            "metadata": { "name": "a", "creationTimestamp": "2024-02-29T00:00:05Z" },
            "status": { "conditions": [
                { "type": "DiskPressure", "status": "False", "lastTransitionTime": "2024-02-29T00:00:06Z" },
                { "type": "Ready", "status": "True", "lastTransitionTime": "2024-02-29T00:00:09Z" },
            ] },
        }))
        .unwrap();
        let node = Node::from(node);
        let seconds =
            |time: Option<SystemTime>| time.unwrap().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let base = 1_709_164_800;
        assert_eq!((node.ready, seconds(node.created_at), seconds(node.ready_since)), (true, base + 5, base + 9));
        assert_eq!(Node::from(core::Node::default()).created_at, None);
    }

    #[test]
    fn patch_names_only_what_changes() {
        assert_eq!(NodePatch::default().to_merge_patch(), json!({}));
        let patch = NodePatch {
            labels: BTreeMap::from([("new".to_owned(), Some("1".to_owned())), ("old".to_owned(), None)]),
            taints: Some(vec![Taint { key: "k".into(), value: String::new(), effect: "NoSchedule".into() }]),
            resource_version: Some("9".to_owned()),
            ..NodePatch::default()
        };
        assert_eq!(
            patch.to_merge_patch(),
            json!({
                "metadata": { "labels": { "new": "1", "old": null }, "resourceVersion": "9" },
                "spec": { "taints": [{ "key": "k", "effect": "NoSchedule" }] },
            })
        );
        let pod_cidrs = ["10.244.1.0/24", "fd00::/64"].map(|text| text.parse().unwrap()).to_vec();
        let patch = NodePatch { pod_cidrs, ..NodePatch::default() };
        assert!(!patch.is_empty());
        let spec = json!({ "podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24", "fd00::/64"] });
        assert_eq!(patch.to_merge_patch(), json!({ "spec": spec }));
    }
}
