//! Bringing a cluster up: from nothing to all nodes Ready, step by step.
//!
//! Each step has a name, each wait says what it waits for and what it last heard, and a failure says on which node, with
//! the last lines of the service that did not come up. What was made stays for inspection.

mod configs;
mod failure;
mod offline;
mod timings;
mod wait;
mod withheld;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use client::{Client, ConfigContext, ConnectOptions, TalosConfig};
use kube_edge::{KubeApi as _, RealKube};
use stdx::{Clock as _, SystemClock};
use tokio::time::Instant;

use crate::agent::{self, AgentProgram};
use crate::cluster::Cluster;
use crate::error::{HostError, ProvisionError};
use crate::folder::make_folder;
use crate::machines::accelerator::{self, Accelerator, Probe};
use crate::machines::{self, Media};
use crate::plan::{Plan, Role};
use crate::spec::{ClusterSpec, DriverSettings, Limits};
use crate::state::{Phase, WrittenContext};

use self::configs::{ClusterDns, Material, Rendered};
use self::offline::Images;
use self::timings::Recorder;
use self::wait::Waiting;

pub use configs::{ConfigRequest, Existing, Install, Patches};
pub use failure::{Failure, UpError};
pub use offline::Offline;
pub use timings::{Reached, ServiceWait, Timings, Witness};

/// Receives progress.
pub trait Progress {
    /// A step begins.
    fn begin(&self, step: &str);
    /// Current activity of the step, or the condition that it waits for.
    fn detail(&self, text: &str);
    /// The step that began last is done.
    fn end(&self, step: &str, took: Duration);
    /// Something worth knowing that stops nothing.
    fn notice(&self, text: &str);
    /// Whether nodes shall be asked for their part of [`Self::timings`].
    fn wants_timings(&self) -> bool;
    /// When conditions were reached: once at the end, also after a failure.
    fn timings(&self, timings: &Timings);
}

/// The requested cluster.
#[derive(Debug)]
pub struct UpRequest {
    /// The folder of all clusters.
    pub root: PathBuf,
    pub spec: ClusterSpec,
    pub agent: AgentProgram,
    pub config: ConfigRequest,
    pub delivery: Delivery,
    /// Of the nodes of each role. What runs virtual machines decides how many CPUs they have where that is left open.
    pub limits: BTreeMap<Role, Limits>,
    pub acceleration: Acceleration,
    /// File for the cluster's context.
    pub talosconfig: PathBuf,
    pub wait: Wait,
}

/// How it is decided what runs machines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Acceleration {
    /// As the settings say.
    #[default]
    Given,
    /// By hardware virtualization where a guest shows that it works, else by an emulator.
    Probed,
}

/// How nodes get their configurations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Delivery {
    /// When they start: containers with their environment, machines from an address among their kernel's arguments. Machines
    /// that boot with arguments of others get them through the API.
    #[default]
    Injected,
    /// Through the API in maintenance mode.
    Applied,
    /// Not at all: they are written into a folder, and nodes wait in maintenance mode for somebody who applies them.
    Withheld { folder: PathBuf },
}

/// Whether to wait for the cluster, and how long for all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Until the cluster is bootstrapped, no longer.
    Bootstrapped(Duration),
    Ready(Duration),
}

impl Wait {
    fn limit(self) -> Duration {
        let (Self::Bootstrapped(limit) | Self::Ready(limit)) = self;
        limit
    }
}

/// A cluster that is up.
#[derive(Debug)]
pub struct Up {
    pub cluster: Cluster,
    /// The name under which the talosconfig has the cluster.
    pub context: String,
    /// The administrator's kubeconfig; none without waiting.
    pub kubeconfig: Option<String>,
    pub kubernetes_version: String,
    pub nodes: Vec<ReadyNode>,
    /// Files with the configurations of nodes that were withheld.
    pub withheld: Vec<Withheld>,
}

/// A node that waits for its configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Withheld {
    pub address: std::net::Ipv4Addr,
    pub role: Role,
    pub file: PathBuf,
}

/// A node as Kubernetes sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadyNode {
    pub name: String,
    pub ready: bool,
    pub kubelet_version: String,
}

/// Creates a cluster and brings it up.
///
/// # Errors
///
/// A refusal by the provisioner changed nothing; other failures leave the created parts for inspection.
pub async fn up(mut request: UpRequest, progress: &dyn Progress) -> Result<Up, UpError> {
    let recorder = Recorder::new(progress);
    let began = SystemClock.now();
    let deadline = Instant::now() + request.wait.limit();
    Cluster::check(&request.root, &request.spec, &request.agent)?;
    prepare_machines(&mut request, &recorder).await?;
    let images = Images::read(&request.spec)?;
    // A first time only to see whether it can be done: nothing is made for what the nodes would not accept.
    let material = configs::material(&request.config)?;
    let tried = configs::render(&request.config, &request.spec.plan, material.clone(), &images, None)?;
    tried.warnings.iter().for_each(|warning| progress.notice(warning));
    let withheld = withheld::files(&request);
    withheld::check_absent(&withheld)?;
    let made = make(&request, material, images, tried.addresses(), &recorder).await;
    let (mut cluster, rendered) = made.inspect_err(|_| progress.timings(&recorder.timings()))?;
    let context = write_context(&mut cluster, &request.talosconfig, &rendered.talosconfig)?;
    cluster.remember(|state| {
        state.kubernetes_version = Some(rendered.kubernetes_version.clone());
        state.kubernetes_endpoint = Some(rendered.endpoint.clone());
    })?;

    let client = connect(&rendered.talosconfig, cluster.plan())?;
    let waiting = Waiting { cluster: &cluster, client: &client, progress: &recorder, deadline };
    let mut timings = Timings::default();
    let waited = wait(&request, &rendered, &waiting, &mut timings, began).await;
    if progress.wants_timings() {
        for (node, services) in waiting.all_services().await {
            timings.add_services(&node, &services, began);
        }
    }
    timings.reached.extend(recorder.timings().reached);
    timings.sort();
    progress.timings(&timings);
    let (kubeconfig, nodes) = waited?;
    cluster.remember(|state| state.phase = Phase::Created)?;
    Ok(Up { cluster, context, kubeconfig, kubernetes_version: rendered.kubernetes_version, nodes, withheld })
}

/// Decides what runs the machines, and how they get their configurations.
async fn prepare_machines(request: &mut UpRequest, progress: &Recorder<'_>) -> Result<(), UpError> {
    let DriverSettings::Qemu(settings) = &mut request.spec.driver else { return Ok(()) };
    if request.acceleration == Acceleration::Probed {
        let scratch = request.root.clone();
        let probing = blocking("hardware virtualization", move || {
            make_folder(&scratch)?;
            Ok::<_, ProvisionError>(accelerator::probe(&scratch)?)
        });
        settings.accelerator = match step(progress, "hardware virtualization", probing).await? {
            Probe::Works => Accelerator::Kvm,
            Probe::Fails(reason) => {
                progress
                    .notice(&format!("KVM does not work here, machines are emulated (TCG), which is slow: {reason}"));
                Accelerator::Tcg
            }
        };
    }
    let accelerator = settings.accelerator;
    if let Some(notice) = choose_cpus(accelerator, &request.spec.plan, &mut request.limits) {
        progress.notice(notice);
    }
    if let Some(install) = &mut request.config.install {
        install.kernel_arguments = settings.installed_arguments();
    }
    if let Some(notice) = settings.arguments_without_effect() {
        progress.notice(notice);
    }
    if request.delivery == Delivery::Injected && !settings.injects_configurations() {
        progress.notice(
            "machines boot with kernel arguments of their medium: they get their configurations through the API",
        );
        request.delivery = Delivery::Applied;
    }
    Ok(())
}

/// Gives machines CPUs where their number was left open. Returns a notice where it is smaller than usual.
fn choose_cpus(accelerator: Accelerator, plan: &Plan, limits: &mut BTreeMap<Role, Limits>) -> Option<&'static str> {
    let mut chosen = false;
    for role in plan.nodes.iter().map(|node| node.role) {
        let cpus = &mut limits.entry(role).or_default().milli_cpus;
        if cpus.is_none() {
            *cpus = Some(machines::usual_cpus(accelerator));
            chosen = true;
        }
    }
    (chosen && accelerator == Accelerator::Tcg).then_some(
        "emulated machines have one CPU each, since guests with several crash now and then (QEMU 7.2); \
         --cpus and --cpus-workers take precedence",
    )
}

/// Waits for the requested state; returns the kubeconfig and the nodes if that includes them.
async fn wait(
    request: &UpRequest,
    rendered: &Rendered,
    waiting: &Waiting<'_>,
    timings: &mut Timings,
    began: SystemTime,
) -> Result<(Option<String>, Vec<ReadyNode>), UpError> {
    if request.delivery == Delivery::Applied {
        for node in &request.spec.plan.nodes {
            waiting.apply(node, rendered.of(node)).await?;
        }
    }
    if matches!(request.delivery, Delivery::Withheld { .. }) {
        return Ok((None, Vec::new()));
    }
    waiting.api().await?;
    waiting.bootstrap().await?;
    if !matches!(request.wait, Wait::Ready(_)) {
        return Ok((None, Vec::new()));
    }
    waiting.etcd().await?;
    let text = waiting.kubernetes().await?;
    let generate = |source| UpError::Generate { subject: "Kubernetes client", source: Box::new(source) };
    let kube = RealKube::from_kubeconfig(&text).await.map_err(generate)?;
    let nodes = waiting.nodes(&kube).await;
    if let Ok(seen) = kube.nodes().await {
        timings.add_nodes(&seen, began);
    }
    let nodes = nodes?;
    waiting.members().await?;
    if rendered.dns == ClusterDns::CoreDns {
        waiting.dns(&kube).await?;
    }
    Ok((Some(text), nodes))
}

/// The steps that make things: network, agent, configurations, nodes.
async fn make(
    request: &UpRequest,
    material: Material,
    images: Images,
    reachable: BTreeSet<SocketAddrV4>,
    progress: &Recorder<'_>,
) -> Result<(Cluster, Rendered), UpError> {
    let mut spec = request.spec.clone();
    spec.reachable.extend(reachable);
    let made = match &spec.driver {
        DriverSettings::Runc { .. } => "network and root file system",
        DriverSettings::Qemu(settings) => match settings.media {
            Media::DiskImage(_) => "network and disk image",
            _ => "network",
        },
    };
    let creating = Cluster::create(&request.root, &spec, &request.agent);
    let mut cluster = step(progress, made, creating).await?;
    cluster.notices().iter().for_each(|notice| progress.notice(notice));

    let plan = cluster.plan().clone();
    let (root, name, program) = (request.root.clone(), plan.name.clone(), request.agent.clone());
    let starting = blocking("cluster agent", move || agent::start(&root, &name, &program));
    let agent = step(progress, "cluster agent", starting).await?;

    let (config, gateway) = (request.config.clone(), plan.gateway);
    let registry = images.registry(gateway, agent.registry_port);
    let for_config = plan.clone();
    let render = move || {
        let rendered = configs::render(&config, &for_config, material, &images, registry.as_deref())?;
        let notices = rendered.unused_installer(&images, registry.as_deref())?;
        Ok::<_, UpError>((rendered, notices))
    };
    let rendering = blocking("machine configurations", render);
    let (rendered, notices) = step(progress, "machine configurations", rendering).await?;
    notices.iter().for_each(|notice| progress.notice(notice));

    withheld::write(request, &rendered)?;
    for node in &plan.nodes {
        let limits = request.limits.get(&node.role).copied().unwrap_or_default();
        let data = (request.delivery == Delivery::Injected).then(|| rendered.of(node));
        let name = format!("node {} at {}", node.name, node.address);
        step(progress, &name, cluster.start_node(&node.name, data, limits)).await?;
    }
    Ok((cluster, rendered))
}

/// Tells the beginning and the end of a step.
async fn step<T, E>(progress: &dyn Progress, name: &str, work: impl Future<Output = Result<T, E>>) -> Result<T, UpError>
where
    UpError: From<E>,
{
    let began = Instant::now();
    progress.begin(name);
    let value = work.await?;
    progress.end(name, began.elapsed());
    Ok(value)
}

/// Work that has its own thread, because it waits for processes or computes for long.
async fn blocking<T, E>(name: &str, work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, UpError>
where
    T: Send + 'static,
    E: Send + 'static,
    UpError: From<E>,
{
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|source| UpError::Step { step: name.to_owned(), source })??)
}

/// Adds the cluster to the operator's talosconfig and makes it current there. What is added is remembered first, so that it
/// can be taken out again however this command ends.
fn write_context(cluster: &mut Cluster, path: &Path, own: &TalosConfig) -> Result<String, UpError> {
    let path = std::path::absolute(path).map_err(HostError::io("finding", path)).map_err(ProvisionError::from)?;
    let mut config = TalosConfig::load(&path)?;
    let previous = config.context.clone();
    config.merge(own);
    let (name, context) = config.select(None)?;
    let (name, authority) = (name.to_owned(), context.ca.clone());
    let written = WrittenContext { file: path.clone(), name: name.clone(), authority, previous };
    cluster.remember(|state| state.contexts.talosconfig = Some(written))?;
    config.save(&path)?;
    Ok(name)
}

/// Directly to the first control plane, whatever endpoints the operator wants to use; it may not listen yet. No other one is
/// asked in its place: a bootstrap call whose answer got lost must not found a second cluster.
fn connect(config: &TalosConfig, plan: &Plan) -> Result<Client, UpError> {
    let (_, context) = config.select(None)?;
    let endpoints = plan.first_control_plane().map(|node| node.address.to_string()).into_iter().collect();
    let context = ConfigContext { endpoints, ..context.clone() };
    let options = ConnectOptions { dial_timeout: Duration::from_secs(2), ..ConnectOptions::from_context(&context)? };
    Ok(Client::connect_lazy(options)?.with_call_timeout(Duration::from_secs(5)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::NodeSpec;

    #[test]
    fn emulated_machines_have_one_cpu_unless_somebody_asked_for_more() {
        let plan = Plan::new("a", "10.5.0.0/24", 1500, &NodeSpec { controlplanes: 1, workers: 1 }).unwrap();
        let given = |cpus| Limits { milli_cpus: cpus, memory: Some(1) };
        for (accelerator, [control_plane, worker], wanted, notices) in [
            (Accelerator::Tcg, [None, None], [1000, 1000], true),
            (Accelerator::Tcg, [Some(2000), None], [2000, 1000], true),
            (Accelerator::Tcg, [Some(2000), Some(4000)], [2000, 4000], false),
            (Accelerator::Kvm, [None, Some(1000)], [2000, 1000], false),
        ] {
            let mut limits = [(Role::ControlPlane, given(control_plane)), (Role::Worker, given(worker))].into();
            let notice = choose_cpus(accelerator, &plan, &mut limits);
            let got = [Role::ControlPlane, Role::Worker].map(|role| limits[&role]);
            assert_eq!(got, wanted.map(|cpus| given(Some(cpus))), "{accelerator:?}");
            assert_eq!(notice.is_some(), notices, "{accelerator:?}");
        }
    }
}
