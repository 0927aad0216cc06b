//! `gen config`: machine configurations and a talosconfig for a cluster.

use std::path::{Path, PathBuf};

use clap::{ArgAction, Args};
use pki::SecretsBundle;

use crate::command_error::CommandError;
use crate::local_file::Overwrite;
use crate::session::Session;

#[derive(Debug, Args)]
pub(crate) struct GenConfigArgs {
    /// Name of the cluster
    #[arg(value_name = "cluster name")]
    cluster_name: String,
    /// URL of Kubernetes: https://HOST:PORT
    #[arg(value_name = "cluster endpoint")]
    cluster_endpoint: String,
    /// More names and addresses for the API server's certificate
    #[arg(long, value_name = "strings", value_delimiter = ',')]
    additional_sans: Vec<String>,
    /// Patch for all machine configurations; JSON, YAML, or @file; may be repeated
    #[arg(long, value_name = "stringArray")]
    config_patch: Vec<String>,
    /// Patch for the control plane's configuration
    #[arg(long, value_name = "stringArray")]
    config_patch_control_plane: Vec<String>,
    /// Patch for the workers' configuration
    #[arg(long, value_name = "stringArray")]
    config_patch_worker: Vec<String>,
    /// DNS domain of the cluster
    #[arg(long, value_name = "string", default_value = "cluster.local")]
    dns_domain: String,
    /// Disk to install to
    #[arg(long, value_name = "string", default_value = "/dev/sda")]
    install_disk: String,
    /// Image to install from
    #[arg(long, value_name = "string", default_value = "ghcr.io/siderolabs/installer:latest")]
    install_image: String,
    /// Version of Kubernetes
    #[arg(long, value_name = "string", default_value = "1.30.0")]
    kubernetes_version: String,
    /// Directory to write to, or file when there is one output type; `-` prints (default: the current directory)
    #[arg(short, long, value_name = "string")]
    output: Option<PathBuf>,
    /// What to generate
    #[arg(short = 't', long, value_name = "strings", value_delimiter = ',',
          default_values = ["controlplane", "worker", "talosconfig"])]
    output_types: Vec<String>,
    /// Value of machine.persist
    #[arg(short, long, value_name = "bool", default_value_t = true, action = ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_missing_value = "true")]
    persist: bool,
    /// Mirror of a registry: HOST=URL
    #[arg(long, value_name = "strings", value_delimiter = ',')]
    registry_mirror: Vec<String>,
    /// Version of the system that the configuration is for (default: this one)
    #[arg(long, value_name = "string")]
    talos_version: Option<String>,
    /// Version of the configuration's format
    #[arg(long, value_name = "string", default_value = "v1alpha1")]
    version: String,
    /// Enables discovery of the cluster's members
    #[arg(long, value_name = "bool", default_value_t = true, action = ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_missing_value = "true")]
    with_cluster_discovery: bool,
    /// Explains the fields in comments
    #[arg(long, value_name = "bool", default_value_t = true, action = ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_missing_value = "true")]
    with_docs: bool,
    /// Shows examples in comments
    #[arg(long, value_name = "bool", default_value_t = true, action = ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_missing_value = "true")]
    with_examples: bool,
    /// Enables KubeSpan
    #[arg(long)]
    with_kubespan: bool,
    /// Uses the secrets of this file (see `gen secrets`)
    #[arg(long, value_name = "string")]
    with_secrets: Option<PathBuf>,
}

pub(crate) fn run(_args: &GenConfigArgs, _overwrite: Overwrite, _session: &Session) -> Result<(), CommandError> {
    Err(CommandError::not_available("`talosctl gen config`"))
}

/// The secrets that a control plane's configuration carries.
pub(super) fn secrets_of_controlplane(_path: &Path) -> Result<SecretsBundle, CommandError> {
    Err(CommandError::not_available("`talosctl gen secrets --from-controlplane-config`"))
}
