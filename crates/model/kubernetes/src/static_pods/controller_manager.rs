//! kube-controller-manager.

use serde_json::Value;

use super::pod::{self, Component};
use super::{CONTROLLER_MANAGER, CONTROLLER_MANAGER_UID, Customization, Revisions};
use crate::args::{Args, DeniedArgument, Policies, Policy};
use crate::{node_cidrs, paths};

const PORT: u16 = 10257;
/// Requests that a client may make at once, before it is held to 20 a second. At its start the program makes three for each of
/// its controllers, for a service account and a token of it; with upstream's 30 it pauses for 4 s until the last is started.
const API_BURST: u16 = 200;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControllerManagerInput {
    pub image: String,
    /// `external`, or empty.
    pub cloud_provider: String,
    pub pod_cidrs: Vec<String>,
    pub service_cidrs: Vec<String>,
    pub custom: Customization,
    pub revisions: Revisions,
}

const POLICIES: Policies = &[
    ("authentication-kubeconfig", Policy::Deny),
    ("authorization-kubeconfig", Policy::Deny),
    ("cluster-signing-cert-file", Policy::Deny),
    ("cluster-signing-key-file", Policy::Deny),
    ("controllers", Policy::Append),
    ("feature-gates", Policy::Append),
    ("kubeconfig", Policy::Deny),
    ("root-ca-file", Policy::Deny),
    ("service-account-private-key-file", Policy::Deny),
];

/// The pod.
///
/// # Errors
/// An extra argument that the system sets itself.
pub fn controller_manager(input: &ControllerManagerInput) -> Result<Value, DeniedArgument> {
    let mut args = Args::default();
    let kubeconfig = secret("kubeconfig");
    args.set(node_cidrs::ALLOCATE_NODE_CIDRS, node_cidrs::allocator(&input.custom.extra_args).flag());
    args.set("bind-address", "127.0.0.1");
    // Read with allocate-node-cidrs only; without it upstream ignores it.
    args.set("cluster-cidr", input.pod_cidrs.join(","));
    args.set("service-cluster-ip-range", input.service_cidrs.join(","));
    args.set("cluster-signing-cert-file", secret("ca.crt"));
    args.set("cluster-signing-key-file", secret("ca.key"));
    args.set("configure-cloud-routes", "false");
    args.set("controllers", "*,tokencleaner");
    args.set("kube-api-burst", API_BURST.to_string());
    args.set("kubeconfig", &kubeconfig);
    args.set("authentication-kubeconfig", &kubeconfig);
    args.set("authorization-kubeconfig", &kubeconfig);
    // Started before the API server has made its first roles, it would exit.
    args.set("authentication-tolerate-lookup-failure", "true");
    args.set("leader-elect", "true");
    args.set("root-ca-file", secret("ca.crt"));
    args.set("service-account-private-key-file", secret("service-account.key"));
    args.set("profiling", "false");
    args.set("tls-min-version", "VersionTLS13");
    args.set("use-service-account-credentials", "true");
    if !input.cloud_provider.is_empty() {
        args.set("cloud-provider", &input.cloud_provider);
    }
    args.merge(CONTROLLER_MANAGER, &input.custom.extra_args, POLICIES)?;
    Ok(pod::render(Component {
        name: CONTROLLER_MANAGER,
        image: &input.image,
        uid: CONTROLLER_MANAGER_UID,
        args: args.to_vec(),
        custom: &input.custom,
        revisions: &input.revisions,
        default_cpu: "50m",
        default_memory: "256Mi",
        capabilities: &[],
        config_files: false,
        volumes: Vec::new(),
        probe_port: Some(PORT),
    }))
}

fn secret(file: &str) -> String {
    format!("{}/{CONTROLLER_MANAGER}/{file}", paths::SECRETS_DIR)
}
