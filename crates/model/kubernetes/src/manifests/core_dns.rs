//! The cluster's DNS, and the Service in front of the nodes' own resolvers.

use serde_json::{Value, json};

use super::{CoreDnsInput, account_subject, cluster_role_binding, service_account};

const NAMESPACE: &str = "kube-system";
const NAME: &str = "coredns";
/// Selector label of the cluster's DNS, independent of the implementation.
const APP: &str = "kube-dns";

pub(super) fn objects(input: &CoreDnsInput) -> Vec<Value> {
    vec![
        service_account(NAMESPACE, NAME),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": { "name": "system:coredns" },
            "rules": [
                {
                    "apiGroups": [""],
                    "resources": ["endpoints", "services", "pods", "namespaces"],
                    "verbs": ["list", "watch"],
                },
                { "apiGroups": [""], "resources": ["nodes"], "verbs": ["get"] },
                { "apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"] },
            ],
        }),
        cluster_role_binding("system:coredns", "system:coredns", &account_subject(NAMESPACE, NAME)),
        json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": { "name": NAME, "namespace": NAMESPACE },
            "data": { "Corefile": corefile(&input.cluster_domain) },
        }),
        deployment(input),
    ]
}

fn corefile(domain: &str) -> String {
    format!(
        ".:53 {{
    errors
    health {{
        lameduck 5s
    }}
    ready
    log . {{
        class error
    }}
    prometheus :9153
    kubernetes {domain} in-addr.arpa ip6.arpa {{
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
        ttl 30
    }}
    forward . /etc/resolv.conf {{
        max_concurrent 1000
    }}
    cache 30 {{
        denial 9984 30
    }}
    loop
    reload
    loadbalance
}}
"
    )
}

fn deployment(input: &CoreDnsInput) -> Value {
    let selector = json!({ "k8s-app": APP });
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": NAME,
            "namespace": NAMESPACE,
            "labels": { "k8s-app": APP, "kubernetes.io/name": "CoreDNS" },
        },
        "spec": {
            "replicas": 2,
            "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 1 } },
            "selector": { "matchLabels": selector },
            "template": {
                "metadata": { "labels": selector },
                "spec": {
                    "affinity": { "podAntiAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [{
                        "weight": 100,
                        "podAffinityTerm": {
                            "labelSelector": { "matchLabels": selector },
                            "topologyKey": "kubernetes.io/hostname",
                        },
                    }] } },
                    "containers": [container(input)],
                    "dnsPolicy": "Default",
                    "priorityClassName": "system-cluster-critical",
                    "securityContext": { "seccompProfile": { "type": "RuntimeDefault" } },
                    "serviceAccountName": NAME,
                    "tolerations": [
                        {
                            "key": "node-role.kubernetes.io/control-plane",
                            "operator": "Exists",
                            "effect": "NoSchedule",
                        },
                        {
                            "key": "node.cloudprovider.kubernetes.io/uninitialized",
                            "operator": "Exists",
                            "effect": "NoSchedule",
                        },
                    ],
                    "volumes": [{
                        "name": "config-volume",
                        "configMap": { "name": NAME, "items": [{ "key": "Corefile", "path": "Corefile" }] },
                    }],
                },
            },
        },
    })
}

fn container(input: &CoreDnsInput) -> Value {
    json!({
        "name": NAME,
        "image": input.image,
        "args": ["-conf", "/etc/coredns/Corefile"],
        "ports": [
            { "name": "dns", "containerPort": 53, "protocol": "UDP" },
            { "name": "dns-tcp", "containerPort": 53, "protocol": "TCP" },
            { "name": "metrics", "containerPort": 9153, "protocol": "TCP" },
        ],
        "livenessProbe": {
            "httpGet": { "path": "/health", "port": 8080, "scheme": "HTTP" },
            "initialDelaySeconds": 60,
            "timeoutSeconds": 5,
            "successThreshold": 1,
            "failureThreshold": 5,
        },
        // Asked often, as a new cluster has no names until the first good answer; the first question comes at a random time
        // within the period. It takes as long as with the usual period until a pod is no longer ready.
        "readinessProbe": {
            "httpGet": { "path": "/ready", "port": 8181, "scheme": "HTTP" },
            "periodSeconds": 2,
            "timeoutSeconds": 2,
            "failureThreshold": 15,
        },
        "resources": { "requests": { "cpu": "100m", "memory": "70Mi" }, "limits": { "memory": "170Mi" } },
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": { "drop": ["ALL"], "add": ["NET_BIND_SERVICE"] },
            "readOnlyRootFilesystem": true,
        },
        "volumeMounts": [{ "name": "config-volume", "mountPath": "/etc/coredns", "readOnly": true }],
    })
}

pub(super) fn service(input: &CoreDnsInput) -> Value {
    let families: Vec<&str> =
        input.service_ips.iter().map(|ip| if ip.contains(':') { "IPv6" } else { "IPv4" }).collect();
    let mut spec = json!({
        "selector": { "k8s-app": APP },
        "ports": [
            { "name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53 },
            { "name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53 },
            { "name": "metrics", "port": 9153, "protocol": "TCP", "targetPort": 9153 },
        ],
    });
    if let Some(first) = input.service_ips.first() {
        spec["clusterIP"] = json!(first);
    }
    if input.service_ips.len() > 1 {
        spec["clusterIPs"] = json!(input.service_ips);
        spec["ipFamilies"] = json!(families);
        spec["ipFamilyPolicy"] = json!("RequireDualStack");
    }
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": APP,
            "namespace": NAMESPACE,
            "annotations": { "prometheus.io/port": "9153", "prometheus.io/scrape": "true" },
            "labels": {
                "k8s-app": APP,
                "kubernetes.io/cluster-service": "true",
                "kubernetes.io/name": "CoreDNS",
            },
        },
        "spec": spec,
    })
}

/// Without a selector: its endpoints are kept by the nodes.
pub(super) fn host_dns_service(address: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": "host-dns", "namespace": NAMESPACE },
        "spec": {
            "clusterIP": address,
            "ports": [
                { "name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53 },
                { "name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53 },
            ],
            "type": "ClusterIP",
        },
    })
}
