//! The sequences and services of running nodes.

use std::time::Duration;

use anyhow::ensure;

use crate::cluster::{CONTROL_PLANE, Cluster, WORKER};
use crate::faults::{converges, of_node};
use tests::support::eventually;

/// What a node runs, and what its services are run with, is in resources.
pub(crate) fn booted_nodes_say_so(cluster: &Cluster) -> anyhow::Result<()> {
    for (node, expected) in [
        (CONTROL_PLANE, &["apid", "containerd", "etcd", "kubelet", "trustd"] as &[&str]),
        (WORKER, &["apid", "containerd", "kubelet"]),
    ] {
        let sequences = cluster.resources(node, "sequencestatuses")?;
        let [sequence] = sequences.as_slice() else { anyhow::bail!("sequences of {}: {sequences:?}", node.name) };
        let spec = &sequence["spec"];
        ensure!(spec["sequence"] == "boot" && spec["state"] == "done", "{spec}");
        let specs = cluster.resources(node, "servicespecs")?;
        let ids: Vec<_> = specs.iter().filter_map(|spec| spec["metadata"]["id"].as_str()).collect();
        ensure!(ids == expected, "services of {}: {ids:?}", node.name);
        ensure!(
            specs.iter().all(|spec| spec["spec"]["required"] == true && spec["spec"]["waitsFor"] == ""),
            "{specs:?}"
        );
    }
    Ok(())
}

/// Another process runs after a restart; what Talos 1.7 does not let be stopped is not.
pub(crate) fn an_operator_restarts_a_kubelet_and_stops_no_etcd(cluster: &Cluster) -> anyhow::Result<()> {
    let pids = || anyhow::Ok(of_node(WORKER, "kubelet")?.iter().map(|process| process.pid).collect::<Vec<_>>());
    let before = pids()?;
    let answer = cluster.talosctl(&["service", "kubelet", "restart", "--nodes", WORKER.address])?.ok()?;
    ensure!(answer.contains("Service \"kubelet\" restarted"), "{answer}");
    eventually("another kubelet runs", Duration::from_secs(60), || {
        let now = pids()?;
        ensure!(now.len() == 1 && now != before, "its processes are {now:?}, and were {before:?}");
        Ok(())
    })?;
    for (id, refusal) in [
        ("etcd", "service \"etcd\" doesn't support stop operation via API"),
        ("kubelet", "service \"kubelet\" doesn't support stop operation via API"),
        ("none", "service \"none\" not defined"),
    ] {
        let refused = cluster.talosctl(&["service", id, "stop", "--nodes", CONTROL_PLANE.address])?.refused()?;
        ensure!(refused.contains(refusal), "{refused}");
    }
    converges(cluster)
}
