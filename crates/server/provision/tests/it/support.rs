//! A node image whose init records its environment, and an inventory of clusters' remains on the machine.

use std::collections::BTreeSet;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use provision::agent::AgentProgram;
use provision::{
    Cluster, ClusterSpec, Destroyed, DriverSettings, Leftovers, Limits, NodeReport, NodeSpec, Plan, ProvisionError,
    State,
};
use tempfile::TempDir;

const INIT: &str = r#"#!/bin/busybox sh
b=/bin/busybox
$b hostname > /var/hostname
$b env > /var/environment
$b ip -4 addr show eth0 > /var/address
$b ip route > /var/route
$b cat /proc/self/mountinfo > /var/mountinfo
$b ls -l /dev/kmsg > /var/kmsg
$b grep Cap /proc/self/status > /var/capabilities
$b touch /etc/probe 2> /var/readonly
for f in /run /system /tmp /etc/cni /etc/kubernetes /usr/libexec/kubernetes /opt /system/state; do
  $b touch $f/probe || echo "$f" >> /var/unwritable
done
for c in /sys/fs/cgroup /sys/fs/cgroup/memory /sys/fs/cgroup/devices; do $b mkdir $c/inner && echo "$c" >> /var/cgroup; done
$b mkdir -p /var/a /var/b
$b mount -t tmpfs tmpfs /var/a
$b ping -c 1 -W 2 "$($b ip route | $b grep default | $b cut -d' ' -f3)" > /var/ping
echo "tiny init is up"
for f in /proc/kcore /proc/keys /proc/sysrq-trigger /sys/firmware; do $b head -c 1 $f > /var/seen 2>/dev/null; $b ls /sys/firmware >> /var/seen; [ -s /var/seen ] && echo $f >> /var/unmasked; done
$b echo 1 2>/dev/null > /proc/sys/vm/overcommit_memory && $b echo yes > /var/sysctl
trap '$b true; exit "$($b cat /var/exit)"' TERM
$b sleep 3600 &
: > /var/done
while true; do wait; done
"#;

/// Waits for something of the provisioner.
pub(crate) fn wait<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// The program that stays with clusters.
pub(crate) fn program() -> AgentProgram {
    let own = std::env::current_exe().unwrap();
    let folder = own.parent().and_then(|deps| deps.parent()).unwrap();
    AgentProgram { program: folder.join("examples/cluster_agent"), arguments: vec![] }
}

pub(crate) fn make(root: &Path, spec: &ClusterSpec) -> Result<Cluster, ProvisionError> {
    wait(Cluster::create(root, spec, &program()))
}

pub(crate) fn start(cluster: &mut Cluster, node: &str, user_data: Option<&[u8]>) {
    start_within(cluster, node, user_data, Limits::default());
}

pub(crate) fn start_within(cluster: &mut Cluster, node: &str, user_data: Option<&[u8]>, limits: Limits) {
    let started = wait(cluster.start_node(node, user_data, limits));
    started.unwrap_or_else(|error| panic!("{}", stdx::error_chain(&error)));
}

pub(crate) fn show(root: &Path, name: &str) -> Result<(State, Vec<NodeReport>), ProvisionError> {
    wait(Cluster::show(root, name))
}

pub(crate) fn destroy(root: &Path, name: &str) -> Result<Destroyed, ProvisionError> {
    wait(provision::destroy(root, name, Leftovers::Keep))
}

#[expect(clippy::disallowed_methods, reason = "the tests' one place for tools")]
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program} (is its package installed?): {error}"));
    let printed = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {printed}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Starts a program that stays.
#[expect(clippy::disallowed_methods, reason = "the tests' one place for tools")]
pub(crate) fn spawn(program: &Path, arguments: &[&str]) -> Child {
    Command::new(program).args(arguments).spawn().unwrap()
}

/// A place for clusters and the image that they run on.
pub(crate) struct Place {
    folder: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        assert!(rustix::process::geteuid().is_root(), "this test needs root");
        let folder = tempfile::tempdir().unwrap();
        let tree = folder.path().join("tree");
        let folders =
            "bin sbin dev proc sys run system tmp var etc/cni etc/kubernetes usr/libexec/kubernetes opt/cni/bin";
        for name in folders.split(' ') {
            std::fs::create_dir_all(tree.join(name)).unwrap();
        }
        std::fs::copy("/bin/busybox", tree.join("bin/busybox")).unwrap();
        symlink("busybox", tree.join("bin/sh")).unwrap();
        std::fs::write(tree.join("sbin/init"), INIT).unwrap();
        std::fs::set_permissions(tree.join("sbin/init"), std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::write(tree.join("opt/cni/bin/plugin"), "from the image").unwrap();
        let place = Self { folder };
        let (tree, image) = (tree.to_string_lossy().into_owned(), place.image());
        run("mksquashfs", &[&tree, &image.to_string_lossy(), "-quiet", "-no-progress", "-comp", "gzip"]);
        place
    }

    pub(crate) fn image(&self) -> PathBuf {
        self.folder.path().join("node image")
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.folder.path().join("clusters")
    }

    pub(crate) fn spec(&self, name: &str, cidr: &str) -> ClusterSpec {
        let nodes = NodeSpec { controlplanes: 1, workers: 1 };
        let plan = Plan::new(name, cidr, 1500, &nodes).unwrap();
        ClusterSpec {
            plan,
            driver: DriverSettings::Runc { image: self.image() },
            bundle: None,
            discoveryd: None,
            kmsd: None,
            reachable: vec![],
            exposed: vec![],
        }
    }

    pub(crate) fn create(&self, name: &str, cidr: &str) -> Cluster {
        make(&self.root(), &self.spec(name, cidr)).unwrap_or_else(|error| panic!("{error}: {error:?}"))
    }

    /// A file that a node's init wrote into its /var, when init has written all of them.
    pub(crate) fn written(&self, cluster: &str, node: &str, file: &str) -> String {
        let var = self.root().join(cluster).join("nodes").join(node).join("var");
        wait_for(&format!("init of {node}"), || var.join("done").exists());
        std::fs::read_to_string(var.join(file)).unwrap_or_default()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for entry in std::fs::read_dir(self.root()).into_iter().flatten().filter_map(Result::ok) {
            drop(destroy(&self.root(), &entry.file_name().to_string_lossy()));
        }
    }
}

pub(crate) fn wait_for(what: &str, done: impl Fn() -> bool) {
    for _ in 0..200 {
        if done() {
            return;
        }
        std::thread::park_timeout(Duration::from_millis(50));
    }
    panic!("waited 10 s for {what}");
}

/// Everything on the machine that names a cluster: links, mounts, tables, cgroups, processes, files.
pub(crate) fn census(root: &Path, name: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let spec = Plan::new(name, "10.0.0.0/24", 1500, &NodeSpec { controlplanes: 1, workers: 1 }).unwrap();
    let mut note = |kind: &str, what: &str| {
        found.insert(format!("{kind} {what}"));
    };
    for link in names("/sys/class/net") {
        let tag = spec.bridge.trim_start_matches("talos");
        if link.starts_with(&spec.bridge) || link.starts_with(&format!("tn{tag}")) {
            note("link", &link);
        }
    }
    let folder = root.join(name);
    let folder = folder.to_string_lossy();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    mounts.lines().filter(|line| line.contains(&*folder)).for_each(|line| note("mount", line));
    let tables = run("nft", &["list", "tables"]);
    tables.lines().filter(|line| line.ends_with(&spec.table)).for_each(|line| note("table", line));
    let cgroup = format!("talos-{name}");
    for hierarchy in names("/sys/fs/cgroup") {
        if Path::new("/sys/fs/cgroup").join(&hierarchy).join(&cgroup).exists() || hierarchy == cgroup {
            note("cgroup", &hierarchy);
        }
    }
    for process in names("/proc") {
        let groups = std::fs::read_to_string(format!("/proc/{process}/cgroup")).unwrap_or_default();
        if groups.contains(&cgroup) {
            note("process", &process);
        }
        if arguments(&process).is_some_and(|line| line.contains(&format!(" --name {name} "))) {
            note("agent", &process);
        }
    }
    if Path::new(&*folder).exists() {
        note("folder", &folder);
    }
    found
}

/// The arguments of a process, with a blank after each; none for one that is dead.
pub(crate) fn arguments(pid: impl std::fmt::Display) -> Option<String> {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok().filter(|line| !line.is_empty())?;
    Some(String::from_utf8_lossy(&line).replace('\0', " "))
}

/// The processes that have this among their arguments.
pub(crate) fn processes(argument: &str) -> Vec<String> {
    let has = |pid: &String| arguments(pid).is_some_and(|line| line.contains(argument));
    names("/proc").into_iter().filter(has).collect()
}

fn names(folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap().filter_map(Result::ok);
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Kinds of things that the census found.
pub(crate) fn kinds(census: &BTreeSet<String>) -> Vec<&str> {
    let mut kinds: Vec<_> = census.iter().filter_map(|line| line.split(' ').next()).collect();
    kinds.dedup();
    kinds
}
