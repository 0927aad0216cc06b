//! `k8s.PodSubnetAllocationController`: gives every node its pod subnets, on control planes, for every pod network.
//!
//! It does the work of kube-controller-manager's node-ipam-controller, which lets no other controller start until it has waited
//! 10 s for nodes. It never runs beside that one: [`PodSubnetAllocation`] names the allocator, and the flag of
//! kube-controller-manager is rendered from the same decision.
//!
//! **Concurrency.** Control planes allocate under a lock of the cluster, and decide on nodes that were listed while it was
//! held; so no two nodes get one subnet. A write names the version of the node that it is for, and the API server refuses to
//! change subnets that a node has.
//!
//! **Upgrades.** A kube-controller-manager of another control plane, or this one's until its pod is replaced, may still
//! allocate for some minutes, without the lock. Both follow the same rules: sizes, the order of ranges, what nodes have. For one
//! node the first write stands. For two nodes that register in the same milliseconds both could choose the same subnet; each
//! sees the other's choice by its watch otherwise. That is announced as an error, and the native pod network makes no route for
//! the younger node, so that nobody's traffic is taken.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use etcd_edge::ClusterLock;
use kube_edge::{Connect, KubeApi, KubeError, NodeCache, NodePatch};
use kubernetes::node_cidrs::{Allocator, NodeCidrRange};
use resources::k8s::PodSubnetAllocation;
use resources::secrets::KubernetesSecrets;

use crate::kube_clients::Client;
use crate::pod_subnet_plan::{Assignment, Plan, Problem, Ranges};

/// Held while subnets are assigned.
pub const POD_SUBNET_LOCK: &str = "talos:v1:podSubnetMutex";
const LOCK_PATIENCE: Duration = Duration::from_secs(30);
/// Nodes for which the lock is held at once: some seconds of work, so that a pass stays within its deadline.
const BATCH: usize = 100;
/// A kubelet that registers writes its status several times in the same second.
const CONFLICTS: usize = 10;

#[derive(Debug)]
pub struct PodSubnetAllocationController {
    client: Client,
    lock: Arc<dyn ClusterLock>,
    cache: Option<NodeCache>,
    ranges: Ranges,
    /// Problems that were reported.
    reported: BTreeSet<Problem>,
    reported_configuration: String,
}

impl PodSubnetAllocationController {
    #[must_use]
    pub fn new(connect: Arc<dyn Connect>, lock: Arc<dyn ClusterLock>) -> Self {
        Self {
            client: Client::new(connect),
            lock,
            cache: None,
            ranges: Ranges::default(),
            reported: BTreeSet::new(),
            reported_configuration: String::new(),
        }
    }
}

#[async_trait]
impl Controller for PodSubnetAllocationController {
    fn name(&self) -> &'static str {
        "k8s.PodSubnetAllocationController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![
            Input::weak::<PodSubnetAllocation>().id(PodSubnetAllocation::ID),
            Input::weak::<KubernetesSecrets>().id(KubernetesSecrets::ID),
        ]
    }

    fn outputs(&self) -> Vec<Output> {
        Vec::new()
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let allocation = ctx.get::<PodSubnetAllocation>(PodSubnetAllocation::ID)?;
        let Some(allocation) = allocation.filter(|allocation| allocation.allocator == Allocator::Machine.name()) else {
            self.cache = None;
            return Ok(());
        };
        self.report_configuration(&allocation.problem);
        let Some(secrets) = ctx.get::<KubernetesSecrets>(KubernetesSecrets::ID)? else { return Ok(()) };
        let ranges = ranges(&allocation);
        if !self.ranges.is(&ranges, &allocation.reserved) {
            self.ranges = Ranges::new(ranges, allocation.reserved.clone());
        }
        // A kubelet may not write the subnets of nodes.
        let connected = self.client.with_kubeconfig(&secrets.localhost_admin_kubeconfig).await?;
        let cache = self.client.watch_nodes(&mut self.cache, &connected, ctx);
        // The watch may be behind: it only tells whether there may be work.
        let mut preview = self.ranges.clone();
        let Some(plan) = cache.look(|nodes| preview.plan(nodes.values(), 1)) else { return Ok(()) };
        let Plan { assignments, problems } = plan;
        self.report(problems);
        if assignments.is_empty() {
            return Ok(());
        }
        let mut result = Ok(Assigned::default());
        let assigning = async { result = assign(&*connected.api, &mut self.ranges).await };
        self.lock.run_locked(POD_SUBNET_LOCK, LOCK_PATIENCE, Box::pin(assigning)).await?;
        let assigned = result?;
        self.report(assigned.problems);
        if assigned.may_be_more {
            ctx.requeue_after(Duration::ZERO);
        }
        Ok(())
    }
}

impl PodSubnetAllocationController {
    /// Reports each problem once, for as long as it is there.
    fn report(&mut self, problems: BTreeSet<Problem>) {
        for problem in problems.difference(&self.reported) {
            match problem {
                Problem::Exhausted { .. } | Problem::Overlap { .. } => {
                    tracing::error!(%problem, "pod subnets of nodes");
                }
                Problem::Outside { .. } => tracing::warn!(%problem, "pod subnets of nodes"),
            }
        }
        self.reported = problems;
    }

    fn report_configuration(&mut self, problem: &str) {
        if !problem.is_empty() && self.reported_configuration != problem {
            tracing::error!(problem, "nodes get no pod subnets: the configuration has no ranges for them");
        }
        problem.clone_into(&mut self.reported_configuration);
    }
}

fn ranges(allocation: &PodSubnetAllocation) -> Vec<NodeCidrRange> {
    let range = |range: &resources::k8s::PodSubnetRange| {
        let node_prefix = u8::try_from(range.node_mask_size).ok()?;
        Some(NodeCidrRange { cluster: range.subnet?, node_prefix })
    };
    allocation.ranges.iter().filter_map(range).collect()
}

#[derive(Debug, Default)]
struct Assigned {
    problems: BTreeSet<Problem>,
    may_be_more: bool,
}

/// Gives subnets to nodes that have none, as the API server has them now.
async fn assign(api: &dyn KubeApi, ranges: &mut Ranges) -> Result<Assigned, KubeError> {
    let nodes = api.nodes().await?;
    let Plan { assignments, problems } = ranges.plan(&nodes, BATCH);
    let may_be_more = assignments.len() == BATCH;
    for assignment in assignments {
        write(api, assignment).await?;
    }
    Ok(Assigned { problems, may_be_more })
}

/// A node that went, or got subnets from somebody else, needs none any more; its part of the range is free for the next pass.
async fn write(api: &dyn KubeApi, assignment: Assignment) -> Result<(), KubeError> {
    let Assignment { node, version, subnets } = assignment;
    let mut patch = NodePatch { pod_cidrs: subnets.clone(), resource_version: Some(version), ..NodePatch::default() };
    for attempt in 1.. {
        match api.patch_node(&node, &patch).await {
            Ok(()) => {
                let subnets: Vec<String> = subnets.iter().map(ToString::to_string).collect();
                tracing::info!(node, subnets = subnets.join(","), "node has its pod subnets");
                break;
            }
            Err(error) if error.is_not_found() => break,
            Err(error) if error.is_conflict() && attempt < CONFLICTS => {}
            Err(error) => return Err(error),
        }
        match api.node(&node).await? {
            Some(known) if known.pod_cidrs.is_empty() => patch.resource_version = Some(known.resource_version),
            _ => break,
        }
    }
    Ok(())
}
