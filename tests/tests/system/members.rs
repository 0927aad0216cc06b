//! The nodes of the cluster, as Kubernetes and as the nodes themselves see them.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use crate::cluster::{CONTROL_PLANE, Cluster, WORKER};
use tests::support::eventually;

/// The name of each node of Kubernetes with its state.
fn nodes(cluster: &Cluster) -> anyhow::Result<Vec<(String, String)>> {
    let template =
        r#"jsonpath={range .items[*]}{.metadata.name} {.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}"#;
    let text = cluster.kubectl(&["get", "nodes", "--output", template])?.ok()?;
    Ok(text
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(name, ready)| (name.to_owned(), ready.to_owned()))
        .collect())
}

pub(crate) fn all_nodes_are_ready(cluster: &Cluster) -> anyhow::Result<()> {
    let expected = [CONTROL_PLANE, WORKER].map(|node| (node.name.to_owned(), "True".to_owned()));
    eventually("all nodes are Ready", Duration::from_secs(120), || {
        let nodes = nodes(cluster)?;
        if nodes != expected {
            bail!("the nodes are {nodes:?}");
        }
        Ok(())
    })
}

pub(crate) fn members_are_the_same_on_every_node(cluster: &Cluster) -> anyhow::Result<()> {
    eventually("members are the same on every node", Duration::from_secs(60), || {
        let of_control_plane = members(cluster, CONTROL_PLANE)?;
        let names: Vec<_> = of_control_plane.iter().map(|(id, _)| id.as_str()).collect();
        ensure!(names == [CONTROL_PLANE.name, WORKER.name], "the members are {names:?}");
        let of_worker = members(cluster, WORKER)?;
        ensure!(of_control_plane == of_worker, "{of_control_plane:?} on one node, {of_worker:?} on the other");
        Ok(())
    })
}

fn members(cluster: &Cluster, node: crate::cluster::Node) -> anyhow::Result<Vec<(String, Value)>> {
    let member = |resource: &Value| {
        let id = resource.pointer("/metadata/id").and_then(Value::as_str).context("a member without an id")?;
        let spec = resource.get("spec").context("a member without a specification")?;
        Ok((id.to_owned(), spec.clone()))
    };
    cluster.resources(node, "members")?.iter().map(member).collect()
}
