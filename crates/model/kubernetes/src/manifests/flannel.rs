//! Flannel as the pod network: VXLAN between nodes.

use serde_json::{Value, json};

use super::{account_subject, cluster_role_binding, service_account};

const NAMESPACE: &str = "kube-system";
const NAME: &str = "flannel";
/// VXLAN's registered UDP port.
const PORT: u16 = 4789;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlannelInput {
    pub image: String,
    /// Copies the CNI plug-in to the node.
    pub install_cni_image: String,
    pub pod_cidrs: Vec<String>,
    pub extra_args: Vec<String>,
    /// Where the API server is reached; empty for the cluster's own Service.
    pub service_host: String,
    pub service_port: String,
}

pub(super) fn objects(input: &FlannelInput) -> Vec<Value> {
    vec![
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": { "name": NAME },
            "rules": [
                { "apiGroups": [""], "resources": ["pods"], "verbs": ["get"] },
                { "apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch"] },
                { "apiGroups": [""], "resources": ["nodes/status"], "verbs": ["patch"] },
            ],
        }),
        cluster_role_binding(NAME, NAME, &account_subject(NAMESPACE, NAME)),
        service_account(NAMESPACE, NAME),
        config_map(input),
        daemon_set(input),
    ]
}

fn config_map(input: &FlannelInput) -> Value {
    let cni = json!({
        "name": "cbr0",
        "cniVersion": "1.0.0",
        "plugins": [
            { "type": "flannel", "delegate": { "hairpinMode": true, "isDefaultGateway": true } },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ],
    });
    let mut net = json!({ "Backend": { "Type": "vxlan", "Port": PORT } });
    for cidr in &input.pod_cidrs {
        if cidr.contains(':') {
            net["IPv6Network"] = json!(cidr);
            net["EnableIPv6"] = json!(true);
        } else {
            net["Network"] = json!(cidr);
        }
    }
    if net.get("Network").is_none() {
        net["EnableIPv4"] = json!(false);
    }
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": "kube-flannel-cfg",
            "namespace": NAMESPACE,
            "labels": { "tier": "node", "k8s-app": NAME },
        },
        "data": { "cni-conf.json": format!("{cni:#}\n"), "net-conf.json": format!("{net:#}\n") },
    })
}

fn daemon_set(input: &FlannelInput) -> Value {
    let labels = json!({ "tier": "node", "k8s-app": NAME });
    json!({
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": { "name": "kube-flannel", "namespace": NAMESPACE, "labels": labels },
        "spec": {
            "selector": { "matchLabels": labels },
            "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 1 } },
            "template": {
                "metadata": { "labels": labels },
                "spec": {
                    "containers": [container(input)],
                    "initContainers": init_containers(input),
                    "hostNetwork": true,
                    "priorityClassName": "system-node-critical",
                    "serviceAccountName": NAME,
                    "tolerations": [
                        { "effect": "NoSchedule", "operator": "Exists" },
                        { "effect": "NoExecute", "operator": "Exists" },
                    ],
                    "volumes": [
                        { "name": "run", "hostPath": { "path": "/run/flannel", "type": "DirectoryOrCreate" } },
                        { "name": "cni-plugin", "hostPath": { "path": "/opt/cni/bin" } },
                        { "name": "cni", "hostPath": { "path": "/etc/cni/net.d" } },
                        { "name": "flannel-cfg", "configMap": { "name": "kube-flannel-cfg" } },
                    ],
                },
            },
        },
    })
}

fn container(input: &FlannelInput) -> Value {
    let mut args = vec!["--ip-masq".to_owned(), "--kube-subnet-mgr".to_owned()];
    args.extend(input.extra_args.iter().cloned());
    let mut environment = vec![
        json!({ "name": "POD_NAME", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } }),
        json!({ "name": "POD_NAMESPACE", "valueFrom": { "fieldRef": { "fieldPath": "metadata.namespace" } } }),
        json!({ "name": "EVENT_QUEUE_DEPTH", "value": "5000" }),
    ];
    if !input.service_host.is_empty() {
        environment.push(json!({ "name": "KUBERNETES_SERVICE_HOST", "value": input.service_host }));
    }
    if !input.service_port.is_empty() {
        environment.push(json!({ "name": "KUBERNETES_SERVICE_PORT", "value": input.service_port }));
    }
    json!({
        "name": "kube-flannel",
        "image": input.image,
        "command": ["/opt/bin/flanneld"],
        "args": args,
        "env": environment,
        "resources": { "requests": { "cpu": "100m", "memory": "50Mi" } },
        "securityContext": { "privileged": false, "capabilities": { "add": ["NET_ADMIN", "NET_RAW"] } },
        "volumeMounts": [
            { "name": "run", "mountPath": "/run/flannel" },
            { "name": "flannel-cfg", "mountPath": "/etc/kube-flannel/" },
        ],
    })
}

fn init_containers(input: &FlannelInput) -> Value {
    json!([
        {
            "name": "install-cni",
            "image": input.install_cni_image,
            "command": ["/install-cni.sh"],
            "volumeMounts": [{ "name": "cni-plugin", "mountPath": "/host/opt/cni/bin/" }],
        },
        {
            "name": "install-config",
            "image": input.image,
            "command": ["cp"],
            "args": ["-f", "/etc/kube-flannel/cni-conf.json", "/etc/cni/net.d/10-flannel.conflist"],
            "volumeMounts": [
                { "name": "cni", "mountPath": "/etc/cni/net.d" },
                { "name": "flannel-cfg", "mountPath": "/etc/kube-flannel/" },
            ],
        },
    ])
}
