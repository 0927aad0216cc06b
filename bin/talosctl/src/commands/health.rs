//! `health`: whether a cluster works.

use std::time::Duration;

use clap::{ArgAction, Args};
use client::Client;
use futures::StreamExt as _;
use wire::cluster::ClusterInfo;

use crate::command_error::CommandError;
use crate::replies::Replies;
use crate::session::Session;

mod checks;

/// How much longer than the node this program waits.
const GRACE: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub(crate) struct HealthArgs {
    /// Control plane nodes (default: as discovered)
    #[arg(long, value_name = "strings", value_delimiter = ',')]
    control_plane_nodes: Vec<String>,
    /// The first control plane node
    #[arg(long, value_name = "string")]
    init_node: Option<String>,
    /// Kubernetes endpoint to use instead of that of the kubeconfig
    #[arg(long, value_name = "string")]
    k8s_endpoint: Option<String>,
    /// Runs the Kubernetes end-to-end tests
    #[arg(long)]
    run_e2e: bool,
    /// Lets the node check, instead of this program
    #[arg(long, value_name = "bool", default_value_t = true, action = ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_missing_value = "true")]
    server: bool,
    /// How long to wait for the cluster to be healthy
    #[arg(long, value_name = "duration", default_value = "20m0s", value_parser = crate::arguments::duration)]
    wait_timeout: Duration,
    /// Worker nodes (default: as discovered)
    #[arg(long, value_name = "strings", value_delimiter = ',')]
    worker_nodes: Vec<String>,
}

pub(crate) async fn run(args: HealthArgs, session: &Session) -> Result<(), CommandError> {
    if args.run_e2e {
        return Err(CommandError::not_available("running the end-to-end tests (--run-e2e)"));
    }
    let node = session.one_node("health")?;
    let client = session.connect().await?;
    let mut control_planes = args.control_plane_nodes.clone();
    if let Some(init) = args.init_node.iter().find(|init| !control_planes.contains(init)) {
        control_planes.insert(0, init.clone());
    }
    if args.server {
        let info = ClusterInfo {
            control_plane_nodes: control_planes,
            worker_nodes: args.worker_nodes,
            force_endpoint: args.k8s_endpoint.unwrap_or_default(),
        };
        return on_server(&client.to_nodes([node.as_str()]), info, args.wait_timeout, session).await;
    }
    let cluster =
        checks::Cluster { client, node, control_planes, workers: args.worker_nodes, k8s_endpoint: args.k8s_endpoint };
    match tokio::time::timeout(args.wait_timeout, checks::run(cluster, session)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(CommandError::failed(format!(
            "the cluster was not healthy within {}",
            stdx::duration::format(args.wait_timeout)
        ))
        .hint("the last line above shows the unmet condition")),
    }
}

/// Prints the node's checks; its last message decides. The node enforces the deadline, this program a slightly longer
/// one.
async fn on_server(
    client: &Client,
    info: ClusterInfo,
    wait_timeout: Duration,
    session: &Session,
) -> Result<(), CommandError> {
    let check = async {
        let mut nodes = Replies::new(&session.out, client);
        let mut progress = client.health_check(Some(info), wait_timeout).await?;
        while let Some(part) = progress.next().await {
            if let Some((_, said)) = nodes.take(part?) {
                session.out.note(said.message);
            }
        }
        nodes.finish()
    };
    match tokio::time::timeout(wait_timeout.saturating_add(GRACE), check).await {
        Ok(outcome) => outcome,
        Err(_) => Err(CommandError::failed("the node's checks timed out")),
    }
}
