//! Access to the machine API from inside the cluster.

use serde_json::{Value, json};

/// Without a selector: its endpoints are kept by the control plane nodes.
pub(super) fn service() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": "talos",
            "namespace": "default",
            "labels": { "component": "apid", "provider": "talos" },
        },
        "spec": { "ports": [{ "name": "apid", "port": 50000, "protocol": "TCP", "targetPort": 50000 }] },
    })
}

/// Asks for credentials of the machine API with some roles, delivered as a Secret.
pub(super) fn service_account_crd() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": "serviceaccounts.talos.dev" },
        "spec": {
            "group": "talos.dev",
            "names": {
                "kind": "ServiceAccount",
                "listKind": "ServiceAccountList",
                "plural": "serviceaccounts",
                "singular": "serviceaccount",
                "shortNames": ["tsa"],
            },
            "scope": "Namespaced",
            "versions": [{
                "name": "v1alpha1",
                "served": true,
                "storage": true,
                "schema": { "openAPIV3Schema": {
                    "type": "object",
                    "properties": {
                        "spec": {
                            "type": "object",
                            "properties": { "roles": { "type": "array", "items": { "type": "string" } } },
                        },
                        "status": {
                            "type": "object",
                            "properties": { "failureReason": { "type": "string" } },
                        },
                    },
                } },
            }],
        },
    })
}
