//! `k8s.NodeApplyController`: puts labels, taints and the cordon on the node object.
//!
//! It records its own labels and taints in annotations of the node, and only changes and removes those.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use kube_edge::{Connect, Node, NodePatch, Taint};
use resources::MachineType;
use resources::k8s::{NodeCordonedSpec, NodeLabelSpec, NodeStatus, NodeTaintSpec, Nodename};
use resources::secrets::KubernetesSecrets;

use crate::Root;
use crate::kube_clients::{Client, JOIN_POLL};

const OWNED_LABELS: &str = "talos.dev/owned-labels";
const OWNED_TAINTS: &str = "talos.dev/owned-taints";
const CORDONED: &str = "talos.dev/cordoned";
/// While the node or its API server is absent, or another writer changes the node at the same time.
const RETRY: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct NodeApplyController {
    root: Root,
    admin: Client,
    kubelet: Client,
}

impl NodeApplyController {
    #[must_use]
    pub fn new(root: Root, connect: Arc<dyn Connect>) -> Self {
        Self { root, admin: Client::new(Arc::clone(&connect)), kubelet: Client::new(connect) }
    }
}

#[async_trait]
impl Controller for NodeApplyController {
    fn name(&self) -> &'static str {
        "k8s.NodeApplyController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![
            Input::weak::<MachineType>().id(MachineType::ID),
            Input::weak::<Nodename>().id(Nodename::ID),
            Input::weak::<KubernetesSecrets>().id(KubernetesSecrets::ID),
            Input::weak::<NodeLabelSpec>(),
            Input::weak::<NodeTaintSpec>(),
            Input::weak::<NodeCordonedSpec>().id(NodeCordonedSpec::ID),
            // They may have been removed by others.
            Input::weak::<NodeStatus>(),
        ]
    }

    fn outputs(&self) -> Vec<Output> {
        Vec::new()
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let (Some(machine_type), Some(nodename)) =
            (ctx.get::<MachineType>(MachineType::ID)?, ctx.get::<Nodename>(Nodename::ID)?)
        else {
            return Ok(());
        };
        if nodename.skip_node_registration {
            return Ok(());
        }
        // A kubelet may not give its own node the labels and taints of a control plane.
        let connected = if machine_type.is_control_plane() {
            let Some(secrets) = ctx.get::<KubernetesSecrets>(KubernetesSecrets::ID)? else { return Ok(()) };
            self.admin.with_kubeconfig(&secrets.localhost_admin_kubeconfig).await?
        } else {
            let Some(connected) = self.kubelet.of_kubelet(&self.root).await? else {
                ctx.requeue_after(JOIN_POLL);
                return Ok(());
            };
            connected
        };
        let wanted = DesiredNode {
            labels: ctx.list::<NodeLabelSpec>()?.iter().map(|label| (label.key.clone(), label.value.clone())).collect(),
            taints: ctx.list::<NodeTaintSpec>()?.iter().map(|taint| wanted_taint(taint)).collect(),
            cordoned: ctx.get::<NodeCordonedSpec>(NodeCordonedSpec::ID)?.is_some(),
        };
        match apply(&*connected.api, &nodename.nodename, &wanted).await {
            Ok(Applied::Done) => Ok(()),
            Ok(Applied::NotThere) => {
                ctx.requeue_after(RETRY);
                Ok(())
            }
            Err(error) if error.code() == Some(403) => Err(error.into()),
            Err(error) if error.is_retryable() => {
                tracing::debug!(error = %stdx::error_chain(&error), "node object is not up to date yet");
                ctx.requeue_after(RETRY);
                Ok(())
            }
            Err(error) => {
                self.kubelet.forget();
                Err(error.into())
            }
        }
    }
}

enum Applied {
    Done,
    NotThere,
}

async fn apply(
    api: &dyn kube_edge::KubeApi,
    nodename: &str,
    wanted: &DesiredNode,
) -> Result<Applied, kube_edge::KubeError> {
    let Some(node) = api.node(nodename).await? else { return Ok(Applied::NotThere) };
    let patch = wanted.patch(&node);
    if !patch.is_empty() {
        api.patch_node(nodename, &patch).await?;
        tracing::info!(node = nodename, "node object brought in line with the configuration");
    }
    Ok(Applied::Done)
}

fn wanted_taint(taint: &NodeTaintSpec) -> Taint {
    Taint { key: taint.key.clone(), value: taint.value.clone(), effect: taint.effect.clone() }
}

#[derive(Debug, Default)]
struct DesiredNode {
    labels: BTreeMap<String, String>,
    taints: Vec<Taint>,
    cordoned: bool,
}

impl DesiredNode {
    /// The changes needed on the node; none if it is as desired.
    fn patch(&self, node: &Node) -> NodePatch {
        let mut patch = NodePatch::default();
        self.patch_labels(node, &mut patch);
        self.patch_taints(node, &mut patch);
        self.patch_cordon(node, &mut patch);
        if !patch.is_empty() {
            patch.resource_version = Some(node.resource_version.clone());
        }
        patch
    }

    fn patch_labels(&self, node: &Node, patch: &mut NodePatch) {
        let owned = owned(node, OWNED_LABELS);
        let mut owns = BTreeSet::new();
        for (key, value) in &self.labels {
            match node.labels.get(key) {
                // Another writer's, even if equal by chance.
                Some(_) if !owned.contains(key) => {}
                Some(current) if current == value => {
                    owns.insert(key.clone());
                }
                _ => {
                    owns.insert(key.clone());
                    patch.labels.insert(key.clone(), Some(value.clone()));
                }
            }
        }
        for key in owned.iter().filter(|key| !self.labels.contains_key(*key) && node.labels.contains_key(*key)) {
            patch.labels.insert(key.clone(), None);
        }
        patch_owned(patch, OWNED_LABELS, &owned, &owns, node);
    }

    fn patch_taints(&self, node: &Node, patch: &mut NodePatch) {
        let owned = owned(node, OWNED_TAINTS);
        let mut owns = BTreeSet::new();
        let mut taints: Vec<Taint> = node.taints.clone();
        // Ours that are no longer desired, or have changed.
        taints.retain(|taint| !owned.contains(&taint.key) || self.taints.contains(taint));
        for wanted in &self.taints {
            let of_others = taints.iter().any(|taint| taint.key == wanted.key && !owned.contains(&taint.key));
            if of_others {
                continue;
            }
            owns.insert(wanted.key.clone());
            if !taints.contains(wanted) {
                taints.push(wanted.clone());
            }
        }
        if taints != node.taints {
            patch.taints = Some(taints);
        }
        patch_owned(patch, OWNED_TAINTS, &owned, &owns, node);
    }

    /// A cordon by others stays and is not lifted by us.
    fn patch_cordon(&self, node: &Node, patch: &mut NodePatch) {
        let by_us = node.annotations.contains_key(CORDONED);
        if self.cordoned && !node.unschedulable {
            patch.unschedulable = Some(true);
            patch.annotations.insert(CORDONED.to_owned(), Some("true".to_owned()));
        } else if !self.cordoned && by_us {
            patch.unschedulable = Some(false);
            patch.annotations.insert(CORDONED.to_owned(), None);
        }
    }
}

fn owned(node: &Node, annotation: &str) -> BTreeSet<String> {
    let text = node.annotations.get(annotation).map(String::as_str).unwrap_or_default();
    serde_json::from_str(text).unwrap_or_default()
}

fn patch_owned(
    patch: &mut NodePatch,
    annotation: &str,
    before: &BTreeSet<String>,
    after: &BTreeSet<String>,
    node: &Node,
) {
    if before == after {
        return;
    }
    let text = if after.is_empty() { None } else { Some(serde_json::json!(after).to_string()) };
    if text.is_some() || node.annotations.contains_key(annotation) {
        patch.annotations.insert(annotation.to_owned(), text);
    }
}

#[cfg(test)]
mod tests;
