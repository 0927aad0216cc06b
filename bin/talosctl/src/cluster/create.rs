//! `cluster create`: a local cluster from flags, brought up step by step.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{ArgAction, Args};
use provision::machines::INSTALL_DISK;
use provision::up::{Acceleration, ConfigRequest, Delivery, Install, Patches, Up, UpRequest, Wait, Withheld, up};
use provision::{Cluster, ClusterSpec, DriverSettings, ExposedPort, Limits, NodeSpec, Plan, PlanError, Role};

use super::failure::explain;
use super::flags::{CpusGiven, Effect, IdleFlags};
use super::machines::{MachineFlags, Shared};
use super::progress::{ShowTimings, Steps};
use super::{Provisioner, agent, input, show};
use crate::arguments;
use crate::command_error::CommandError;
use crate::commands::generate::secrets;
use crate::patches;
use crate::session::Session;

#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    // First: whoever reads an argument takes it out of the matches.
    #[command(flatten)]
    cpus_given: CpusGiven,
    /// Architecture of the nodes: that of this host
    #[arg(long, value_name = "string", default_value = "amd64", hide = true)]
    arch: String,
    /// OCI image layout with the images of Kubernetes, served to the nodes (default: images come from their registries)
    #[arg(long, value_name = "string")]
    bundle: Option<PathBuf>,
    /// Network of the nodes; virtual machines can have more, which lead nowhere else
    #[arg(long, value_name = "strings", value_delimiter = ',', default_value = "10.5.0.0/24")]
    cidr: Vec<String>,
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
    /// CPUs of each control plane node, like 1.5; 0 for no limit; emulated virtual machines have one unless it is given
    #[arg(long, value_name = "string", default_value = "2.0")]
    cpus: String,
    /// CPUs of each worker, in the same way
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
    /// Key service to run for --disk-encryption-key-types kms (default: `kmsd` beside this program)
    #[arg(long, value_name = "string")]
    kmsd: Option<PathBuf>,
    /// Address of this host for --exposed-ports; 0.0.0.0 for all of them
    #[arg(long, value_name = "string", default_value = "0.0.0.0")]
    docker_host_ip: Ipv4Addr,
    /// Leaves IPv6 off in the nodes
    #[arg(long)]
    docker_disable_ipv6: bool,
    /// DNS domain of the cluster
    #[arg(long, value_name = "string", default_value = "cluster.local")]
    dns_domain: String,
    /// Name or address that the control plane is reached by, instead of its own: in the talosconfig and in certificates
    #[arg(long, value_name = "string")]
    endpoint: Option<String>,
    /// Ports of this host that lead to the first control plane: HOSTPORT:NODEPORT, or with /tcp or /udp behind
    #[arg(short = 'p', long, value_name = "string", value_delimiter = ',')]
    exposed_ports: Vec<String>,
    /// Image of nodes that are containers: a squashfs as `imager rootfs` builds it (default: _out/rootfs.squashfs)
    #[arg(long, value_name = "string")]
    image: Option<PathBuf>,
    /// Uses the first control plane as the endpoint (always on)
    #[arg(long, hide = true)]
    init_node_as_endpoint: bool,
    /// Folder with configurations to use instead of generated ones: controlplane.yaml, worker.yaml, talosconfig
    #[arg(short, long, value_name = "string", conflicts_with_all = GENERATION)]
    input_dir: Option<PathBuf>,
    /// Image of the installer in the configurations
    #[arg(long, value_name = "string", default_value_t = config::images::installer())]
    install_image: String,
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
    /// Writes the configurations into the current folder, and starts nodes that wait for them in maintenance mode
    #[arg(long)]
    skip_injecting_config: bool,
    /// Leaves the kubeconfig alone
    #[arg(long)]
    skip_kubeconfig: bool,
    /// System version to generate configurations for (default: this version)
    #[arg(long, value_name = "string")]
    talos_version: Option<String>,
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
    /// Makes services log to the console
    #[arg(long)]
    with_debug: bool,
    /// Gives the first control plane the old type init
    #[arg(long)]
    with_init_node: bool,
    /// Number of workers
    #[arg(long, value_name = "int", default_value_t = 1)]
    workers: usize,
    #[command(flatten, next_help_heading = "Virtual machines")]
    machines: MachineFlags,
    #[command(flatten)]
    idle: IdleFlags,
}

/// Where `imager rootfs` puts the image of containers.
const IMAGE: &str = "_out/rootfs.squashfs";

/// Choices about generated configurations, which existing ones make themselves.
const GENERATION: [&str; 13] = [
    "control_plane_port",
    "custom_cni_url",
    "dns_domain",
    "docker_disable_ipv6",
    "install_image",
    "kubeprism_port",
    "kubernetes_version",
    "nameservers",
    "registry_insecure_skip_verify",
    "registry_mirror",
    "talos_version",
    "with_debug",
    "with_init_node",
];

pub(crate) async fn run(
    args: CreateArgs,
    provisioner: Provisioner,
    name: &str,
    root: PathBuf,
    session: &Session,
) -> Result<(), CommandError> {
    let without_effect =
        |flag: &str| session.out.warning(format!("--{flag} is for virtual machines; nodes are containers here"));
    for (flag, effect) in args.idle.effects(provisioner) {
        match effect {
            Effect::None(reason) => session.out.warning(format!("--{flag} has no effect: {reason}")),
            Effect::Refused(reason) => {
                let flag = format!("`talosctl cluster create --{flag}`");
                return Err(CommandError::not_available(&flag).hint(reason));
            }
        }
    }
    match provisioner {
        Provisioner::Containers => args.machines.given().for_each(without_effect),
        Provisioner::Machines if args.image.is_some() => {
            session.out.warning("--image is for containers; nodes are virtual machines here");
        }
        Provisioner::Machines => {}
    }
    let request = request(&args, provisioner, name, root.clone(), session)?;
    let timings = if args.timings { ShowTimings::AtTheEnd } else { ShowTimings::No };
    let up = up(request, &Steps::new(&session.out, timings)).await;
    let mut up = up.map_err(|error| explain(error, name, &root, session))?;
    session.out.note(format!("context {:?} is current in the talosconfig", up.context));
    if let Some(kubeconfig) = up.kubeconfig.as_deref().filter(|_| !args.skip_kubeconfig) {
        let written = crate::commands::kubeconfig::merge_usual(kubeconfig, session)?;
        let remembered = up.cluster.remember(|state| state.contexts.kubeconfig = written);
        remembered.map_err(CommandError::wrap("remembering the kubeconfig's context"))?;
    }
    print(&up, name, &root, session).await?;
    for line in next_steps(&up.withheld) {
        session.out.note(line);
    }
    Ok(())
}

/// The commands that give waiting nodes their configurations.
fn next_steps(withheld: &[Withheld]) -> Vec<String> {
    let Some(first) = withheld.iter().find(|node| node.role == Role::ControlPlane) else { return Vec::new() };
    let apply = |node: &Withheld| {
        format!("  talosctl apply-config --insecure --nodes {} --file {}", node.address, node.file.display())
    };
    let mut lines =
        vec!["nodes wait for their configurations, which were written; apply them, then bootstrap:".to_owned()];
    lines.extend(withheld.iter().map(apply));
    lines.push(format!("  talosctl bootstrap --nodes {}", first.address));
    lines
}

async fn print(up: &Up, name: &str, root: &Path, session: &Session) -> Result<(), CommandError> {
    let (state, nodes) = Cluster::show(root, name).await.map_err(CommandError::wrap("showing the cluster"))?;
    session.out.line(show::text(&state, &nodes))?;
    for node in &up.nodes {
        session.out.note(format!("{} is Ready, Kubernetes {}", node.name, node.kubelet_version));
    }
    Ok(())
}

fn request(
    args: &CreateArgs,
    provisioner: Provisioner,
    name: &str,
    root: PathBuf,
    session: &Session,
) -> Result<UpRequest, CommandError> {
    if !args.ipv4 {
        return Err(CommandError::not_available("a cluster without IPv4"));
    }
    if args.arch != host_architecture() {
        return Err(CommandError::usage(format!("nodes are of this host's architecture: not of {:?}", args.arch)));
    }
    let nodes = NodeSpec { controlplanes: args.controlplanes, workers: args.workers };
    let usage = |text: &str| CommandError::usage(text.to_owned());
    let plan = plan(args, provisioner, name, &nodes)?;
    let agent = agent::program()?;
    let discoveryd = args.discoveryd.clone().unwrap_or_else(|| agent.program.with_file_name("discoveryd"));
    if args.with_cluster_discovery && !discoveryd.is_file() {
        return Err(usage(&format!("there is no discovery server {}", discoveryd.display()))
            .hint("name it by --discoveryd, or go without by --with-cluster-discovery=false"));
    }
    let absolute = |path: &Path| std::path::absolute(path).map_err(CommandError::wrap("reading a path"));
    let (driver, acceleration) = driver(args, provisioner)?;
    let machines = driver.machines().is_some();
    let given = args.cpus_given;
    let control_plane = limits(machines, &args.cpus, given.control_plane, args.memory)?;
    let worker = limits(machines, &args.cpus_workers, given.worker, args.memory_workers)?;
    let kmsd = if machines && args.machines.need_key_service() {
        let kmsd = args.kmsd.clone().unwrap_or_else(|| agent.program.with_file_name("kmsd"));
        if !kmsd.is_file() {
            return Err(usage(&format!("there is no key service {}", kmsd.display())).hint("name it by --kmsd"));
        }
        Some(absolute(&kmsd)?)
    } else {
        None
    };
    let config = configuration(args, &driver, &plan)?;
    let spec = ClusterSpec {
        plan,
        driver: driver.clone(),
        bundle: args.bundle.as_deref().map(absolute).transpose()?,
        discoveryd: args.with_cluster_discovery.then(|| absolute(&discoveryd)).transpose()?,
        kmsd,
        reachable: Vec::new(),
        exposed: exposed(args)?,
    };
    Ok(UpRequest {
        root,
        spec,
        agent,
        config,
        delivery: match (args.with_apply_config, args.skip_injecting_config) {
            (true, _) => Delivery::Applied,
            (false, true) => Delivery::Withheld { folder: absolute(Path::new("."))? },
            (false, false) => Delivery::Injected,
        },
        limits: BTreeMap::from([(Role::ControlPlane, control_plane), (Role::Worker, worker)]),
        acceleration,
        talosconfig: session.talosconfig_path()?,
        wait: if args.wait { Wait::Ready(args.wait_timeout) } else { Wait::Bootstrapped(args.wait_timeout) },
    })
}

/// What a node may use. How many CPUs a virtual machine has unless they are `given` depends on what runs it.
fn limits(machines: bool, cpus: &str, given: bool, mebibytes: u64) -> Result<Limits, CommandError> {
    let limits = Limits { milli_cpus: milli_cpus(cpus)?, memory: (mebibytes > 0).then_some(mebibytes << 20) };
    if !machines {
        return Ok(limits);
    }
    if limits.milli_cpus.is_none() || limits.memory.is_none() {
        return Err(CommandError::usage("a virtual machine has CPUs and memory: neither can be 0"));
    }
    Ok(Limits { milli_cpus: limits.milli_cpus.filter(|_| given), ..limits })
}

fn plan(args: &CreateArgs, provisioner: Provisioner, name: &str, nodes: &NodeSpec) -> Result<Plan, CommandError> {
    let failed = |error: PlanError| CommandError::usage("planning the cluster".to_owned()).caused_by(error);
    let Some((own, sides)) = args.cidr.split_first() else { return Err(CommandError::usage("--cidr is empty")) };
    if provisioner == Provisioner::Containers && !sides.is_empty() {
        return Err(CommandError::usage("--cidr has several networks, and nodes that are containers have one")
            .hint("give one network, or --provisioner qemu"));
    }
    let mut plan = Plan::new(name, own, args.mtu, nodes).map_err(failed)?;
    sides.iter().try_for_each(|side| plan.add_network(side)).map_err(failed)?;
    Ok(plan)
}

fn driver(args: &CreateArgs, provisioner: Provisioner) -> Result<(DriverSettings, Acceleration), CommandError> {
    if provisioner == Provisioner::Containers {
        let image = args.image.as_deref().unwrap_or(Path::new(IMAGE));
        let image = std::path::absolute(image).map_err(CommandError::wrap("reading a path"))?;
        return Ok((DriverSettings::Runc { image }, Acceleration::Given));
    }
    let shared = Shared { nameservers: &args.nameservers, api_port: args.control_plane_port };
    let (settings, acceleration) = args.machines.settings(&shared)?;
    args.machines.check_boot_files(&settings)?;
    Ok((DriverSettings::Qemu(Box::new(settings)), acceleration))
}

fn exposed(args: &CreateArgs) -> Result<Vec<ExposedPort>, CommandError> {
    let texts = args.exposed_ports.iter().map(|text| text.trim()).filter(|text| !text.is_empty());
    texts
        .map(|text| ExposedPort::parse(text, args.docker_host_ip))
        .collect::<Result<_, _>>()
        .map_err(|error| CommandError::usage("reading --exposed-ports").caused_by(error))
}

fn configuration(args: &CreateArgs, driver: &DriverSettings, plan: &Plan) -> Result<ConfigRequest, CommandError> {
    let contract = arguments::contract(args.talos_version.as_deref())?;
    let machines = driver.machines().map(|_| &args.machines);
    let encryption = machines.map_or(Ok(None), |machines| machines.encryption(&plan.keys_endpoint()))?;
    Ok(ConfigRequest {
        existing: match &args.input_dir {
            Some(folder) => Some(input::read(folder, args.workers > 0)?),
            None => None,
        },
        contract,
        secrets: secrets::options_for(contract),
        install_image: Some(args.install_image.clone()),
        endpoint: args.endpoint.clone(),
        debug: args.with_debug,
        init_node: args.with_init_node,
        disable_ipv6: args.docker_disable_ipv6,
        kubernetes_version: args.kubernetes_version.clone(),
        dns_domain: args.dns_domain.clone(),
        nameservers: args.nameservers.iter().filter(|address| !address.contains(':')).cloned().collect(),
        control_plane_port: args.control_plane_port,
        install: driver.machines().map(|machines| Install {
            disk: INSTALL_DISK.to_owned(),
            kernel_arguments: machines.installed_arguments(),
            user_disks: machines.user_disks.clone(),
        }),
        kubeprism_port: (args.kubeprism_port != 0).then_some(args.kubeprism_port),
        mirrors: arguments::mirrors(&args.registry_mirror)?,
        insecure_registries: args.registry_insecure_skip_verify.clone(),
        discovery: args.with_cluster_discovery,
        custom_cni: args.custom_cni_url.clone(),
        patches: Patches {
            // What is written out wins over a flag.
            all: encryption.into_iter().chain(patches::read(&args.config_patch)?).collect(),
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

/// As images call it.
fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_without_a_configuration_come_with_the_commands_that_give_it() {
        let node = |last: u8, role, file: &str| Withheld { address: [10, 5, 0, last].into(), role, file: file.into() };
        let nodes = [node(2, Role::ControlPlane, "/a/controlplane.yaml"), node(3, Role::Worker, "/a/worker.yaml")];
        let steps = next_steps(&nodes);
        let expected = [
            "  talosctl apply-config --insecure --nodes 10.5.0.2 --file /a/controlplane.yaml",
            "  talosctl apply-config --insecure --nodes 10.5.0.3 --file /a/worker.yaml",
            "  talosctl bootstrap --nodes 10.5.0.2",
        ];
        assert_eq!(steps[1..], expected);
        assert!(next_steps(&[]).is_empty());
    }

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: CreateArgs,
    }

    #[test]
    fn cpus_of_machines_are_left_open_unless_they_are_given() {
        let cpus = |machines, line: &str| {
            let line = ["x"].into_iter().chain(line.split_whitespace());
            let args = <Line as clap::Parser>::try_parse_from(line).unwrap().args;
            let given = args.cpus_given;
            let both = [(args.cpus, given.control_plane), (args.cpus_workers, given.worker)];
            both.map(|(cpus, given)| limits(machines, &cpus, given, 2048).unwrap().milli_cpus)
        };
        assert_eq!(cpus(true, ""), [None, None]);
        assert_eq!(cpus(true, "--cpus 2.0"), [Some(2000), None]);
        assert_eq!(cpus(true, "--cpus-workers 4"), [None, Some(4000)]);
        assert_eq!(cpus(false, ""), [Some(2000), Some(2000)]);
        let refused = limits(true, "0", true, 2048).unwrap_err();
        assert_eq!(refused.kind, crate::command_error::Kind::Usage);
    }

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
