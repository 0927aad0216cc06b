//! Who may do what in a new cluster: joining kubelets, and pods that need a kubeconfig.

use serde_json::{Value, json};

use super::{cluster_role_binding, group_subject};
use crate::kubeconfig;

/// Group of everybody who holds the bootstrap token.
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
