//! kube-scheduler.

use serde_json::Value;

use super::pod::{self, Component};
use super::{Customization, Revisions, SCHEDULER, SCHEDULER_UID};
use crate::args::{Args, DeniedArgument, Policies, Policy};
use crate::component_files;
use crate::paths;

const PORT: u16 = 10259;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchedulerInput {
    pub image: String,
    pub custom: Customization,
    pub revisions: Revisions,
}

const POLICIES: Policies = &[
    ("authentication-kubeconfig", Policy::Deny),
    ("authorization-kubeconfig", Policy::Deny),
    ("config", Policy::Deny),
    ("feature-gates", Policy::Append),
    ("kubeconfig", Policy::Deny),
];

/// The pod.
///
/// # Errors
/// An extra argument that the system sets itself.
pub fn scheduler(input: &SchedulerInput) -> Result<Value, DeniedArgument> {
    let kubeconfig = format!("{}/{SCHEDULER}/kubeconfig", paths::SECRETS_DIR);
    let mut args = Args::default();
    args.set("config", format!("{}/{SCHEDULER}/{}", paths::CONFIG_DIR, component_files::SCHEDULER_CONFIG_FILE));
    args.set("authentication-kubeconfig", &kubeconfig);
    args.set("authorization-kubeconfig", &kubeconfig);
    // Started before the API server has made its first roles, it would exit.
    args.set("authentication-tolerate-lookup-failure", "true");
    args.set("bind-address", "127.0.0.1");
    args.set("leader-elect", "true");
    args.set("profiling", "false");
    args.set("tls-min-version", "VersionTLS13");
    args.merge(SCHEDULER, &input.custom.extra_args, POLICIES)?;
    Ok(pod::render(Component {
        name: SCHEDULER,
        image: &input.image,
        uid: SCHEDULER_UID,
        args: args.to_vec(),
        custom: &input.custom,
        revisions: &input.revisions,
        default_cpu: "10m",
        default_memory: "64Mi",
        capabilities: &[],
        config_files: true,
        volumes: Vec::new(),
        probe_port: Some(PORT),
    }))
}
