//! A new cluster: it can be used when `create` ends, and no part of it was refused on the way.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::cluster::{CONTROL_PLANE, Cluster, NAME, Node, WORKER};
use crate::faults::of_node;
use tests::support::{eventually, run};

/// Pods that every node has, and that the control plane has.
const EVERYWHERE: &[&str] = &["kube-proxy"];
const CONTROL_PLANE_PODS: &[&str] = &["kube-apiserver", "kube-controller-manager", "kube-scheduler"];

/// What a component says when it asked before it could be answered. Each such answer costs it a pause.
const REFUSALS: &[&str] = &["unauthorized", "forbidden"];

/// Refusals that remain; no node waits for any of them:
/// * The kubelet of the control plane may write down its static pods in the moment between the API server's first answer and its
///   priority classes. It does so again with the next look at the pod.
/// * A kubelet may ask for the volumes of a new pod in the moment before the API server's node authorizer has seen that pod. It
///   asks again within a second, and the pod starts so much later; upstream has that moment wherever a pod is scheduled.
const KNOWN: &[&str] = &["no PriorityClass with name system-", "no relationship found between node"];

/// The address of the cluster's DNS, and a name that every cluster has.
const DNS: &str = "10.96.0.10";

/// How long a proxy that is ready may take for its rules.
const RULES: Duration = Duration::from_secs(5);
const KUBERNETES: &str = "kubernetes.default.svc.cluster.local";

/// From every node: `create` has waited for the servers and for the proxies of Services. A proxy that is ready may still write its
/// rules for a moment.
pub(crate) fn the_clusters_dns_answers_when_create_ends(cluster: &Cluster) -> anyhow::Result<()> {
    let address = cluster.kubectl(&["get", "service", "kubernetes", "--output", "jsonpath={.spec.clusterIP}"])?.ok()?;
    for node in [CONTROL_PLANE, WORKER] {
        // Every process of the node that is no pod is in its network.
        let process = of_node(node, "apid")?.into_iter().next().context("a node without apid")?;
        let network = format!("--net=/proc/{}/ns/net", process.pid);
        eventually("the cluster's DNS answers", RULES, || {
            let answer = run(Path::new("nsenter"), &[&network, "busybox", "nslookup", KUBERNETES, DNS])?.ok()?;
            ensure!(answer.contains(&address), "{} got {answer:?}", node.name);
            Ok(())
        })?;
    }
    Ok(())
}

/// Logs of services and pods, from the start to now.
pub(crate) fn no_component_of_a_new_cluster_was_refused(cluster: &Cluster) -> anyhow::Result<()> {
    let mut refusals = Vec::new();
    for node in [CONTROL_PLANE, WORKER] {
        let mut logs = pod_logs(cluster, node)?;
        let expected =
            if node == CONTROL_PLANE { [EVERYWHERE, CONTROL_PLANE_PODS].concat() } else { EVERYWHERE.into() };
        for name in expected {
            let of_it = |(pod, text): &(String, String)| pod.contains(&format!("_{name}-")) && !text.is_empty();
            ensure!(logs.iter().any(of_it), "no log of {name} on {}", node.name);
        }
        let kubelet = cluster.talosctl(&["logs", "kubelet", "--nodes", node.address])?.ok()?;
        ensure!(kubelet.contains("Successfully registered node"), "no log of the kubelet on {}", node.name);
        logs.push(("kubelet".to_owned(), kubelet));
        for (name, text) in logs {
            let refused = |line: &&str| {
                let lower = line.to_ascii_lowercase();
                REFUSALS.iter().any(|word| lower.contains(word)) && !KNOWN.iter().any(|known| line.contains(known))
            };
            refusals.extend(text.lines().filter(refused).map(|line| format!("{} {name}: {line}", node.name)));
        }
    }
    ensure!(refusals.is_empty(), "{} refusals:\n{}", refusals.len(), refusals.join("\n"));
    Ok(())
}

/// What the containers of the pods of a node wrote, by the name of the pod's folder.
fn pod_logs(cluster: &Cluster, node: Node) -> anyhow::Result<Vec<(String, String)>> {
    let pods = cluster.state().join(NAME).join("nodes").join(node.name).join("var/log/pods");
    let mut logs = Vec::new();
    for pod in entries(&pods)? {
        let name = pod.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for container in entries(&pod)? {
            for file in entries(&container)? {
                let text = std::fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
                logs.push((name.clone(), String::from_utf8_lossy(&text).into_owned()));
            }
        }
    }
    Ok(logs)
}

fn entries(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    Ok(entries.filter_map(|entry| Some(entry.ok()?.path())).collect())
}
