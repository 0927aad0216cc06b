//! What happens to a cluster when one of its processes is killed.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

use crate::cluster::{CONTROL_PLANE, Cluster, NAME, Node, WORKER};
use crate::host::{Process, processes};
use crate::support::{eventually, run};
use crate::{members, pods};

const RETURN: Duration = Duration::from_secs(60);
/// Control plane pods that lost the API server end, and the kubelet starts them again after pauses that double from 10 s.
const CONVERGE: Duration = Duration::from_secs(300);

/// The processes of a node that run a program.
fn of_node(node: Node, program: &str) -> anyhow::Result<Vec<Process>> {
    let group = format!("/talos-{NAME}/{}/", node.name);
    let runs = |process: &Process| {
        let path = process.command.split(' ').next().unwrap_or_default();
        process.cgroups.contains(&group) && path.rsplit('/').next() == Some(program)
    };
    Ok(processes()?.into_iter().filter(runs).collect())
}

/// The discovery server of the cluster, which runs beside the nodes.
fn discovery_server(cluster: &Cluster) -> anyhow::Result<Vec<Process>> {
    let path = cluster.state().join(NAME).join("discoveryd.json");
    let card: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).context("reading who it is")?)?;
    let pid = card.get("pid").and_then(serde_json::Value::as_u64);
    let is_it = |process: &Process| Some(u64::from(process.pid)) == pid && process.command.contains("discoveryd");
    Ok(processes()?.into_iter().filter(is_it).collect())
}

/// Kills one process and waits until another runs in its place and the whole cluster is well.
fn kill_and_wait(
    cluster: &Cluster,
    program: &str,
    find: impl Fn() -> anyhow::Result<Vec<Process>>,
) -> anyhow::Result<()> {
    let before = find()?;
    let [process] = before.as_slice() else { bail!("{} processes of {program} run, not one", before.len()) };
    let old = process.pid;
    run(Path::new("kill"), &["-KILL", &old.to_string()])?.ok().with_context(|| format!("killing {program}"))?;
    eventually(&format!("{program} returns"), RETURN, || {
        let now = find()?;
        ensure!(now.len() == 1 && now.iter().all(|process| process.pid != old), "its processes are {now:?}");
        Ok(())
    })?;
    converges(cluster)
}

/// All services of all nodes are healthy, all pods of the system run, all nodes are Ready and know each other.
fn converges(cluster: &Cluster) -> anyhow::Result<()> {
    eventually("all services are healthy", CONVERGE, || {
        let nodes = format!("{},{}", CONTROL_PLANE.address, WORKER.address);
        let services = cluster.talosctl(&["services", "--nodes", &nodes])?.ok()?;
        let healthy = |line: &&str| line.contains(" Running ") && line.contains(" OK ");
        let count = services.lines().skip(1).filter(healthy).count();
        ensure!(count == services.lines().count() - 1 && count == 8, "{services}");
        Ok(())
    })?;
    eventually("all pods of the system are ready", CONVERGE, || {
        let template =
            r#"jsonpath={range .items[*]}{.metadata.name} {.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}"#;
        let pods = cluster.kubectl(&["--namespace", "kube-system", "get", "pods", "--output", template])?.ok()?;
        ensure!(pods.lines().count() == 5 && pods.lines().all(|line| line.ends_with(" True")), "{pods}");
        Ok(())
    })?;
    members::all_nodes_are_ready(cluster)?;
    members::members_are_the_same_on_every_node(cluster)
}

fn of_control_plane(cluster: &Cluster, program: &str) -> anyhow::Result<()> {
    kill_and_wait(cluster, program, || of_node(CONTROL_PLANE, program))
}

pub(crate) fn apid_returns(cluster: &Cluster) -> anyhow::Result<()> {
    of_control_plane(cluster, "apid")
}

pub(crate) fn trustd_returns(cluster: &Cluster) -> anyhow::Result<()> {
    of_control_plane(cluster, "trustd")
}

pub(crate) fn containerd_returns(cluster: &Cluster) -> anyhow::Result<()> {
    of_control_plane(cluster, "containerd")
}

pub(crate) fn etcd_returns(cluster: &Cluster) -> anyhow::Result<()> {
    of_control_plane(cluster, "etcd")
}

pub(crate) fn kubelet_returns(cluster: &Cluster) -> anyhow::Result<()> {
    kill_and_wait(cluster, "kubelet", || of_node(WORKER, "kubelet"))
}

pub(crate) fn kube_apiserver_returns(cluster: &Cluster) -> anyhow::Result<()> {
    of_control_plane(cluster, "kube-apiserver")
}

pub(crate) fn discoveryd_returns(cluster: &Cluster) -> anyhow::Result<()> {
    kill_and_wait(cluster, "discoveryd", || discovery_server(cluster))
}

pub(crate) fn pods_run_after_all_that(cluster: &Cluster) -> anyhow::Result<()> {
    pods::pods_reach_services_of_the_other_node(cluster)
}
