//! kube-proxy, on every node.

use serde_json::{Value, json};

use super::{account_subject, cluster_role_binding, service_account};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyInput {
    pub image: String,
    /// Complete, as [`args`] makes them.
    pub args: Vec<String>,
}

/// kube-proxy's flags; `mode` is `iptables` unless given, and `extra` overrides.
#[must_use]
pub fn args(pod_cidrs: &[String], mode: &str, extra: &std::collections::BTreeMap<String, String>) -> Vec<String> {
    let mut args = std::collections::BTreeMap::from([
        ("cluster-cidr".to_owned(), pod_cidrs.join(",")),
        // The connection table belongs to the owner of the kernel, which may be the host.
        ("conntrack-max-per-core".to_owned(), "0".to_owned()),
        ("hostname-override".to_owned(), "$(NODE_NAME)".to_owned()),
        ("kubeconfig".to_owned(), "/etc/kubernetes/kubeconfig".to_owned()),
        ("proxy-mode".to_owned(), if mode.is_empty() { "iptables" } else { mode }.to_owned()),
    ]);
    args.extend(extra.iter().map(|(name, value)| (name.clone(), value.clone())));
    args.into_iter().map(|(name, value)| format!("--{name}={value}")).collect()
}

pub(super) fn objects(input: &ProxyInput) -> Vec<Value> {
    vec![
        service_account("kube-system", "kube-proxy"),
        cluster_role_binding("kube-proxy", "system:node-proxier", &account_subject("kube-system", "kube-proxy")),
        daemon_set(input),
    ]
}

fn daemon_set(input: &ProxyInput) -> Value {
    let mut command = vec!["/usr/local/bin/kube-proxy".to_owned()];
    command.extend(input.args.iter().cloned());
    let labels = json!({ "tier": "node", "k8s-app": "kube-proxy" });
    json!({
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": { "name": "kube-proxy", "namespace": "kube-system", "labels": labels },
        "spec": {
            "selector": { "matchLabels": labels },
            "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 1 } },
            "template": {
                "metadata": { "labels": labels },
                "spec": {
                    "containers": [container(input, &command)],
                    "hostNetwork": true,
                    "priorityClassName": "system-cluster-critical",
                    "serviceAccountName": "kube-proxy",
                    "tolerations": [
                        { "effect": "NoSchedule", "operator": "Exists" },
                        { "effect": "NoExecute", "operator": "Exists" },
                    ],
                    "volumes": [
                        { "name": "lib-modules", "hostPath": { "path": "/lib/modules" } },
                        { "name": "kubeconfig", "configMap": { "name": "kubeconfig-in-cluster" } },
                    ],
                },
            },
        },
    })
}

fn container(input: &ProxyInput, command: &[String]) -> Value {
    json!({
        "name": "kube-proxy",
        "image": input.image,
        "command": command,
        "env": [
            { "name": "NODE_NAME", "valueFrom": { "fieldRef": { "fieldPath": "spec.nodeName" } } },
            { "name": "POD_IP", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } },
        ],
        "securityContext": { "privileged": true },
        "volumeMounts": [
            { "name": "lib-modules", "mountPath": "/lib/modules", "readOnly": true },
            { "name": "kubeconfig", "mountPath": "/etc/kubernetes", "readOnly": true },
        ],
    })
}
