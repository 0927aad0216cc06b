//! The `machine` part.

use std::collections::HashSet;

use super::{Check, Mode, network};
use crate::scalar::MachineType;
use crate::v1alpha1::{Config, EncryptionKey, Machine};

pub(super) fn check(check: &mut Check<'_>, config: &Config, mode: Mode) {
    let Some(machine) = &config.machine else {
        check.error("machine", "the machine part is missing");
        return;
    };
    identity(check, machine);
    install(check, machine, mode);
    network::check(check, machine);
    files(check, machine);
    names(check, machine);
    encryption(check, machine);
    features(check, machine);
    labels(check, machine);
}

fn identity(check: &mut Check<'_>, machine: &Machine) {
    let Some(kind) = machine.r#type else {
        check.error_with_hint("machine.type", "the type of the machine is missing", "controlplane or worker");
        return;
    };
    if kind == MachineType::Init {
        check.warn("machine.type", "init is an old type: use controlplane and bootstrap through the API");
    }
    if machine.token.is_empty() {
        check.error("machine.token", "the token is missing: the machine could not get its certificates");
    }
    let has = |text: fn(&pki::PemPair) -> &str| machine.ca.as_ref().is_some_and(|ca| !text(ca).is_empty());
    if !has(|ca| &ca.crt) {
        check.error("machine.ca.crt", "the certificate authority of the machine API is missing");
    } else if kind.is_control_plane() && !has(|ca| &ca.key) {
        check.error("machine.ca.key", "a control plane needs the key of the machine API's certificate authority");
    } else if !kind.is_control_plane() && has(|ca| &ca.key) {
        check.error_with_hint(
            "machine.ca.key",
            "a worker must not have the key of the machine API's certificate authority",
            "leave only crt",
        );
    } else if let Some(ca) = &machine.ca
        && kind.is_control_plane()
        && let Err(error) = pki::Authority::from_pair(ca)
    {
        check.error("machine.ca", error.to_string());
    }
    for (index, ca) in machine.accepted_cas.iter().enumerate() {
        if let Err(error) = pki::Certificate::from_pem(&ca.crt) {
            check.error(&format!("machine.acceptedCAs[{index}].crt"), error.to_string());
        }
    }
}

fn install(check: &mut Check<'_>, machine: &Machine, mode: Mode) {
    let Some(install) = &machine.install else {
        if mode == Mode::Metal {
            check.error("machine.install", "instructions for the installation are needed on metal");
        }
        return;
    };
    if mode == Mode::Metal && install.disk.is_empty() && install.disk_selector.is_none() {
        check.error("machine.install.disk", "a disk to install to, or a diskSelector, is needed on metal");
    }
    if !install.extensions.is_empty() {
        check.warn("machine.install.extensions", "extensions listed here are deprecated: build them into the image");
    }
    for (index, disk) in machine.disks.iter().enumerate() {
        for (p, partition) in disk.partitions.iter().enumerate() {
            if !partition.mountpoint.starts_with("/var/") {
                let path = format!("machine.disks[{index}].partitions[{p}].mountpoint");
                check.error(&path, "disks can be mounted only below /var");
            }
        }
        if disk.partitions.iter().rev().skip(1).any(|p| p.size.is_none_or(|size| size.0 == 0)) {
            let path = format!("machine.disks[{index}].partitions");
            check.error(&path, "only the last partition may have no size");
        }
    }
}

/// Names that become names of files: each must be a single one, so that it cannot lead elsewhere.
fn names(check: &mut Check<'_>, machine: &Machine) {
    if let Some(registries) = &machine.registries {
        let mirrors = registries.mirrors.keys().map(|host| ("mirrors", host));
        for (field, host) in mirrors.chain(registries.config.keys().map(|host| ("config", host))) {
            let is_allowed = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
            if host != "*" && (host.is_empty() || host.starts_with('.') || !host.chars().all(is_allowed)) {
                let path = format!("machine.registries.{field}");
                check.error_with_hint(
                    &path,
                    format!("{host:?} cannot be a registry host"),
                    "registry.example.org:5000",
                );
            }
        }
    }
    for (index, profile) in machine.seccomp_profiles.iter().enumerate() {
        if profile.name.is_empty() || matches!(profile.name.as_str(), "." | "..") || profile.name.contains(['/', '\0'])
        {
            let path = format!("machine.seccompProfiles[{index}].name");
            check.error_with_hint(&path, "a seccomp profile needs the name of a file", "audit.json");
        }
    }
}

fn files(check: &mut Check<'_>, machine: &Machine) {
    for (index, file) in machine.files.iter().enumerate() {
        let path = |field: &str| format!("machine.files[{index}].{field}");
        if file.path.is_empty() {
            check.error(&path("path"), "a file needs a path");
        } else if file.op == "create" && !file.path.starts_with("/var/") && !file.path.starts_with("/etc/cri/conf.d/") {
            check.warn(&path("path"), "files can be created only below /var and in /etc/cri/conf.d");
        }
        if file.op.is_empty() {
            check.warn(&path("op"), "an operation should be given: create, append or overwrite");
        }
    }
    for (index, pod) in machine.pods.iter().enumerate() {
        for field in ["apiVersion", "kind", "metadata", "spec"] {
            if !pod.contains_key(field) {
                check.error(&format!("machine.pods[{index}]"), format!("a pod needs {field}"));
            }
        }
    }
}

fn encryption(check: &mut Check<'_>, machine: &Machine) {
    let Some(disks) = &machine.system_disk_encryption else { return };
    for (name, disk) in [("state", &disks.state), ("ephemeral", &disks.ephemeral)] {
        let Some(disk) = disk else { continue };
        let base = format!("machine.systemDiskEncryption.{name}");
        if disk.provider.is_empty() {
            check.error(&format!("{base}.provider"), "the provider is missing: luks2");
        }
        if disk.keys.is_empty() {
            check.error(&format!("{base}.keys"), "encryption needs a key");
        }
        let mut slots = HashSet::new();
        for (index, key) in disk.keys.iter().enumerate() {
            let slot = key.slot.unwrap_or(0);
            if !slots.insert(slot) {
                check.error(&format!("{base}.keys[{index}].slot"), format!("slot {slot} is taken by another key"));
            }
            if kinds_of_key(key) != 1 {
                check.error(&format!("{base}.keys[{index}]"), "a key is exactly one of static, nodeID, kms, tpm");
            }
        }
    }
}

fn kinds_of_key(key: &EncryptionKey) -> usize {
    [key.r#static.is_some(), key.node_id.is_some(), key.kms.is_some(), key.tpm.is_some()].iter().filter(|k| **k).count()
}

fn features(check: &mut Check<'_>, machine: &Machine) {
    let Some(features) = &machine.features else { return };
    let access = features.kubernetes_talos_api_access.as_ref();
    let worker = machine.r#type == Some(MachineType::Worker);
    if worker && access.and_then(|a| a.enabled) == Some(true) {
        let path = "machine.features.kubernetesTalosAPIAccess";
        check.error(path, "access to the machine API from Kubernetes works only on a control plane");
    }
    let dns = features.host_dns.as_ref();
    if dns.is_some_and(|d| d.forward_kube_dns_to_host == Some(true) && d.enabled != Some(true)) {
        let path = "machine.features.hostDNS.forwardKubeDNSToHost";
        check.error(path, "forwarding to the host's DNS needs hostDNS.enabled");
    }
}

fn labels(check: &mut Check<'_>, machine: &Machine) {
    for (key, value) in &machine.node_labels {
        if !label_key(key) || !label_value(value) {
            check.error("machine.nodeLabels", format!("{key}={value} is not a Kubernetes label"));
        }
    }
    for (key, value) in &machine.node_taints {
        let (text, effect) = value.rsplit_once(':').unwrap_or(("", value));
        let known = ["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&effect);
        if !label_key(key) || !label_value(text) || !known {
            let message = format!("{key}: {value} is not a taint (value:NoSchedule, PreferNoSchedule or NoExecute)");
            check.error("machine.nodeTaints", message);
        }
    }
}

fn label_key(key: &str) -> bool {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    prefix.is_none_or(|p| !p.is_empty() && p.len() <= 253) && !name.is_empty() && label_value(name)
}

fn label_value(value: &str) -> bool {
    let edge = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
    value.len() <= 63
        && value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        && edge(value.chars().next())
        && edge(value.chars().last())
}
