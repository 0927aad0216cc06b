//! Pods of different nodes reach each other through Services.

use std::time::Duration;

use anyhow::ensure;

use crate::cluster::{CONTROL_PLANE, Cluster, GATEWAY, Kubernetes, WORKER};
use tests::support::eventually;

/// A pod that serves its own name over HTTP on one node, and the Service of that pod.
fn manifest(name: &str, node: &str) -> String {
    format!(
        r#"{{"apiVersion": "v1", "kind": "List", "items": [
  {{"apiVersion": "v1", "kind": "Pod", "metadata": {{"name": "{name}", "labels": {{"app": "{name}"}}}}, "spec": {{
    "nodeName": "{node}", "terminationGracePeriodSeconds": 0,
    "tolerations": [{{"operator": "Exists"}}],
    "containers": [{{"name": "web", "image": "docker.io/library/busybox:1.37.0", "imagePullPolicy": "IfNotPresent",
      "command": ["sh", "-c", "mkdir /www && echo {name} > /www/index.html && exec httpd -f -p 8080 -h /www"]}}]}}}},
  {{"apiVersion": "v1", "kind": "Service", "metadata": {{"name": "{name}"}}, "spec": {{
    "selector": {{"app": "{name}"}}, "ports": [{{"port": 80, "targetPort": 8080}}]}}}}
]}}"#
    )
}

/// The pods on the nodes of the shared cluster.
const PODS: [(&str, &str); 2] = [("on-control-plane", CONTROL_PLANE.name), ("on-worker", WORKER.name)];
/// Client and server of a request.
const WAYS: [(&str, &str); 2] = [("on-worker", "on-control-plane"), ("on-control-plane", "on-worker")];

/// Makes a pod on each of the nodes, and removes them when the check is done with them.
fn with_pods_on(
    kubernetes: &Kubernetes,
    nodes: [(&str, &str); 2],
    check: impl Fn() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    for (name, node) in nodes {
        // An earlier check that failed left its own.
        kubernetes.ask(&["delete", "--ignore-not-found", &format!("pod/{name}"), &format!("service/{name}")])?.ok()?;
        kubernetes.apply(&format!("{name}.json"), &manifest(name, node))?;
    }
    check()?;
    for (name, _) in nodes {
        kubernetes.ask(&["delete", &format!("pod/{name}"), &format!("service/{name}"), "--wait=true"])?.ok()?;
    }
    Ok(())
}

/// As [`with_pods_on`], on the nodes of the shared cluster.
fn with_pods(cluster: &Cluster, check: impl Fn() -> anyhow::Result<()>) -> anyhow::Result<()> {
    with_pods_on(&cluster.kubernetes(), PODS, check)
}

pub(crate) fn pods_reach_services_of_the_other_node(cluster: &Cluster) -> anyhow::Result<()> {
    services_are_reached(&cluster.kubernetes(), PODS)
}

/// Pods on two nodes of any cluster reach each other through Services.
pub(crate) fn services_are_reached(kubernetes: &Kubernetes, nodes: [(&str, &str); 2]) -> anyhow::Result<()> {
    with_pods_on(kubernetes, nodes, || {
        for (from, to) in WAYS {
            eventually(&format!("{from} reaches {to}"), Duration::from_secs(120), || {
                let address =
                    kubernetes.ask(&["get", "service", to, "--output", "jsonpath={.spec.clusterIP}"])?.ok()?;
                let url = format!("http://{address}/");
                let answer = kubernetes.ask(&["exec", from, "--", "wget", "-T", "5", "-q", "-O", "-", &url])?.ok()?;
                ensure!(answer.trim() == to, "{url} answered {answer}");
                Ok(())
            })?;
        }
        Ok(())
    })
}

/// Names of Services, short and qualified, from both nodes; an unknown name is refused by CoreDNS itself.
pub(crate) fn pods_resolve_names(cluster: &Cluster) -> anyhow::Result<()> {
    with_pods(cluster, || {
        for (from, to) in WAYS {
            for name in [to.to_owned(), format!("{to}.default.svc.cluster.local")] {
                let url = format!("http://{name}/");
                eventually(&format!("{from} reaches {url}"), Duration::from_secs(120), || {
                    let ask = ["exec", from, "--", "wget", "-T", "5", "-q", "-O", "-", &url];
                    let answer = cluster.kubectl(&ask)?.ok()?;
                    ensure!(answer.trim() == to, "{url} answered {answer}");
                    Ok(())
                })?;
            }
            let unknown = ["exec", from, "--", "nslookup", "no-such-service.default.svc.cluster.local"];
            let answer = cluster.kubectl(&unknown)?;
            ensure!(!answer.succeeded && answer.stdout.contains("NXDOMAIN"), "an unknown name: {answer:?}");
        }
        Ok(())
    })
}

/// The host of the cluster knows no way to pod addresses: an answer shows that the node put its own in their place.
pub(crate) fn pods_reach_what_is_outside_the_cluster(cluster: &Cluster) -> anyhow::Result<()> {
    let url = format!("http://{GATEWAY}:{}/v2/", cluster.registry_port()?);
    with_pods(cluster, || {
        for (name, _) in PODS {
            eventually(&format!("{name} reaches {url}"), Duration::from_secs(60), || {
                cluster.kubectl(&["exec", name, "--", "wget", "-T", "5", "-q", "-O", "-", &url])?.ok()
            })?;
        }
        Ok(())
    })
}
