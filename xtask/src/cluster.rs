//! `up` and `down`: a cluster on this machine, from nothing to `kubectl get nodes`, and back.

use std::net::{TcpStream, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::bundle::{self, Bundle, Kubernetes};
use crate::host;
use crate::paths::Paths;
use crate::programs;
use crate::step::{Step, Steps, command, say};

/// Debian packages for running nodes on this machine.
pub(crate) const RUN_PACKAGES: &[&str] = &["runc", "iproute2", "nftables", "mount", "util-linux", "coreutils"];

/// Debian packages for running nodes as virtual machines, beside [`RUN_PACKAGES`]: the emulator with the firmware of its
/// network cards, UEFI firmware, and programs for TPMs, disk images and boots from the network.
pub(crate) const MACHINE_PACKAGES: &[&str] = &["qemu-system-x86", "ipxe-qemu", "ovmf", "qemu-utils", "swtpm", "ipxe"];

/// Registries of the images of a cluster without a bundle.
const REGISTRIES: &[&str] = &["registry.k8s.io", "ghcr.io", "gcr.io"];

/// Connection timeout of registries.
const REGISTRY_TIMEOUT: Duration = Duration::from_secs(3);

/// Arguments of `up` and `down`.
#[derive(Debug, clap::Args)]
pub(crate) struct ClusterArguments {
    /// Name of the cluster
    #[arg(long, default_value = "talos-default")]
    name: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct UpArguments {
    #[command(flatten)]
    cluster: ClusterArguments,
    /// Network of the nodes
    #[arg(long, default_value = "10.5.0.0/24")]
    cidr: String,
    /// Number of workers
    #[arg(long, default_value_t = 1)]
    workers: u32,
    /// What nodes are
    #[arg(long, value_enum, default_value_t)]
    provisioner: Provisioner,
    /// Memory of each virtual machine in MiB
    #[arg(long, default_value_t = 2048)]
    memory: u32,
    /// Use the offline bundle even if registries answer
    #[arg(long)]
    offline: bool,
    /// Version of Kubernetes in the offline bundle
    #[arg(long, value_enum, default_value_t)]
    kubernetes: Kubernetes,
}

/// What nodes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
enum Provisioner {
    /// runc containers
    #[default]
    Docker,
    /// Virtual machines
    Qemu,
}

/// Where Kubernetes comes from.
enum Source {
    Registries,
    Bundle(Bundle),
}

/// Files of one cluster, below the checkout.
struct Files {
    talosctl: PathBuf,
    talosconfig: PathBuf,
    kubeconfig: PathBuf,
}

impl Files {
    fn new(paths: &Paths, programs: &Path, name: &str) -> Self {
        let directory = paths.out.join("clusters").join(name);
        Self {
            talosctl: programs.join("talosctl"),
            talosconfig: directory.join("talosconfig"),
            kubeconfig: directory.join("kubeconfig"),
        }
    }
}

/// Everything from installing packages to a cluster whose nodes are ready.
pub(crate) fn up(steps: &mut Steps, paths: &Paths, arguments: &UpArguments) -> anyhow::Result<()> {
    if !host::is_root() {
        bail!("nodes are containers or virtual machines, which only root can make: run this as root");
    }
    steps.run("packages for nodes", |step| host::install(step, RUN_PACKAGES))?;
    let machines = arguments.provisioner == Provisioner::Qemu;
    if machines {
        steps.run("packages for virtual machines", |step| host::install(step, MACHINE_PACKAGES))?;
    }
    let programs = programs::build(steps, paths)?;
    programs::image(steps, paths, &programs)?;
    let source = source(steps, paths, &programs, arguments)?;
    let kubectl = match &source {
        Source::Bundle(bundle) => bundle.kubectl.clone(),
        Source::Registries => {
            steps.run("kubectl", |step| host::install(step, &["kubernetes-client"]))?;
            PathBuf::from("kubectl")
        }
    };
    let name = &arguments.cluster.name;
    let files = Files::new(paths, &programs, name);
    let directory = files.talosconfig.parent().context("the talosconfig needs a directory")?;
    std::fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
    let existed = state(name)?.exists();
    if existed {
        steps.run("cluster", |step| {
            step.note("exists already");
            Ok(())
        })?;
    } else {
        steps.run("cluster", |step| create(step, paths, arguments, &files, &source))?;
    }
    let nodes = ask(steps, &files, &kubectl).with_context(|| {
        let hint = if existed { ": it existed already, `cargo xtask down` removes it" } else { "" };
        format!("the cluster {name} does not answer{hint}")
    })?;
    summary(&nodes, &files, &kubectl);
    Ok(())
}

/// Fetches the kubeconfig and asks Kubernetes for its nodes.
fn ask(steps: &mut Steps, files: &Files, kubectl: &Path) -> anyhow::Result<Vec<Node>> {
    steps.run("kubeconfig", |step| {
        step.call(
            command(&files.talosctl)
                .arg("--talosconfig")
                .arg(&files.talosconfig)
                .args(["kubeconfig", "--force", "--merge=false"])
                .arg(&files.kubeconfig),
        )?;
        Ok(())
    })?;
    steps.run("nodes", |step| ready_nodes(step, kubectl, &files.kubeconfig))
}

/// Removes the cluster and all its parts on this machine. Build results stay.
pub(crate) fn down(steps: &mut Steps, paths: &Paths, arguments: &ClusterArguments) -> anyhow::Result<()> {
    let name = &arguments.name;
    let programs = programs::directory(paths)?;
    let files = Files::new(paths, &programs, name);
    if state(name)?.exists() {
        if !files.talosctl.exists() {
            programs::build(steps, paths)?;
        }
        steps
            .run("destroy", |step| step.show(command(&files.talosctl).args(["cluster", "destroy", "--name", name])))?;
    } else {
        say(&format!("there is no cluster {name}"));
    }
    steps.run("files", |_| {
        if let Some(directory) = files.talosconfig.parent() {
            remove_all(directory)?;
        }
        // Ours as long as they are empty.
        if let Some(clusters) = state(name)?.parent() {
            let _ = std::fs::remove_dir(clusters);
            let _ = clusters.parent().map(std::fs::remove_dir);
        }
        Ok(())
    })
}

/// talosctl's directory for the state of the cluster.
#[expect(clippy::disallowed_methods, reason = "talosctl's directory is below the operator's home")]
pub(crate) fn state(name: &str) -> anyhow::Result<PathBuf> {
    let home = std::env::var("HOME").context("HOME is not set")?;
    Ok(PathBuf::from(home).join(".talos/clusters").join(name))
}

fn source(steps: &mut Steps, paths: &Paths, programs: &Path, arguments: &UpArguments) -> anyhow::Result<Source> {
    if !arguments.offline {
        let silent = steps.run("registries", |step| {
            let silent: Vec<&str> = REGISTRIES.iter().copied().filter(|host| !answers(host)).collect();
            if silent.is_empty() {
                step.note("all answer");
            } else {
                step.note(format!("no answer from {}, using the offline bundle", silent.join(", ")));
            }
            Ok(!silent.is_empty())
        })?;
        if !silent {
            return Ok(Source::Registries);
        }
    }
    Ok(Source::Bundle(bundle::build(steps, paths, programs, arguments.kubernetes)?))
}

/// Whether `host` accepts a connection on port 443 in time.
fn answers(host: &str) -> bool {
    let (sender, receiver) = mpsc::channel();
    let address = (host.to_owned(), 443);
    // Resolving has no deadline; the thread ends with the process.
    std::thread::spawn(move || {
        let connected = address.to_socket_addrs().is_ok_and(|mut addresses| {
            addresses.any(|address| TcpStream::connect_timeout(&address, REGISTRY_TIMEOUT).is_ok())
        });
        let _ = sender.send(connected);
    });
    receiver.recv_timeout(REGISTRY_TIMEOUT).unwrap_or(false)
}

fn create(
    step: &mut Step,
    paths: &Paths,
    arguments: &UpArguments,
    files: &Files,
    source: &Source,
) -> anyhow::Result<()> {
    let mut create = command(&files.talosctl);
    create
        .args(["cluster", "create", "--name", &arguments.cluster.name, "--cidr", &arguments.cidr])
        .args(["--workers", &arguments.workers.to_string()])
        .arg("--talosconfig")
        .arg(&files.talosconfig)
        .arg("--skip-kubeconfig");
    match arguments.provisioner {
        Provisioner::Docker => {
            create.arg("--image").arg(paths.image());
        }
        Provisioner::Qemu => {
            let memory = arguments.memory.to_string();
            create.args(["--provisioner", "qemu", "--memory", &memory, "--memory-workers", &memory]);
            create.arg("--vmlinuz-path").arg(paths.out.join("vmlinuz"));
            create.arg("--initrd-path").arg(paths.out.join("initramfs.xz"));
            create.arg("--installer").arg(paths.installer());
        }
    }
    if let Source::Bundle(bundle) = source {
        create.arg("--bundle").arg(&bundle.directory).args(["--kubernetes-version", bundle.version]);
    }
    step.show(&mut create)
}

/// A row of the table.
#[derive(Debug, PartialEq, Eq)]
struct Node {
    name: String,
    role: &'static str,
    ip: String,
    ready: bool,
    version: String,
}

fn ready_nodes(step: &mut Step, kubectl: &Path, kubeconfig: &Path) -> anyhow::Result<Vec<Node>> {
    let mut ask = command(kubectl);
    ask.arg("--kubeconfig").arg(kubeconfig).args(["get", "nodes", "--output", "json", "--request-timeout", "20s"]);
    let output = step.read(&mut ask)?;
    let nodes: Value = serde_json::from_str(&output).context("reading the answer of kubectl")?;
    let nodes = rows(&nodes);
    let ready = nodes.iter().filter(|node| node.ready).count();
    step.note(format!("{ready} of {} ready", nodes.len()));
    Ok(nodes)
}

fn rows(nodes: &Value) -> Vec<Node> {
    let find = |list: &Value, key: &str, wanted: &str, value: &str| {
        let entry = list.as_array().into_iter().flatten().find(|entry| entry[key] == wanted);
        entry.and_then(|entry| entry[value].as_str()).unwrap_or_default().to_owned()
    };
    let items = nodes["items"].as_array().into_iter().flatten();
    items
        .map(|node| {
            let labels = &node["metadata"]["labels"];
            let control = ["node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"];
            let status = &node["status"];
            Node {
                name: node["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
                role: if control.iter().any(|label| !labels[label].is_null()) { "controlplane" } else { "worker" },
                ip: find(&status["addresses"], "type", "InternalIP", "address"),
                ready: find(&status["conditions"], "type", "Ready", "status") == "True",
                version: status["nodeInfo"]["kubeletVersion"].as_str().unwrap_or_default().to_owned(),
            }
        })
        .collect()
}

fn summary(nodes: &[Node], files: &Files, kubectl: &Path) {
    let width = nodes.iter().map(|node| node.name.len()).max().unwrap_or(0).max(4);
    say("");
    say(&format!("{:width$}  {:<12}  {:<15}  {:<5}  KUBERNETES", "NAME", "ROLE", "IP", "READY"));
    for Node { name, role, ip, ready, version } in nodes {
        say(&format!("{name:width$}  {role:<12}  {ip:<15}  {:<5}  {version}", if *ready { "yes" } else { "no" }));
    }
    let (talosctl, talosconfig) = (files.talosctl.display(), files.talosconfig.display());
    let (kubectl, kubeconfig) = (kubectl.display(), files.kubeconfig.display());
    say("");
    say(&format!("talosctl     {talosctl}"));
    say(&format!("talosconfig  {talosconfig}"));
    say(&format!("kubeconfig   {kubeconfig}"));
    say("");
    say("Try:");
    say(&format!("  {talosctl} --talosconfig {talosconfig} services"));
    say(&format!("  {talosctl} --talosconfig {talosconfig} get members"));
    say(&format!("  {kubectl} --kubeconfig {kubeconfig} get pods --all-namespaces"));
}

fn remove_all(directory: &Path) -> anyhow::Result<()> {
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", directory.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_is_read_with_its_role_address_and_readiness() {
        let node = |name: &str, labels: Value, ready: &str| {
            json!({
                "metadata": { "name": name, "labels": labels },
                "status": {
                    "addresses": [{ "type": "Hostname", "address": name }, { "type": "InternalIP", "address": "10.5.0.2" }],
                    "conditions": [{ "type": "DiskPressure", "status": "False" }, { "type": "Ready", "status": ready }],
                    "nodeInfo": { "kubeletVersion": "v1.30.14" },
                },
            })
        };
        let control = json!({ "node-role.kubernetes.io/control-plane": "" });
        let nodes = rows(&json!({ "items": [node("one", control, "True"), node("two", json!({}), "Unknown")] }));
        let wanted = |name: &str, role, ready| Node {
            name: name.to_owned(),
            role,
            ip: "10.5.0.2".to_owned(),
            ready,
            version: "v1.30.14".to_owned(),
        };
        assert_eq!(nodes, [wanted("one", "controlplane", true), wanted("two", "worker", false)]);
    }

    #[test]
    fn a_host_that_does_not_exist_does_not_answer() {
        assert!(!answers("registry.invalid"));
    }
}
