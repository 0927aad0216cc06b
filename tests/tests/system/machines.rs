//! A cluster of virtual machines, from the disc to pods that reach each other: what `docs/metal.md` does by hand.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use provision::machines::EMULATED;
use tests::support::{eventually, run};

use crate::cluster::{Cluster, Kubernetes, Wanted};
use crate::pods::services_are_reached;

const NAME: &str = "sys-machines";
const CIDR: &str = "10.9.0.0/24";
const NODES: [(&str, &str); 2] =
    [("on-control-plane", "sys-machines-controlplane-1"), ("on-worker", "sys-machines-worker-1")];
const ADDRESSES: &str = "10.9.0.2,10.9.0.3";
const WORKER: &str = "10.9.0.3";
/// One emulated processor that starts all controllers keeps the lease of their manager waiting for longer than the 10 s after which
/// it would start anew.
const PATIENT: &str = r#"{"cluster": {
  "controllerManager": {"extraArgs": {"leader-elect-lease-duration": "90s", "leader-elect-renew-deadline": "60s"}},
  "scheduler": {"extraArgs": {"leader-elect-lease-duration": "90s", "leader-elect-renew-deadline": "60s"}}}}"#;
/// Emulated machines take eight minutes where nothing else runs.
const PATIENCE: Duration = Duration::from_secs(25 * 60);

/// Both boot from the disc, wait in maintenance mode, get their configurations there, install themselves from an image that they
/// pull, and boot from their disks.
pub(crate) fn virtual_machines_become_a_cluster(cluster: &Cluster) -> anyhow::Result<()> {
    let disc = disc(cluster)?;
    let installer = cluster.boot().join("installer").display().to_string();
    // One processor each: more of them are slower where they are emulated.
    let flags = [
        ["--provisioner", "qemu"],
        ["--iso-path", &disc],
        ["--installer", &installer],
        ["--cpus", "1"],
        ["--cpus-workers", "1"],
        ["--config-patch-control-plane", PATIENT],
    ];
    let switches = ["--with-apply-config", "--with-uefi=false", "--disk-preallocate=false"];
    let flags = [flags.as_flattened(), &switches].concat();
    cluster.with_another(&Wanted { patience: PATIENCE, ..Wanted::new(NAME, CIDR, &flags) }, |kubernetes| {
        let talosconfig = cluster.file(&format!("{NAME}-talosconfig"));
        let disks = cluster.talosctl_as(&talosconfig, &["get", "systemdisk", "--nodes", ADDRESSES])?.ok()?;
        ensure!(disks.matches(" /dev/vda ").count() == NODES.len(), "{disks}");
        services_are_reached(kubernetes, NODES)?;
        a_worker_leaves_and_comes_back(cluster, &talosconfig, kubernetes)
    })
}

/// It is drained, wipes its volumes, waits in maintenance mode, and joins its cluster again with the same configuration.
fn a_worker_leaves_and_comes_back(
    cluster: &Cluster,
    talosconfig: &Path,
    kubernetes: &Kubernetes<'_>,
) -> anyhow::Result<()> {
    let (address, (_, node)) = (WORKER, NODES[1]);
    let configuration = cluster.file("worker.yaml");
    let read = cluster.talosctl_as(talosconfig, &["read", "/system/state/config.yaml", "--nodes", address])?.ok()?;
    std::fs::write(&configuration, read)?;
    let labels = ["--system-labels-to-wipe", "STATE,EPHEMERAL"];
    let reset = ["reset", "--nodes", address, "--graceful", "--reboot", "--debug", "--timeout", "9m"];
    let answer = cluster.talosctl_as(talosconfig, &[reset.as_slice(), &labels].concat())?;
    ensure!(answer.succeeded, "the reset: {}", answer.stderr);
    ensure!(answer.stderr.contains("cordonAndDrainNode"), "no drain was told:\n{}", answer.stderr);
    let configuration = configuration.display().to_string();
    eventually("a worker in maintenance mode", PATIENCE, || {
        let apply = ["apply-config", "--insecure", "--nodes", address, "--file", &configuration];
        cluster.talosctl_as(talosconfig, &apply)?.ok().map(drop)
    })?;
    eventually("a worker that is Ready and takes pods again", PATIENCE, || {
        let text = kubernetes.ask(&["get", "node", node, "--output", "json"])?.ok()?;
        let value: serde_json::Value = serde_json::from_str(&text)?;
        let conditions = value["status"]["conditions"].as_array().context("a Node without conditions")?;
        let is_ready = conditions.iter().any(|one| one["type"] == "Ready" && one["status"] == "True");
        let is_cordoned = value["spec"]["unschedulable"] == true;
        let identity = cluster.talosctl_as(talosconfig, &["get", "machinestatus", "--nodes", address])?.ok()?;
        ensure!(is_ready && !is_cordoned && identity.contains("running"), "it is not: {text}");
        Ok(())
    })
}

/// A disc whose kernel has the arguments that `create` gives emulated machines.
fn disc(cluster: &Cluster) -> anyhow::Result<String> {
    let folder = cluster.file("disc");
    std::fs::create_dir_all(&folder)?;
    let [assets, programs, output] =
        [cluster.boot(), cluster.programs(), folder.as_path()].map(|path| path.display().to_string());
    let arguments = ["iso", "--assets", &assets, "--programs", &programs, "--output", &output];
    let extra = EMULATED.map(|argument| ["--extra-kernel-arg", argument]);
    run(&cluster.programs().join("imager"), &[&arguments[..], extra.as_flattened()].concat())?.ok()?;
    Ok(folder.join("metal-amd64.iso").display().to_string())
}
