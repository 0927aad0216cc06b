//! `health`: whether a cluster works.

use std::time::Duration;

use clap::{ArgAction, Args};

use crate::command_error::CommandError;
use crate::session::Session;

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
    #[arg(long, value_name = "duration", default_value = "20m0s", value_parser = crate::cli::duration)]
    wait_timeout: Duration,
    /// Worker nodes (default: as discovered)
    #[arg(long, value_name = "strings", value_delimiter = ',')]
    worker_nodes: Vec<String>,
}

pub(crate) async fn run(_args: HealthArgs, _session: &Session) -> Result<(), CommandError> {
    Err(CommandError::not_available("`talosctl health`"))
}
