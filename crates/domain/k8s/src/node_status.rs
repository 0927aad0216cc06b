//! `k8s.NodeStatusController`: the node as Kubernetes sees it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use kube_edge::{Connect, NodeCache};
use resources::k8s::{NodeStatus, Nodename};

use crate::Root;
use crate::kube_clients::{Client, JOIN_POLL};

#[derive(Debug)]
pub struct NodeStatusController {
    root: Root,
    client: Client,
    cache: Option<(String, NodeCache)>,
}

impl NodeStatusController {
    #[must_use]
    pub fn new(root: Root, connect: Arc<dyn Connect>) -> Self {
        Self { root, client: Client::new(connect), cache: None }
    }
}

#[async_trait]
impl Controller for NodeStatusController {
    fn name(&self) -> &'static str {
        "k8s.NodeStatusController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![Input::weak::<Nodename>().id(Nodename::ID)]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<NodeStatus>()]
    }

    fn resync(&self) -> Option<Duration> {
        // Follows the renewal of the kubelet's certificate.
        Some(Duration::from_secs(60))
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let nodename = ctx.get::<Nodename>(Nodename::ID)?.filter(|nodename| !nodename.skip_node_registration);
        let Some(nodename) = nodename.map(|nodename| nodename.nodename.clone()) else {
            self.cache = None;
            return ctx.keep_touched::<NodeStatus>();
        };
        let Some(connected) = self.client.of_kubelet(&self.root).await? else {
            ctx.requeue_after(JOIN_POLL);
            return Ok(());
        };
        if connected.is_new || self.cache.as_ref().is_none_or(|(name, _)| *name != nodename) {
            let waker = ctx.waker();
            let cache = NodeCache::start(connected.api, Some(nodename.clone()), move || waker.wake());
            self.cache = Some((nodename.clone(), cache));
        }
        let Some((_, cache)) = &self.cache else { return Ok(()) };
        if cache.error().is_some_and(|error| error.is_unauthorized()) {
            self.client.forget();
        }
        let Some(known) = cache.known() else { return Ok(()) };
        if let Some(node) = known.get(&nodename) {
            let status = NodeStatus {
                nodename: nodename.clone(),
                node_ready: node.ready,
                unschedulable: node.unschedulable,
                labels: node.labels.clone(),
                annotations: node.annotations.clone(),
            };
            ctx.put(&nodename, status)?;
        }
        ctx.keep_touched::<NodeStatus>()
    }
}
