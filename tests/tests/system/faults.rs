//! Recovery of a cluster when one of its processes is killed.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

use crate::access::{Authority, Identity};
use crate::cluster::{CONTROL_PLANE, Cluster, GATEWAY, NAME, Node, WORKER};
use crate::host::{Process, processes};
use crate::{members, pods};
use tests::support::{eventually, http_get, run};

const RETURN: Duration = Duration::from_secs(60);
/// Control plane pods that lost the API server end, and the kubelet starts them again after pauses that double from 10 s.
const CONVERGE: Duration = Duration::from_secs(300);

/// The processes of a node that run a program.
pub(crate) fn of_node(node: Node, program: &str) -> anyhow::Result<Vec<Process>> {
    of_node_in(NAME, node.name, program)
}

/// The processes of a node of any cluster that run a program.
pub(crate) fn of_node_in(cluster: &str, node: &str, program: &str) -> anyhow::Result<Vec<Process>> {
    let group = format!(":/talos-{cluster}/{node}");
    let below = |line: &str| line.split_once(&group).is_some_and(|(_, rest)| rest.is_empty() || rest.starts_with('/'));
    let runs = |process: &Process| {
        let path = process.command.split(' ').next().unwrap_or_default();
        process.cgroups.lines().any(below) && path.rsplit('/').next() == Some(program)
    };
    Ok(processes()?.into_iter().filter(runs).collect())
}

/// The discovery server of the cluster, which runs beside the nodes.
fn discovery_server(cluster: &Cluster) -> anyhow::Result<Vec<Process>> {
    let path = cluster.state().join(NAME).join("discoveryd.json");
    let card: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).context("reading its record")?)?;
    let pid = card.get("pid").and_then(serde_json::Value::as_u64);
    let is_it = |process: &Process| Some(u64::from(process.pid)) == pid && process.command.contains("discoveryd");
    Ok(processes()?.into_iter().filter(is_it).collect())
}

/// All discovery servers of the cluster, including orphaned ones.
fn discovery_servers() -> anyhow::Result<Vec<Process>> {
    let listens = format!("--listen {GATEWAY}:");
    Ok(processes()?.into_iter().filter(|process| process.command.contains(&listens)).collect())
}

/// Kills one process and waits until another runs in its place and the whole cluster is well.
fn kill_and_wait(
    cluster: &Cluster,
    program: &str,
    find: impl Fn() -> anyhow::Result<Vec<Process>>,
) -> anyhow::Result<()> {
    let old = kill(&find()?, program)?;
    eventually(&format!("{program} returns"), RETURN, || {
        let now = find()?;
        ensure!(now.len() == 1 && now.iter().all(|process| process.pid != old), "its processes are {now:?}");
        Ok(())
    })?;
    converges(cluster)
}

/// Kills the only one of the processes; its number.
pub(crate) fn kill(processes: &[Process], program: &str) -> anyhow::Result<u32> {
    send("-KILL", processes, program)
}

/// Sends a signal to the only one of the processes; its number.
fn send(signal: &str, processes: &[Process], program: &str) -> anyhow::Result<u32> {
    let [process] = processes else { bail!("{} processes of {program} run, not one", processes.len()) };
    let pid = process.pid;
    run(Path::new("kill"), &[signal, &pid.to_string()])?.ok().with_context(|| format!("signalling {program}"))?;
    Ok(pid)
}

/// All services of all nodes are healthy, all pods of the system run, all nodes are Ready and know each other.
pub(crate) fn converges(cluster: &Cluster) -> anyhow::Result<()> {
    eventually("all services are healthy", CONVERGE, || {
        let nodes = format!("{},{}", CONTROL_PLANE.address, WORKER.address);
        let services = cluster.talosctl(&["services", "--nodes", &nodes])?.ok()?;
        let healthy = |line: &&str| line.contains(" Running ") && line.contains(" OK ");
        let count = services.lines().skip(1).filter(healthy).count();
        ensure!(count == services.lines().count() - 1 && count == 10, "{services}");
        Ok(())
    })?;
    eventually("all pods of the system are ready", CONVERGE, || {
        let template =
            r#"jsonpath={range .items[*]}{.metadata.name} {.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}"#;
        let pods = cluster.kubectl(&["--namespace", "kube-system", "get", "pods", "--output", template])?.ok()?;
        // Three of the control plane, kube-proxy on both nodes, and CoreDNS twice.
        ensure!(pods.lines().count() == 7 && pods.lines().all(|line| line.ends_with(" True")), "{pods}");
        Ok(())
    })?;
    members::all_nodes_are_ready(cluster)?;
    members::members_are_the_same_on_every_node(cluster)
}

fn of_control_plane(cluster: &Cluster, program: &str) -> anyhow::Result<()> {
    kill_and_wait(cluster, program, || of_node(CONTROL_PLANE, program))
}

pub(crate) fn apid_returns(cluster: &Cluster) -> anyhow::Result<()> {
    of_control_plane(cluster, "apid")
}

pub(crate) fn trustd_returns(cluster: &Cluster) -> anyhow::Result<()> {
    of_control_plane(cluster, "trustd")
}

pub(crate) fn containerd_returns(cluster: &Cluster) -> anyhow::Result<()> {
    of_control_plane(cluster, "containerd")
}

pub(crate) fn etcd_returns(cluster: &Cluster) -> anyhow::Result<()> {
    of_control_plane(cluster, "etcd")
}

pub(crate) fn kubelet_returns(cluster: &Cluster) -> anyhow::Result<()> {
    kill_and_wait(cluster, "kubelet", || of_node(WORKER, "kubelet"))
}

pub(crate) fn kube_apiserver_returns(cluster: &Cluster) -> anyhow::Result<()> {
    of_control_plane(cluster, "kube-apiserver")
}

pub(crate) fn discoveryd_returns(cluster: &Cluster) -> anyhow::Result<()> {
    kill_and_wait(cluster, "discoveryd", || discovery_server(cluster))
}

/// The processes of the cluster's agent: the one that serves, and its guard.
fn agent(serves: bool) -> anyhow::Result<Vec<Process>> {
    let of_cluster = |process: &Process| {
        let arguments: Vec<_> = process.command.split(' ').collect();
        arguments.windows(2).any(|pair| pair == ["cluster", "agent"])
            && arguments.windows(2).any(|pair| pair == ["--name", NAME])
            && arguments.contains(&"--guard") != serves
            // A monitor is its node's, not the agent's.
            && !arguments.contains(&"--monitor")
    };
    Ok(processes()?.into_iter().filter(of_cluster).collect())
}

fn server() -> anyhow::Result<Vec<Process>> {
    agent(true)
}

fn guard() -> anyhow::Result<Vec<Process>> {
    agent(false)
}

/// Every image of the bundle can be pulled where the nodes pull it.
fn images_are_served(cluster: &Cluster) -> anyhow::Result<()> {
    let (port, images) = (cluster.registry_port()?, cluster.images());
    ensure!(!images.is_empty(), "the bundle is empty");
    for image in images {
        let (host, path) = image.split_once('/').context("an image without a registry")?;
        let (repository, tag) = path.rsplit_once(':').context("an image without a tag")?;
        let path = format!("/v2/{repository}/manifests/{tag}?ns={host}");
        let answer = http_get(SocketAddr::from((GATEWAY.parse::<Ipv4Addr>()?, port)), &path)?;
        ensure!(answer.starts_with("HTTP/1.1 200 "), "{image} is not served: {answer}");
    }
    Ok(())
}

/// The next agent has the port that nodes know, starts one discovery server, and powers nodes on again.
pub(crate) fn the_cluster_agent_returns(cluster: &Cluster) -> anyhow::Result<()> {
    images_are_served(cluster)?;
    let before = cluster.registry_port()?;
    kill_and_wait(cluster, "the cluster agent", server)?;
    let after = cluster.registry_port()?;
    ensure!(after == before, "the registry was on port {before} and is on port {after}");
    images_are_served(cluster)?;
    let discovery = discovery_servers()?;
    ensure!(discovery.len() == 1, "the discovery servers are {discovery:?}");
    kill_and_wait(cluster, "machined", || init(WORKER))
}

pub(crate) fn the_guard_of_the_cluster_agent_returns(cluster: &Cluster) -> anyhow::Result<()> {
    kill_and_wait(cluster, "the guard", guard)?;
    kill_and_wait(cluster, "the cluster agent", server)?;
    images_are_served(cluster)
}

/// The one case without recovery on the host is reported with advice for the operator.
pub(crate) fn a_cluster_agent_without_a_guard_is_started_by_the_operator(cluster: &Cluster) -> anyhow::Result<()> {
    let both = [server()?, guard()?].concat();
    let pids: Vec<_> = both.iter().map(|process| process.pid.to_string()).collect();
    ensure!(pids.len() == 2, "agent and guard are {both:?}");
    // Stopped first, so that neither sees the other's end.
    for signal in ["-STOP", "-KILL"] {
        let arguments: Vec<_> = [signal].into_iter().chain(pids.iter().map(String::as_str)).collect();
        run(Path::new("kill"), &arguments)?.ok().context("killing agent and guard")?;
    }
    eventually("agent and guard are gone", RETURN, || {
        ensure!(server()?.is_empty() && guard()?.is_empty(), "they run");
        Ok(())
    })?;
    let shown = cluster.talosctl(&["cluster", "show", "--name", NAME])?;
    let advice = format!("`talosctl cluster agent --detach --name {NAME}` starts it");
    ensure!(shown.succeeded && shown.stderr.contains(&advice), "{shown:?}");
    cluster.talosctl(&["cluster", "agent", "--detach", "--name", NAME])?.ok()?;
    images_are_served(cluster)?;
    let shown = cluster.talosctl(&["cluster", "show", "--name", NAME])?;
    ensure!(shown.succeeded && !shown.stderr.contains("agent"), "{shown:?}");
    converges(cluster)
}

/// The init of a node is `/sbin/init` there, and its container ends with it: to the node it is a power cut.
fn init(node: Node) -> anyhow::Result<Vec<Process>> {
    of_node(node, "init")
}

pub(crate) fn a_worker_whose_machined_is_killed_starts_again(cluster: &Cluster) -> anyhow::Result<()> {
    kill_and_wait(cluster, "machined", || init(WORKER))
}

pub(crate) fn a_control_plane_whose_machined_is_killed_starts_again(cluster: &Cluster) -> anyhow::Result<()> {
    kill_and_wait(cluster, "machined", || init(CONTROL_PLANE))
}

/// The agent starts a node again that ends to reboot, and leaves one alone that powered itself off, until the operator asks.
pub(crate) fn a_worker_reboots_and_stays_off_as_it_was_asked(cluster: &Cluster) -> anyhow::Result<()> {
    // SIGRTMIN+5 as the host's tools count.
    let before = send("-39", &init(WORKER)?, "machined")?;
    eventually("the worker reboots", RETURN, || {
        let now = init(WORKER)?;
        ensure!(now.len() == 1 && now.iter().all(|process| process.pid != before), "its inits are {now:?}");
        Ok(())
    })?;
    converges(cluster)?;
    send("-TERM", &init(WORKER)?, "machined")?;
    eventually("the worker is off", RETURN, || {
        let now = init(WORKER)?;
        ensure!(now.is_empty(), "its inits are {now:?}");
        Ok(())
    })?;
    // The agent looks twice a second.
    std::thread::park_timeout(Duration::from_secs(5));
    ensure!(init(WORKER)?.is_empty(), "the agent started a node that powered itself off");
    let shown = cluster.talosctl(&["cluster", "show", "--name", NAME])?;
    let advice = format!("`talosctl cluster power-on --name {NAME} {}` starts it", WORKER.name);
    ensure!(shown.stderr.contains(&advice), "{shown:?}");
    cluster.talosctl(&["cluster", "power-on", "--name", NAME, WORKER.name])?.ok()?;
    converges(cluster)
}

/// The node waits for an administrator of its cluster, with its identity kept, and is a member again with the configuration
/// it is given. Other clients are refused, since the node has state.
pub(crate) fn a_damaged_configuration_leads_to_maintenance_mode(cluster: &Cluster) -> anyhow::Result<()> {
    let path = cluster.configuration(WORKER);
    let good = cluster.file("worker.yaml");
    std::fs::copy(&path, &good).context("keeping the configuration")?;
    let identity = node_identity(cluster)?;
    std::fs::write(&path, "machine: [broken").context("damaging the configuration")?;
    kill(&init(WORKER)?, "machined")?;
    let insecure = ["--insecure", "--nodes", WORKER.address, "--endpoints", WORKER.address];
    let maintenance = || {
        let status =
            cluster.talosctl(&[&["get", "machinestatus", "--output", "yaml"], &insecure[..]].concat())?.ok()?;
        ensure!(status.contains("stage: maintenance"), "{status}");
        Ok(())
    };
    eventually("the node is in maintenance mode", RETURN, maintenance)?;
    let nobody = cluster.file("no-talosconfig");
    let file = good.to_string_lossy();
    let apply = [&["apply-config", "--file", &file], &insecure[..]].concat();
    let said = cluster.talosctl_as(&nobody, &apply)?.refused()?;
    ensure!(said.contains("CertificateRequired"), "refused otherwise: {said}");
    let folder = cluster.file("reader-of-a-damaged-node");
    std::fs::create_dir_all(&folder).context("making a folder")?;
    let reader = Identity::make(cluster, &folder, Authority::Own, "os:reader", "1")?;
    let said = cluster.talosctl_as(&reader.talosconfig, &apply)?.refused()?;
    ensure!(said.contains("os:admin"), "refused otherwise: {said}");
    let [before] = init(WORKER)?.try_into().map_err(|found| anyhow::anyhow!("the inits are {found:?}"))?;
    let log = cluster.state().join(NAME).join("logs").join(format!("{}.log", WORKER.name));
    let log = std::fs::read_to_string(log).context("reading the node's log")?;
    ensure!(log.contains("config.yaml"), "the log does not name the damaged file");

    cluster.talosctl(&apply)?.ok()?;
    converges(cluster)?;
    ensure!(std::fs::read(&path)? == std::fs::read(&good)?, "the persisted configuration is not the applied one");
    ensure!(node_identity(cluster)? == identity, "the node has another identity");
    let [after] = init(WORKER)?.try_into().map_err(|found| anyhow::anyhow!("the inits are {found:?}"))?;
    ensure!(before.pid == after.pid, "the node started again by itself: it loops");
    Ok(())
}

fn node_identity(cluster: &Cluster) -> anyhow::Result<serde_json::Value> {
    let identities = cluster.resources(WORKER, "identities")?;
    let [identity] = identities.as_slice() else { bail!("{} identities", identities.len()) };
    identity.pointer("/spec/nodeId").cloned().context("an identity without nodeId")
}

pub(crate) fn pods_run_after_all_that(cluster: &Cluster) -> anyhow::Result<()> {
    pods::pods_reach_services_of_the_other_node(cluster)
}
