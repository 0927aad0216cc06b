//! The cluster service: whether the cluster works, checked from this node in a fixed order.
//!
//! Each check is tried until it holds or its time is over; whenever what it waits for changes, that is told. What a check
//! may reach is in `scope`; it reads as `os:reader`, and Kubernetes with a certificate of ten minutes that can do no more
//! than these checks need.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use resources::cluster::Member;
use stdx::tasks::Task;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use wire::cluster::cluster_service_server::ClusterService;
use wire::cluster::{ClusterInfo, HealthCheckProgress, HealthCheckRequest};

use crate::access::is_admin;
use crate::machine::Machine;
use crate::machine_service::Service;
use checks::{CHECKS, Check, CheckOutcome, ClusterNodes, ClusterView};
use nodes::ApidView;
use scope::{Asker, Known};

mod checks;
mod nodes;
mod scope;

/// Default deadline of all checks.
const DEFAULT_WAIT: Duration = Duration::from_secs(20 * 60);
/// How long all checks may take, whatever the client says.
const MAX_WAIT: Duration = Duration::from_secs(24 * 3600);
/// Pause between two tries of a check.
const PAUSE: Duration = Duration::from_secs(1);
/// Bound of the queue to the client; one message per change of the unmet condition.
const BACKLOG: usize = 16;

type Progress = mpsc::Sender<Result<HealthCheckProgress, Status>>;

#[tonic::async_trait]
impl ClusterService for Service {
    type HealthCheckStream = BoxStream<'static, Result<HealthCheckProgress, Status>>;

    async fn health_check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::HealthCheckStream>, Status> {
        let (metadata, _, request) = request.into_parts();
        let asker = if is_admin(&metadata) { Asker::Admin } else { Asker::Other };
        let until = Instant::now() + wait(request.wait_timeout);
        let info = request.cluster_info.unwrap_or_default();
        let failed = |error| Status::internal(stdx::error_chain(&error));
        let known = Known::of(&self.machine.store).map_err(failed)?;
        let endpoint = known.endpoint(asker, &info.force_endpoint)?;
        let nodes = cluster_nodes(&self.machine, &known, asker, &info)?;
        let caller = metadata.get(transport::audit::CALLER).cloned();
        let view = Arc::new(ApidView::new(self.machine.clone(), endpoint, caller));
        let (sender, receiver) = mpsc::channel(BACKLOG);
        let task = stdx::tasks::spawn("health check", async move {
            if let Err(status) = run(view.as_ref(), nodes, until, &sender).await {
                // The receiver is dropped only with the client.
                drop(sender.send(Err(status)).await);
            }
        });
        Ok(Response::new(Checking { messages: ReceiverStream::new(receiver), _task: task }.boxed()))
    }
}

/// The messages of a run, which ends with them.
struct Checking {
    messages: ReceiverStream<Result<HealthCheckProgress, Status>>,
    _task: Task<()>,
}

impl Stream for Checking {
    type Item = Result<HealthCheckProgress, Status>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.messages.poll_next_unpin(cx)
    }
}

/// How long the checks may take. Times that are no duration, and those over a day, are cut.
fn wait(asked: Option<prost_types::Duration>) -> Duration {
    let asked = asked.and_then(|asked| Duration::try_from(asked).ok()).filter(|asked| !asked.is_zero());
    asked.unwrap_or(DEFAULT_WAIT).min(MAX_WAIT)
}

/// The nodes that the client named, or else the members that this node knows; none where discovery tells none.
fn cluster_nodes(
    machine: &Machine,
    known: &Known,
    asker: Asker,
    info: &ClusterInfo,
) -> Result<Option<ClusterNodes>, Status> {
    let mut nodes = ClusterNodes {
        control_planes: known.nodes(asker, &info.control_plane_nodes)?,
        workers: known.nodes(asker, &info.worker_nodes)?,
    };
    if nodes.control_planes.is_empty() && nodes.workers.is_empty() {
        let members = machine.store.list_as::<Member>().map_err(|error| Status::internal(stdx::error_chain(&error)))?;
        for member in &members {
            let Some(address) = member.addresses.first() else { continue };
            let list =
                if member.machine_type.is_control_plane() { &mut nodes.control_planes } else { &mut nodes.workers };
            list.push(*address);
        }
        if nodes.control_planes.is_empty() {
            return Ok(None);
        }
    }
    if nodes.control_planes.is_empty() {
        return Err(Status::failed_precondition("no control plane node is named: name them as well"));
    }
    Ok(Some(nodes))
}

/// All checks in order; the first whose time is over ends the run with what it last waited for. Where `nodes` are not
/// known, those that Kubernetes has are checked.
async fn run(
    view: &dyn ClusterView,
    nodes: Option<ClusterNodes>,
    until: Instant,
    progress: &Progress,
) -> Result<(), Status> {
    let nodes = match nodes {
        Some(nodes) => nodes,
        None => {
            wait_for(&checks::NODES_KNOWN, view, &ClusterNodes::default(), until, progress).await?;
            checks::nodes_of_kubernetes(view).await.map_err(Status::unavailable)?
        }
    };
    for check in CHECKS {
        wait_for(check, view, &nodes, until, progress).await?;
    }
    Ok(())
}

async fn wait_for(
    check: &Check,
    view: &dyn ClusterView,
    nodes: &ClusterNodes,
    until: Instant,
    progress: &Progress,
) -> Result<(), Status> {
    let until = until.min(Instant::now() + check.deadline);
    let mut last = "...".to_owned();
    report(progress, check, &last).await?;
    loop {
        let why = match tokio::time::timeout_at(until, check.kind.holds(view, nodes)).await {
            Ok(Ok(CheckOutcome::Yes)) => return report(progress, check, "OK").await,
            Ok(Ok(CheckOutcome::NotNeeded)) => return report(progress, check, "SKIP").await,
            Ok(Err(why)) => why,
            Err(_) => last.clone(),
        };
        if why != last {
            report(progress, check, &why).await?;
            last = why;
        }
        if Instant::now() + PAUSE >= until {
            return Err(Status::deadline_exceeded(format!("waiting for {}: {last}", check.what)));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn report(progress: &Progress, check: &Check, what: &str) -> Result<(), Status> {
    let message = format!("waiting for {}: {what}", check.what);
    progress
        .send(Ok(HealthCheckProgress { metadata: None, message }))
        .await
        .map_err(|_| Status::cancelled("the client disconnected"))
}

#[cfg(test)]
mod tests;
