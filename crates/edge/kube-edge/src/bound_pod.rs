//! A pod on its node, as a drain sees it.

use k8s_openapi::api::core::v1 as core;

/// The annotation of pods that stand for static ones.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// Who looks after a pod, which decides whether a drain evicts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upkeep {
    /// It is evicted.
    Evictable,
    /// Evicted already: its processes have their time to end.
    Leaving,
    /// A daemon set would put it on the node again.
    DaemonSet,
    /// It stands for a static pod of the node.
    Mirror,
    /// Nothing of it runs.
    Finished,
}

/// A pod that is bound to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoundPod {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub upkeep: Upkeep,
}

impl BoundPod {
    pub(crate) fn id(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

impl From<core::Pod> for BoundPod {
    fn from(pod: core::Pod) -> Self {
        let metadata = pod.metadata;
        let is_mirror = metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(MIRROR));
        let mut owners = metadata.owner_references.iter().flatten();
        let is_of_set = owners.any(|owner| owner.controller == Some(true) && owner.kind == "DaemonSet");
        let phase = pod.status.and_then(|status| status.phase).unwrap_or_default();
        let upkeep = match phase.as_str() {
            _ if is_mirror => Upkeep::Mirror,
            _ if is_of_set => Upkeep::DaemonSet,
            "Succeeded" | "Failed" => Upkeep::Finished,
            _ if metadata.deletion_timestamp.is_some() => Upkeep::Leaving,
            _ => Upkeep::Evictable,
        };
        Self {
            namespace: metadata.namespace.unwrap_or_default(),
            name: metadata.name.unwrap_or_default(),
            uid: metadata.uid.unwrap_or_default(),
            upkeep,
        }
    }
}

/// The API server's answer to an eviction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Eviction {
    /// The pod ends.
    Accepted,
    /// There is no such pod any more.
    Gone,
    /// A disruption budget forbids it for now; the API server's reason.
    Forbidden(String),
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_object_tells_who_looks_after_a_pod() {
        let upkeep = |metadata: serde_json::Value, phase: &str| {
            let pod: core::Pod =
                serde_json::from_value(json!({ "metadata": metadata, "status": { "phase": phase } })).unwrap();
            BoundPod::from(pod).upkeep
        };
        let owner = |kind: &str, controller: bool| json!({ "ownerReferences": [{ "apiVersion": "apps/v1", "kind": kind, "name": "x", "uid": "u", "controller": controller }] });
        assert_eq!(upkeep(json!({}), "Running"), Upkeep::Evictable);
        assert_eq!(upkeep(owner("ReplicaSet", true), "Pending"), Upkeep::Evictable);
        assert_eq!(upkeep(owner("DaemonSet", true), "Running"), Upkeep::DaemonSet);
        assert_eq!(upkeep(owner("DaemonSet", false), "Running"), Upkeep::Evictable);
        assert_eq!(upkeep(json!({ "annotations": { MIRROR: "x" } }), "Running"), Upkeep::Mirror);
        assert_eq!(upkeep(json!({}), "Succeeded"), Upkeep::Finished);
        assert_eq!(upkeep(json!({ "deletionTimestamp": "2024-02-29T00:00:05Z" }), "Running"), Upkeep::Leaving);
    }
}
