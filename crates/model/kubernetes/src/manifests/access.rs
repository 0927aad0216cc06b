//! RBAC of a new cluster: joining kubelets, and pods that need a kubeconfig.

use serde_json::{Value, json};

use super::{cluster_role_binding, group_subject};
use crate::kubeconfig;

/// Group of all holders of the bootstrap token.
const BOOTSTRAPPERS: &str = "system:bootstrappers:nodes";
const NODES: &str = "system:nodes";

pub(super) fn bootstrap_token(id: &str, secret: &str) -> Vec<Value> {
    vec![json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": { "name": format!("bootstrap-token-{id}"), "namespace": "kube-system" },
        "type": "bootstrap.kubernetes.io/token",
        "stringData": {
            "token-id": id,
            "token-secret": secret,
            "usage-bootstrap-authentication": "true",
            "auth-extra-groups": BOOTSTRAPPERS,
        },
    })]
}

/// The group of a node's own health checks.
pub const HEALTH_READERS: &str = "talos:health-readers";

/// What health checks read, and nothing else: nodes, and the system's pods and workloads.
pub(super) fn health_readers() -> Vec<Value> {
    const NAME: &str = "talos:health-reader";
    let rule = |group: &str, resources: &[&str]| json!({ "apiGroups": [group], "resources": resources, "verbs": ["get", "list"] });
    vec![
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": { "name": NAME },
            "rules": [rule("", &["nodes"])],
        }),
        cluster_role_binding(NAME, NAME, &group_subject(HEALTH_READERS)),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": { "name": NAME, "namespace": "kube-system" },
            "rules": [rule("", &["pods"]), rule("apps", &["daemonsets", "deployments"])],
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": { "name": NAME, "namespace": "kube-system" },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": NAME },
            "subjects": [group_subject(HEALTH_READERS)],
        }),
    ]
}

pub(super) fn request_certificates() -> Value {
    cluster_role_binding(
        "system-bootstrap-node-bootstrapper",
        "system:node-bootstrapper",
        &group_subject(BOOTSTRAPPERS),
    )
}

pub(super) fn approve_first_certificates() -> Value {
    cluster_role_binding(
        "system-bootstrap-approve-node-client-csr",
        "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
        &group_subject(BOOTSTRAPPERS),
    )
}

pub(super) fn approve_renewals() -> Value {
    cluster_role_binding(
        "system-bootstrap-node-renewal",
        "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
        &group_subject(NODES),
    )
}

pub(super) fn in_cluster_kubeconfig(server: &str) -> Value {
    let kubeconfig = kubeconfig::in_cluster(server);
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": "kubeconfig-in-cluster", "namespace": "kube-system" },
        // JSON is YAML, and it cannot be misread.
        "data": { "kubeconfig": format!("{kubeconfig:#}\n") },
    })
}
