//! The cluster that the checks share: created from the environment's settings, reached by its own talosctl and kubectl.

use std::ffi::{OsStr, OsString};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use crate::host::Traces;
use crate::settings;
use tests::support::{Answer, LIMIT, eventually, run, run_within, say};

pub(crate) const NAME: &str = "sys";
pub(crate) const CIDR: &str = "10.7.0.0/24";
pub(crate) const GATEWAY: &str = "10.7.0.1";
pub(crate) const CONTROL_PLANE: Node = Node { name: "sys-controlplane-1", address: "10.7.0.2" };
pub(crate) const WORKER: Node = Node { name: "sys-worker-1", address: "10.7.0.3" };

/// How much of a node's log is shown after a check failed.
const LOG_LINES: usize = 25;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) name: &'static str,
    pub(crate) address: &'static str,
}

/// A cluster to make from the same image and bundle.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) name: &'a str,
    pub(crate) cidr: &'a str,
    /// More flags of `cluster create`.
    pub(crate) flags: &'a [&'a str],
    /// How long it may take until it is ready.
    pub(crate) patience: Duration,
}

impl<'a> Wanted<'a> {
    /// A cluster that is ready within 5 minutes.
    pub(crate) const fn new(name: &'a str, cidr: &'a str, flags: &'a [&'a str]) -> Self {
        Self { name, cidr, flags, patience: Duration::from_secs(300) }
    }
}

/// The cluster; it is destroyed when this value is dropped, if not before.
#[derive(Debug)]
pub(crate) struct Cluster {
    programs: PathBuf,
    image: PathBuf,
    bundle: PathBuf,
    /// Kernel, initramfs and what else virtual machines boot from.
    boot: PathBuf,
    kubectl: PathBuf,
    folder: PathBuf,
    /// The full names of the images of the bundle.
    images: Vec<String>,
    /// Receives the logs of the worker.
    logs: UdpSocket,
}

#[expect(clippy::disallowed_methods, reason = "a test program is configured by its environment")]
pub(crate) fn variable(name: &str) -> anyhow::Result<PathBuf> {
    let value = std::env::var(name);
    value.map(PathBuf::from).with_context(|| format!("reading {name} (cargo xtask test sets it)"))
}

/// The full names of the images of a bundle.
fn images(bundle: &Path) -> anyhow::Result<Vec<String>> {
    let index = std::fs::read(bundle.join("index.json")).context("reading the bundle")?;
    let index: Value = serde_json::from_slice(&index).context("reading the bundle")?;
    let manifests = index.get("manifests").and_then(Value::as_array).cloned().unwrap_or_default();
    let name = |manifest: &Value| {
        let annotation = manifest.pointer("/annotations/org.opencontainers.image.ref.name");
        annotation.and_then(Value::as_str).map(str::to_owned).context("an image without a name")
    };
    manifests.iter().map(name).collect()
}

impl Cluster {
    /// Creates the cluster and waits until its nodes are Ready; remains of an earlier run are removed first.
    pub(crate) fn create() -> anyhow::Result<Self> {
        let bundle = variable("TEST_BUNDLE")?;
        let images = images(&bundle)?;
        let cluster = Self {
            logs: settings::log_receiver()?,
            programs: variable("TEST_PROGRAMS")?,
            image: variable("TEST_IMAGE")?,
            images,
            bundle,
            boot: variable("TEST_BOOT")?,
            kubectl: variable("TEST_KUBECTL")?,
            folder: Path::new(env!("CARGO_TARGET_TMPDIR")).join("system"),
        };
        if cluster.state().join(NAME).exists() {
            cluster.talosctl(&["cluster", "destroy", "--name", NAME])?.ok().context("removing an earlier cluster")?;
        }
        if cluster.folder.exists() {
            std::fs::remove_dir_all(&cluster.folder).context("removing the remains of an earlier run")?;
        }
        std::fs::create_dir_all(&cluster.folder).context("making the folder of the tests")?;
        let patch = settings::patch();
        let flags = ["--config-patch-worker", &patch];
        if let Err(error) = cluster.create_as(&cluster.file("talosconfig"), &Wanted::new(NAME, CIDR, &flags))?.ok() {
            cluster.show_logs(NAME);
            return Err(error);
        }
        let kubeconfig = cluster.kubeconfig();
        cluster.talosctl(&["kubeconfig".as_ref(), kubeconfig.as_os_str()])?.ok().context("fetching the kubeconfig")?;
        Ok(cluster)
    }

    /// Asks for a cluster from the same image and bundle.
    pub(crate) fn create_another(&self, name: &str, cidr: &str) -> anyhow::Result<Answer> {
        self.create_as(&self.file("talosconfig"), &Wanted::new(name, cidr, &[]))
    }

    /// As [`Self::create_another`], with more flags and a talosconfig of its own.
    pub(crate) fn create_as(&self, talosconfig: &Path, wanted: &Wanted<'_>) -> anyhow::Result<Answer> {
        let patience = format!("{}s", wanted.patience.as_secs());
        let mut arguments: Vec<OsString> =
            ["cluster", "create", "--skip-kubeconfig", "--wait-timeout", &patience].map(Into::into).into();
        arguments.extend(["--name", wanted.name, "--cidr", wanted.cidr, "--image"].map(Into::into));
        arguments.push(self.image.clone().into());
        arguments.push("--bundle".into());
        arguments.push(self.bundle.clone().into());
        arguments.extend(wanted.flags.iter().map(Into::into));
        // The command's own limit is the one that says what it waits for.
        self.talosctl_within(wanted.patience + LIMIT, talosconfig, &arguments)
    }

    /// The programs that were built.
    pub(crate) fn programs(&self) -> &Path {
        &self.programs
    }

    /// Kernel, initramfs and what else virtual machines boot from.
    pub(crate) fn boot(&self) -> &Path {
        &self.boot
    }

    /// The port of the registry that nodes take their images from, on the gateway.
    pub(crate) fn registry_port(&self) -> anyhow::Result<u16> {
        let record = std::fs::read(self.state().join(NAME).join("agent.json")).context("reading who the agent is")?;
        let record: Value = serde_json::from_slice(&record)?;
        let port = record.get("registryPort").and_then(Value::as_u64).context("an agent without a registry")?;
        Ok(u16::try_from(port)?)
    }

    /// The full names of all images of the bundle.
    pub(crate) fn images(&self) -> &[String] {
        &self.images
    }

    /// Receives the logs of the worker.
    pub(crate) const fn logs(&self) -> &UdpSocket {
        &self.logs
    }

    /// The version of Kubernetes of the bundle, without `v`.
    pub(crate) fn kubernetes_version(&self) -> anyhow::Result<&str> {
        let mut tags = self.images.iter().filter_map(|image| image.strip_prefix("registry.k8s.io/kube-apiserver:v"));
        tags.next().context("a bundle without an API server")
    }

    /// Where the state of clusters is.
    pub(crate) fn state(&self) -> PathBuf {
        self.folder.join("clusters")
    }

    /// The machine configuration that a node keeps.
    pub(crate) fn configuration(&self, node: Node) -> PathBuf {
        self.state().join(NAME).join("nodes").join(node.name).join("system-state/config.yaml")
    }

    /// A file of this run, which goes with the cluster.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn kubeconfig(&self) -> PathBuf {
        self.file("kubeconfig")
    }

    /// Runs talosctl as the cluster's administrator.
    pub(crate) fn talosctl<S: AsRef<OsStr>>(&self, arguments: &[S]) -> anyhow::Result<Answer> {
        self.talosctl_as(&self.file("talosconfig"), arguments)
    }

    /// Runs talosctl with another talosconfig.
    pub(crate) fn talosctl_as<S: AsRef<OsStr>>(&self, talosconfig: &Path, arguments: &[S]) -> anyhow::Result<Answer> {
        self.talosctl_within(LIMIT, talosconfig, arguments)
    }

    fn talosctl_within<S: AsRef<OsStr>>(
        &self,
        limit: Duration,
        talosconfig: &Path,
        arguments: &[S],
    ) -> anyhow::Result<Answer> {
        let mut all: Vec<&OsStr> = arguments.iter().map(AsRef::as_ref).collect();
        all.extend(["--talosconfig".as_ref(), talosconfig.as_os_str()]);
        let state = self.state();
        if all.first().is_some_and(|command| *command == "cluster") {
            all.extend(["--state".as_ref(), state.as_os_str()]);
        }
        run_within(limit, &self.programs.join("talosctl"), &all)
    }

    /// The cluster's own Kubernetes.
    pub(crate) fn kubernetes(&self) -> Kubernetes<'_> {
        Kubernetes { cluster: self, kubeconfig: self.kubeconfig() }
    }

    /// Runs kubectl as the cluster's administrator.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<Answer> {
        self.kubernetes().ask(arguments)
    }

    /// Does something with another cluster from the same image and bundle, which is destroyed afterwards.
    pub(crate) fn with_another(
        &self,
        wanted: &Wanted<'_>,
        check: impl FnOnce(&Kubernetes) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let name = wanted.name;
        let talosconfig = self.file(&format!("{name}-talosconfig"));
        let kubernetes = Kubernetes { cluster: self, kubeconfig: self.file(&format!("{name}-kubeconfig")) };
        let created = self.create_as(&talosconfig, wanted);
        let checked = created.and_then(|answer| {
            answer.ok()?;
            let fetch = ["kubeconfig".as_ref(), kubernetes.kubeconfig.as_os_str()];
            self.talosctl_as(&talosconfig, &fetch)?.ok().context("fetching the kubeconfig")?;
            check(&kubernetes)
        });
        if checked.is_err() {
            self.show_logs(name);
        }
        let destroyed = self.talosctl(&["cluster", "destroy", "--name", name])?.ok();
        checked?;
        destroyed.map(drop)
    }

    /// All resources of a type, as a node shows them.
    pub(crate) fn resources(&self, node: Node, kind: &str) -> anyhow::Result<Vec<Value>> {
        let text = self.talosctl(&["get", kind, "--nodes", node.address, "--output", "json"])?.ok()?;
        let values = serde_json::Deserializer::from_str(&text).into_iter().collect::<Result<Vec<Value>, _>>();
        values.with_context(|| format!("reading {kind} of {}", node.name))
    }

    /// Shows the end of the log of each node of a cluster.
    pub(crate) fn show_logs(&self, cluster: &str) {
        let entries = std::fs::read_dir(self.state().join(cluster).join("logs"));
        let mut logs: Vec<_> = entries.into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect();
        logs.sort();
        for path in logs {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !name.starts_with(cluster) {
                continue;
            }
            let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap_or_default()).into_owned();
            // The checks' own calls would be most of it.
            let lines: Vec<_> = text.lines().filter(|line| !line.contains("transport::audit: call")).collect();
            say(&format!("--- the last lines of {name}"));
            for line in lines.iter().skip(lines.len().saturating_sub(LOG_LINES)) {
                say(&format!("    {line}"));
            }
        }
    }

    /// Destroys the cluster; nothing of it may be left on the host.
    pub(crate) fn destroy(&self) -> anyhow::Result<()> {
        let traces = Traces::of(&self.state(), NAME)?;
        let before = traces.found()?;
        for kind in ["cgroup ", "folder ", "link ", "mount ", "nftables ", "process "] {
            ensure!(before.iter().any(|trace| trace.starts_with(kind)), "no {kind}is found of a cluster that runs");
        }
        self.talosctl(&["cluster", "destroy", "--name", NAME])?.ok()?;
        // The kernel clears away network namespaces, and with them links, in its own time.
        eventually("nothing is left", Duration::from_secs(10), || {
            let left = traces.found()?;
            if !left.is_empty() {
                bail!("left behind: {}", left.join(", "));
            }
            Ok(())
        })?;
        let talosconfig = std::fs::read_to_string(self.file("talosconfig")).context("reading the talosconfig")?;
        ensure!(!talosconfig.contains(&format!("{NAME}:")), "the context of the cluster stays: {talosconfig}");
        let show = self.talosctl(&["cluster", "show", "--name", NAME])?.refused()?;
        ensure!(show.contains("no cluster"), "showing a removed cluster: {show}");
        std::fs::remove_dir_all(&self.folder).context("removing the folder of the tests")
    }
}

/// The Kubernetes of a cluster, reached as its administrator.
#[derive(Debug)]
pub(crate) struct Kubernetes<'a> {
    cluster: &'a Cluster,
    kubeconfig: PathBuf,
}

impl Kubernetes<'_> {
    /// Runs kubectl.
    pub(crate) fn ask(&self, arguments: &[&str]) -> anyhow::Result<Answer> {
        let mut all: Vec<&OsStr> = ["--request-timeout=20s", "--kubeconfig"].map(AsRef::as_ref).into();
        all.push(self.kubeconfig.as_os_str());
        all.extend(arguments.iter().map(<&str as AsRef<OsStr>>::as_ref));
        run(&self.cluster.kubectl, &all)
    }

    /// Applies a manifest, which is kept under that name while the tests run.
    pub(crate) fn apply(&self, name: &str, manifest: &str) -> anyhow::Result<String> {
        let path = self.cluster.file(name);
        std::fs::write(&path, manifest).context("writing a manifest")?;
        self.ask(&["apply", "--filename", &path.to_string_lossy()])?.ok()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.state().join(NAME).exists() {
            match self.talosctl(&["cluster", "destroy", "--name", NAME]).and_then(Answer::ok) {
                Ok(_) => say("the cluster was destroyed"),
                Err(error) => say(&format!("destroying the cluster: {error:#}")),
            }
        }
    }
}
