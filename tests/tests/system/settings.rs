//! Settings of the worker's configuration, as its node carries them out.

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::cluster::{CONTROL_PLANE, Cluster, WORKER};
use tests::support::Clock;

/// The port of this host that receives the worker's logs.
const LOG_PORT: u16 = 5514;

/// The end of the node's certificates of authorities.
const AUTHORITY: &str = "# an authority of the operator\n";

/// The patch of the worker's configuration.
pub(crate) fn patch() -> String {
    let destination = format!("udp://{}:{LOG_PORT}/", crate::cluster::GATEWAY);
    serde_json::json!({ "machine": {
        "files": [
            { "path": "/var/etc/sys.conf", "op": "create", "permissions": 0o640, "content": "a = \"b\"\n" },
            { "path": "/etc/ssl/certs/ca-certificates", "op": "append", "content": AUTHORITY },
            {
                "path": "/etc/cri/conf.d/20-customization.part",
                "op": "create",
                "content": "[plugins.\"io.containerd.grpc.v1.cri\"]\n  max_container_log_line_size = 32768\n",
            },
        ],
        "seccompProfiles": [{ "name": "audit.json", "value": { "defaultAction": "SCMP_ACT_LOG" } }],
        "kubelet": { "extraMounts": [{
            "destination": "/var/lib/sys",
            "type": "bind",
            "source": "/var/lib/sys",
            "options": ["bind", "rshared", "rw"],
        }] },
        "logging": { "destinations": [
            { "endpoint": destination, "format": "json_lines", "extraTags": { "rack": "7" } },
        ] },
    } })
    .to_string()
}

/// Receives the worker's logs; opened before the worker starts, so that nothing is refused.
pub(crate) fn log_receiver() -> anyhow::Result<UdpSocket> {
    let socket = UdpSocket::bind(("0.0.0.0", LOG_PORT)).context("listening for logs")?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    Ok(socket)
}

pub(crate) fn files_profiles_and_mounts_are_on_the_worker(cluster: &Cluster) -> anyhow::Result<()> {
    let ask = |arguments: &[&str]| {
        let all: Vec<&str> = arguments.iter().copied().chain(["--nodes", WORKER.address]).collect();
        cluster.talosctl(&all)?.ok()
    };
    let read = ask(&["read", "/var/etc/sys.conf"])?;
    ensure!(read == "a = \"b\"\n", "{read:?}");
    let authorities = ask(&["read", "/etc/ssl/certs/ca-certificates.crt"])?;
    ensure!(authorities.starts_with("-----BEGIN CERTIFICATE") && authorities.ends_with(AUTHORITY), "{authorities}");
    let listed = ask(&["list", "-l", "/var/etc"])?;
    ensure!(listed.lines().any(|line| line.contains("-rw-r-----") && line.ends_with("sys.conf")), "{listed}");
    let listed = ask(&["list", "-l", "/var/lib"])?;
    ensure!(listed.lines().any(|line| line.contains("drwx------") && line.ends_with("sys")), "{listed}");
    let profile = ask(&["read", "/var/lib/kubelet/seccomp/profiles/audit.json"])?;
    ensure!(profile == r#"{"defaultAction":"SCMP_ACT_LOG"}"#, "{profile}");
    let containerd = ask(&["read", "/etc/cri/containerd.toml"])?;
    ensure!(containerd.contains("max_container_log_line_size = 32768"), "{containerd}");
    ensure!(containerd.contains("sandbox_image"), "the customization replaced the plug-in's settings: {containerd}");
    Ok(())
}

pub(crate) fn logs_of_the_worker_arrive_by_udp(cluster: &Cluster) -> anyhow::Result<()> {
    let worker: IpAddr = WORKER.address.parse()?;
    let (mut packet, mut seen) = (vec![0; 64 << 10], 0_usize);
    let clock = Clock::start();
    while clock.elapsed() < Duration::from_secs(30) {
        // A call leaves a line in the log of machined.
        cluster.talosctl(&["version", "--short", "--nodes", WORKER.address])?.ok()?;
        while let Ok((length, from)) = cluster.logs().recv_from(&mut packet) {
            ensure!(from.ip() == worker, "a packet of {from}");
            let line: Value = serde_json::from_slice(packet.get(..length).unwrap_or_default())?;
            ensure!(line["rack"] == "7" && line["talos-time"].is_string() && line["msg"].is_string(), "{line}");
            seen += 1;
            if line["talos-service"] == "machined" && line["talos-level"] == "info" {
                return Ok(());
            }
        }
    }
    anyhow::bail!("no line of machined among {seen}")
}

pub(crate) fn controllers_have_a_log_of_their_own(cluster: &Cluster) -> anyhow::Result<()> {
    let log = cluster.talosctl(&["logs", "controller-runtime", "--nodes", CONTROL_PLANE.address])?.ok()?;
    ensure!(log.contains("controller:"), "{log}");
    let log = cluster.talosctl(&["logs", "machined", "--nodes", CONTROL_PLANE.address])?.ok()?;
    ensure!(log.contains("phase") && !log.contains(":controller: "), "{log}");
    Ok(())
}
