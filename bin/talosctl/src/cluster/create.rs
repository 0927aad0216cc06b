//! `cluster create`: a local cluster from flags, brought up step by step.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{ArgAction, Args};
use provision::up::{ConfigRequest, Delivery, Patches, Up, UpError, UpRequest, Wait, up};
use provision::{Cluster, ClusterSpec, Limits, NodeSpec, Plan, ProvisionError, Role};

use super::flags::LaterFlags;
use super::progress::{ShowTimings, Steps};
use super::{agent, show};
use crate::command_error::CommandError;
use crate::patches;
use crate::session::Session;

#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// OCI image layout with the images of Kubernetes, served to the nodes (default: images come from their registries)
    #[arg(long, value_name = "string")]
    bundle: Option<PathBuf>,
    /// Network of the nodes
    #[arg(long, value_name = "string", default_value = "10.5.0.0/24")]
    cidr: String,
    /// Patch for all machine configurations; JSON, YAML, or @file; may be repeated
    #[arg(long, value_name = "stringArray")]
    config_patch: Vec<String>,
    /// Patch for the control plane's configuration
    #[arg(long, value_name = "stringArray")]
    config_patch_control_plane: Vec<String>,
    /// Patch for the workers' configuration
    #[arg(long, value_name = "stringArray")]
    config_patch_worker: Vec<String>,
    /// Patch for one node's configuration: NODE=PATCH
    #[arg(long, value_name = "stringArray")]
    config_patch_node: Vec<String>,
    /// Port of the Kubernetes API
    #[arg(long, value_name = "int", default_value_t = 6443)]
    control_plane_port: u16,
    /// Number of control plane nodes
    #[arg(long, visible_alias = "masters", value_name = "int", default_value_t = 1)]
    controlplanes: usize,
    /// CPUs of each control plane node, like 1.5; 0 for no limit
    #[arg(long, value_name = "string", default_value = "2.0")]
    cpus: String,
    /// CPUs of each worker
    #[arg(long, value_name = "string", default_value = "2.0")]
    cpus_workers: String,
    /// Prints the logs of failed services (always on)
    #[arg(long, hide = true)]
    crashdump: bool,
    /// Manifest of another pod network
    #[arg(long, value_name = "string")]
    custom_cni_url: Vec<String>,
    /// Discovery server to run (default: `discoveryd` beside this program)
    #[arg(long, value_name = "string")]
    discoveryd: Option<PathBuf>,
    /// DNS domain of the cluster
    #[arg(long, value_name = "string", default_value = "cluster.local")]
    dns_domain: String,
    /// Node image: a squashfs as `imager rootfs` builds it
    #[arg(long, value_name = "string", default_value = "_out/rootfs.squashfs")]
    image: PathBuf,
    /// Uses IPv4 in the network
    #[arg(long, value_name = "bool", default_value_t = true, action = ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_missing_value = "true", hide = true)]
    ipv4: bool,
    /// Port of KubePrism; 0 switches it off
    #[arg(long, value_name = "int", default_value_t = 7445)]
    kubeprism_port: u16,
    /// Version of Kubernetes (default: that of the bundle, else 1.30.0)
    #[arg(long, value_name = "string")]
    kubernetes_version: Option<String>,
    /// Memory of each control plane node in MiB; 0 for no limit
    #[arg(long, value_name = "int", default_value_t = 2048)]
    memory: u64,
    /// Memory of each worker in MiB
    #[arg(long, value_name = "int", default_value_t = 2048)]
    memory_workers: u64,
    /// MTU of the network
    #[arg(long, value_name = "int", default_value_t = 1500)]
    mtu: u32,
    /// Resolvers of the nodes; IPv6 ones are left out of an IPv4 network
    #[arg(long, value_name = "strings", value_delimiter = ',',
          default_values = ["8.8.8.8", "1.1.1.1", "2001:4860:4860::8888", "2606:4700:4700::1111"])]
    nameservers: Vec<String>,
    /// Registries whose certificates are not checked
    #[arg(long, value_name = "strings", value_delimiter = ',')]
    registry_insecure_skip_verify: Vec<String>,
    /// Mirror of a registry: HOST=URL
    #[arg(long, value_name = "strings", value_delimiter = ',')]
    registry_mirror: Vec<String>,
    /// Does not wait for the end of the boot sequence
    #[arg(long, hide = true)]
    skip_boot_phase_finished_check: bool,
    /// Starts nodes without a configuration: they wait for one in maintenance mode
    #[arg(long)]
    skip_injecting_config: bool,
    /// Leaves the kubeconfig alone
    #[arg(long)]
    skip_kubeconfig: bool,
    /// Prints when each condition was reached, and the conditions that services waited for
    #[arg(long)]
    timings: bool,
    /// Waits until the cluster is ready: all nodes, and the cluster's DNS
    #[arg(long, value_name = "bool", default_value_t = true, action = ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_missing_value = "true")]
    wait: bool,
    /// How long to wait for all of it
    #[arg(long, value_name = "duration", default_value = "20m0s", value_parser = crate::arguments::duration)]
    wait_timeout: Duration,
    /// Hands nodes their configurations through the API in maintenance mode
    #[arg(long)]
    with_apply_config: bool,
    /// Enables discovery of the cluster's members
    #[arg(long, value_name = "bool", default_value_t = true, action = ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_missing_value = "true")]
    with_cluster_discovery: bool,
    /// Number of workers
    #[arg(long, value_name = "int", default_value_t = 1)]
    workers: usize,
    #[command(flatten)]
    later: LaterFlags,
}

pub(crate) async fn run(args: CreateArgs, name: &str, root: PathBuf, session: &Session) -> Result<(), CommandError> {
    if let Some(flag) = args.later.0 {
        return Err(CommandError::not_available(&format!("`talosctl cluster create --{flag}`")));
    }
    let request = request(&args, name, root.clone(), session)?;
    let timings = if args.timings { ShowTimings::AtTheEnd } else { ShowTimings::No };
    let up = up(request, &Steps::new(&session.out, timings)).await;
    let mut up = up.map_err(|error| explain(error, name, &root, session))?;
    session.out.note(format!("context {:?} is current in the talosconfig", up.context));
    if let Some(kubeconfig) = up.kubeconfig.as_deref().filter(|_| !args.skip_kubeconfig) {
        let written = crate::commands::kubeconfig::merge_usual(kubeconfig, session)?;
        let remembered = up.cluster.remember(|state| state.contexts.kubeconfig = written);
        remembered.map_err(CommandError::wrap("remembering the kubeconfig's context"))?;
    }
    print(&up, name, &root, session).await
}

async fn print(up: &Up, name: &str, root: &Path, session: &Session) -> Result<(), CommandError> {
    let (state, nodes) = Cluster::show(root, name).await.map_err(CommandError::wrap("showing the cluster"))?;
    session.out.line(show::text(&state, &nodes))?;
    for node in &up.nodes {
        session.out.note(format!("{} is Ready, Kubernetes {}", node.name, node.kubelet_version));
    }
    Ok(())
}

fn request(args: &CreateArgs, name: &str, root: PathBuf, session: &Session) -> Result<UpRequest, CommandError> {
    if !args.ipv4 {
        return Err(CommandError::not_available("a cluster without IPv4"));
    }
    let nodes = NodeSpec { controlplanes: args.controlplanes, workers: args.workers };
    let usage = |text: &str| CommandError::usage(text.to_owned());
    let plan = Plan::new(name, &args.cidr, args.mtu, &nodes)
        .map_err(|error| usage("planning the cluster").caused_by(error))?;
    let agent = agent::program()?;
    let discoveryd = args.discoveryd.clone().unwrap_or_else(|| agent.program.with_file_name("discoveryd"));
    if args.with_cluster_discovery && !discoveryd.is_file() {
        return Err(usage(&format!("there is no discovery server {}", discoveryd.display()))
            .hint("name it by --discoveryd, or go without by --with-cluster-discovery=false"));
    }
    let absolute = |path: &Path| std::path::absolute(path).map_err(CommandError::wrap("reading a path"));
    let limits = |cpus: &str, mebibytes: u64| -> Result<Limits, CommandError> {
        Ok(Limits { milli_cpus: milli_cpus(cpus)?, memory: (mebibytes > 0).then_some(mebibytes << 20) })
    };
    let spec = ClusterSpec {
        plan,
        image: absolute(&args.image)?,
        bundle: args.bundle.as_deref().map(absolute).transpose()?,
        discoveryd: args.with_cluster_discovery.then(|| absolute(&discoveryd)).transpose()?,
        reachable: Vec::new(),
    };
    Ok(UpRequest {
        root,
        spec,
        agent,
        config: configuration(args)?,
        delivery: match (args.with_apply_config, args.skip_injecting_config) {
            (true, _) => Delivery::Applied,
            (false, true) => Delivery::Withheld,
            (false, false) => Delivery::Injected,
        },
        limits: BTreeMap::from([
            (Role::ControlPlane, limits(&args.cpus, args.memory)?),
            (Role::Worker, limits(&args.cpus_workers, args.memory_workers)?),
        ]),
        talosconfig: session.talosconfig_path()?,
        wait: if args.wait { Wait::Ready(args.wait_timeout) } else { Wait::Bootstrapped(args.wait_timeout) },
    })
}

fn configuration(args: &CreateArgs) -> Result<ConfigRequest, CommandError> {
    let mirrors = args.registry_mirror.iter().map(|text| {
        text.split_once('=')
            .map(|(host, url)| (host.to_owned(), url.to_owned()))
            .ok_or_else(|| CommandError::usage(format!("--registry-mirror {text:?} is not HOST=URL")))
    });
    Ok(ConfigRequest {
        kubernetes_version: args.kubernetes_version.clone(),
        dns_domain: args.dns_domain.clone(),
        nameservers: args.nameservers.iter().filter(|address| !address.contains(':')).cloned().collect(),
        control_plane_port: args.control_plane_port,
        kubeprism_port: (args.kubeprism_port != 0).then_some(args.kubeprism_port),
        mirrors: mirrors.collect::<Result<_, _>>()?,
        insecure_registries: args.registry_insecure_skip_verify.clone(),
        discovery: args.with_cluster_discovery,
        custom_cni: args.custom_cni_url.clone(),
        patches: Patches {
            all: patches::read(&args.config_patch)?,
            control_plane: patches::read(&args.config_patch_control_plane)?,
            worker: patches::read(&args.config_patch_worker)?,
            nodes: node_patches(&args.config_patch_node)?,
        },
    })
}

/// Patches by the name of their node.
fn node_patches(texts: &[String]) -> Result<BTreeMap<String, Vec<config::Patch>>, CommandError> {
    let mut nodes: BTreeMap<String, Vec<config::Patch>> = BTreeMap::new();
    for text in texts {
        let invalid = || CommandError::usage(format!("--config-patch-node {text:?} is not NODE=PATCH"));
        let (node, patch) = text.split_once('=').ok_or_else(invalid)?;
        nodes.entry(node.to_owned()).or_default().extend(patches::read(&[patch.to_owned()])?);
    }
    Ok(nodes)
}

/// `1.5` as 1500; nothing for 0.
fn milli_cpus(text: &str) -> Result<Option<u64>, CommandError> {
    let invalid = || CommandError::usage(format!("{text:?} is not a number of CPUs like 1.5"));
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || part.len() > 3 || !(part.is_empty() || digits(part)) {
        return Err(invalid());
    }
    let milli = format!("{whole}{part:0<3}").parse::<u64>().map_err(|_| invalid())?;
    Ok((milli > 0).then_some(milli))
}

/// The failure, where to look, and how to remove the created parts.
fn explain(error: UpError, name: &str, root: &Path, session: &Session) -> CommandError {
    let left = error.left_something();
    let mut hints = Vec::new();
    match &error {
        UpError::Provision(ProvisionError::Refused { problems, .. }) => {
            let refused = CommandError::usage(format!("cluster {name} cannot be created, nothing was changed"));
            let refused = problems.iter().fold(refused, |error, problem| {
                session.out.note(format!("  {}", problem.what));
                error.hint(problem.remedy.clone())
            });
            return refused;
        }
        UpError::SeveralControlPlanes(_) => {
            let refused = CommandError::usage(format!("cluster {name} cannot be created, nothing was changed"));
            return refused.caused_by(error).hint("leave out --controlplanes; --workers adds nodes");
        }
        UpError::NotReady(failure) => {
            if !failure.last_lines.is_empty() {
                let whose = failure.service.as_ref().map_or_else(
                    || format!("of node {}", failure.node),
                    |service| format!("of service {service} on {}", failure.node),
                );
                session.out.note(format!("last lines {whose}:"));
                failure.last_lines.iter().for_each(|line| session.out.note(format!("  {line}")));
            }
            if let Some(service) = &failure.service {
                let node = failure.address;
                hints.push(format!(
                    "`talosctl logs {service} --nodes {node}` and `talosctl services --nodes {node}` show more"
                ));
            }
            hints.push(format!("the node's own log is {}", failure.node_log.display()));
        }
        _ => {}
    }
    if left {
        let state = root.display();
        hints.push(format!(
            "the cluster is kept for inspection; `talosctl cluster destroy --name {name} --state {state}` removes it"
        ));
    }
    let failed = CommandError::failed(format!("creating cluster {name}")).caused_by(error);
    hints.into_iter().fold(failed, CommandError::hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_read_to_the_thousandth() {
        for (text, milli) in
            [("2.0", Some(2000)), ("1.5", Some(1500)), ("0.125", Some(125)), ("4", Some(4000)), ("0", None)]
        {
            assert_eq!(milli_cpus(text).unwrap(), milli, "{text}");
        }
        for text in ["", ".5", "-1", "1.2345", "two", "1e3"] {
            let error = milli_cpus(text).unwrap_err();
            assert_eq!(error.kind, crate::command_error::Kind::Usage, "{text}");
        }
    }
}
