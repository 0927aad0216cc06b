//! A cluster of three control planes, and the loss of one.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::cluster::{Cluster, Wanted};
use crate::faults::{kill, of_node_in};
use tests::support::eventually;

const NAME: &str = "sys-three";
const CIDR: &str = "10.8.0.0/24";
const FIRST: &str = "10.8.0.2";
const LAST: &str = "10.8.0.4";

/// How many members a node knows that vote, and how many that do not yet.
fn members(cluster: &Cluster, talosconfig: &Path, node: &str) -> anyhow::Result<(usize, usize)> {
    let text = cluster.talosctl_as(talosconfig, &["etcd", "members", "--nodes", node])?.ok()?;
    let learns = |line: &&str| line.split_whitespace().next_back() == Some("true");
    let lines: Vec<&str> = text.lines().skip(1).collect();
    let learners = lines.iter().filter(|line| learns(line)).count();
    Ok((lines.len() - learners, learners))
}

pub(crate) fn three_control_planes_are_one_cluster_that_can_lose_one(cluster: &Cluster) -> anyhow::Result<()> {
    let talosconfig = cluster.file(&format!("{NAME}-talosconfig"));
    let wanted = Wanted::new(NAME, CIDR, &["--controlplanes", "3", "--workers", "0"]);
    cluster.with_another(&wanted, |kubernetes| {
        for node in [FIRST, LAST] {
            let (voting, learners) = members(cluster, &talosconfig, node)?;
            ensure!((voting, learners) == (3, 0), "{node} knows {voting} members of etcd and {learners} learners");
        }
        // To the node it is a power cut, after which its host powers it on again.
        let lost = of_node_in(NAME, &format!("{NAME}-controlplane-2"), "init")?;
        let old = kill(&lost, "machined")?;
        eventually("two of three control planes take writes", Duration::from_secs(30), || {
            kubernetes.ask(&["create", "configmap", "written-by-two"])?.ok().map(drop)
        })?;
        eventually("the third comes back", Duration::from_secs(180), || {
            let now = of_node_in(NAME, &format!("{NAME}-controlplane-2"), "init")?;
            ensure!(now.iter().any(|process| process.pid != old), "its processes are {now:?}");
            let health = ["service", "etcd", "--nodes", "10.8.0.3"];
            let text = cluster.talosctl_as(&talosconfig, &health)?.ok().context("asking for its etcd")?;
            ensure!(text.lines().any(|line| line.contains("HEALTH") && line.contains("OK")), "its etcd: {text}");
            Ok(())
        })?;
        let (voting, learners) = members(cluster, &talosconfig, FIRST)?;
        ensure!((voting, learners) == (3, 0), "there are {voting} members of etcd and {learners} learners");
        Ok(())
    })
}
