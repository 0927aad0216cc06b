//! Static pods: objects of Kubernetes as they are, whose YAML form has no key around them.

use serde_json::Value;

use crate::field::Field;
use crate::object::{self, Object};
use crate::spec::{Column, Definition, Sensitivity, Spec};

/// A pod that the kubelet is to run.
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

/// What the kubelet says about a static pod.
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
