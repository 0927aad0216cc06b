//! Static pods: Kubernetes objects whose YAML form has no enclosing key.

use serde_json::Value;

use crate::field::Field;
use crate::object::{self, Object};
use crate::spec::{Column, Definition, Sensitivity, Spec};

/// A pod for the kubelet to run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StaticPod {
    /// The `Pod` object.
    pub pod: Object,
}

impl Spec for StaticPod {
    const DEFINITION: Definition = Definition {
        type_name: "StaticPods.kubernetes.talos.dev",
        namespace: super::NAMESPACE,
        aliases: &[],
        columns: &[],
        sensitivity: Sensitivity::Sensitive,
    };
    fn to_yaml(&self) -> Value {
        object::sorted(&self.pod)
    }
    fn to_proto(&self) -> Vec<u8> {
        object_field(&self.pod)
    }
}

/// The kubelet's status of a static pod.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StaticPodStatus {
    /// The `status` of the `Pod`.
    pub pod_status: Object,
}

impl Spec for StaticPodStatus {
    const DEFINITION: Definition = Definition {
        type_name: "StaticPodStatuses.kubernetes.talos.dev",
        namespace: super::NAMESPACE,
        aliases: &["podstatus"],
        columns: &[Column { name: "Ready", json_path: r#"{.conditions[?(@.type=="Ready")].status}"# }],
        sensitivity: Sensitivity::NonSensitive,
    };
    fn to_yaml(&self) -> Value {
        object::sorted(&self.pod_status)
    }
    fn to_proto(&self) -> Vec<u8> {
        object_field(&self.pod_status)
    }
}

fn object_field(object: &Object) -> Vec<u8> {
    let mut out = Vec::new();
    object.encode(1, &mut out);
    out
}
