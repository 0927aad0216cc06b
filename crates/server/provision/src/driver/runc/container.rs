//! The OCI runtime configuration of a node, as a pure function of the node's needs and the host's capabilities.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::host::{Cgroups, Host};
use crate::spec::Limits;

/// The folders that outlive a node's processes: inside the node, and their names on the host.
pub(super) const PERSISTENT: [(&str, &str); 6] = [
    ("/var", "var"),
    ("/system/state", "system-state"),
    ("/etc/cni", "etc-cni"),
    ("/etc/kubernetes", "etc-kubernetes"),
    ("/usr/libexec/kubernetes", "usr-libexec-kubernetes"),
    ("/opt", "opt"),
];

/// Folders that the image must have, because something is mounted there. `/system/state` lies on a tmpfs.
pub(super) const MOUNT_POINTS: [&str; 11] =
    ["dev", "etc/cni", "etc/kubernetes", "opt", "proc", "run", "sys", "system", "tmp", "usr/libexec/kubernetes", "var"];

/// Files of the host's kernel that are hidden from nodes: memory, keys, firmware, power, and the keys of the magic SysRq. It holds
/// against mistakes of programs, not against a node that means harm: it has all capabilities.
///
/// `/proc/sys`, `/sys` and the rest of `/proc` stay as they are: kubelet and containerd read and set them.
const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/sysrq-trigger",
    "/proc/timer_list",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Read-only for nodes: interrupts, buses and file systems of the host.
const READ_ONLY: [&str; 3] = ["/proc/bus", "/proc/fs", "/proc/irq"];

/// Inputs of a node's container.
#[derive(Debug)]
pub(super) struct NodeContainer<'a> {
    pub(super) hostname: &'a str,
    pub(super) root: &'a Path,
    /// The folder with the node's persistent folders.
    pub(super) data: &'a Path,
    pub(super) namespace: PathBuf,
    pub(super) cgroup: String,
    pub(super) environment: Vec<String>,
    pub(super) limits: Limits,
    pub(super) host: &'a Host,
}

/// Renders `config.json`.
pub(super) fn render(node: &NodeContainer<'_>) -> Value {
    let capabilities = &node.host.capabilities;
    json!({
        "ociVersion": "1.0.2",
        "hostname": node.hostname,
        "root": { "path": node.root, "readonly": true },
        "process": {
            "terminal": false,
            "user": { "uid": 0, "gid": 0 },
            "args": ["/sbin/init"],
            "cwd": "/",
            "env": node.environment,
            "noNewPrivileges": false,
            "capabilities": {
                "bounding": capabilities,
                "effective": capabilities,
                "permitted": capabilities,
            },
            "rlimits": [
                { "type": "RLIMIT_NOFILE", "soft": node.host.open_files, "hard": node.host.open_files },
            ],
        },
        "mounts": mounts(node.data),
        "linux": {
            "namespaces": [
                { "type": "mount" },
                { "type": "pid" },
                { "type": "ipc" },
                { "type": "uts" },
                { "type": "cgroup" },
                { "type": "network", "path": node.namespace },
            ],
            // Nothing from the host and nothing to it; init makes `/` shared within the node, which runc cannot.
            "rootfsPropagation": "rprivate",
            "maskedPaths": MASKED,
            "readonlyPaths": READ_ONLY,
            "cgroupsPath": node.cgroup,
            "devices": [
                { "path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11, "fileMode": 0o644, "uid": 0, "gid": 0 },
            ],
            "resources": resources(node.limits, node.host.cgroups),
        },
    })
}

fn mounts(data: &Path) -> Vec<Value> {
    let kernel = |target: &str, kind: &str, options: &[&str]| json!({ "destination": target, "type": kind, "source": kind, "options": options });
    let mut mounts = vec![
        kernel("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        kernel("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        kernel("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
        kernel("/dev/shm", "tmpfs", &["nosuid", "nodev", "mode=1777"]),
        kernel("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        kernel("/sys", "sysfs", &["nosuid", "noexec", "nodev", "rw"]),
        kernel("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "rw"]),
        kernel("/run", "tmpfs", &["nosuid", "nodev", "mode=755", "rshared"]),
        kernel("/system", "tmpfs", &["nosuid", "nodev", "mode=755", "rshared"]),
        kernel("/tmp", "tmpfs", &["nosuid", "nodev", "mode=1777", "rshared"]),
    ];
    // First private, to leave the host's group of peers, then a group of the node's own: kubelet shares its volumes.
    mounts.extend(PERSISTENT.iter().map(|(target, name)| {
        json!({
            "destination": target,
            "type": "bind",
            "source": data.join(name),
            "options": ["bind", "rw", "rprivate", "rshared"],
        })
    }));
    mounts
}

fn resources(limits: Limits, cgroups: Cgroups) -> Value {
    const PERIOD: u64 = 100_000;
    let mut resources = json!({ "devices": [{ "allow": true, "access": "rwm" }] });
    if let Some(milli) = limits.milli_cpus {
        resources["cpu"] = json!({ "period": PERIOD, "quota": milli * PERIOD / 1000 });
    }
    if let Some(bytes) = limits.memory {
        resources["memory"] = json!({ "limit": bytes });
        if cgroups == Cgroups::V2 {
            resources["memory"]["swap"] = json!(bytes);
        }
    }
    resources
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(host: &Host) -> Value {
        render(&NodeContainer {
            hostname: "one-controlplane-1",
            root: Path::new("/clusters/one/root"),
            data: Path::new("/clusters/one/nodes/one-controlplane-1"),
            namespace: PathBuf::from("/clusters/one/netns/one-controlplane-1"),
            cgroup: "/talos-one/one-controlplane-1".to_owned(),
            environment: vec!["PLATFORM=container".to_owned()],
            limits: Limits { milli_cpus: Some(1500), memory: Some(2 << 30) },
            host,
        })
    }

    #[test]
    fn a_node_is_rendered_as_the_golden_file_says() {
        let host = Host { capabilities: vec!["CAP_CHOWN", "CAP_NET_ADMIN"], cgroups: Cgroups::V1, open_files: 20000 };
        let got = serde_json::to_string_pretty(&node(&host)).unwrap() + "\n";
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/config.json");
        #[expect(clippy::disallowed_methods, reason = "golden files are renewed by a variable")]
        if std::env::var("UPDATE_GOLDEN").is_ok() {
            std::fs::write(&golden, &got).unwrap();
        }
        assert_eq!(got, std::fs::read_to_string(golden).unwrap());
    }

    #[test]
    fn a_capability_that_the_host_lacks_is_not_asked_for() {
        let host = Host { capabilities: vec!["CAP_KILL"], cgroups: Cgroups::V2, open_files: 1 };
        assert_eq!(node(&host)["process"]["capabilities"]["bounding"], json!(["CAP_KILL"]));
        assert_eq!(node(&host)["process"].get("oomScoreAdj"), None);
    }

    #[test]
    fn every_persistent_folder_has_a_place_in_the_image() {
        for (target, _) in PERSISTENT {
            let inside = target.trim_start_matches('/');
            assert!(MOUNT_POINTS.contains(&inside) || inside == "system/state", "{target}");
        }
    }
}
