//! The `machine` part.

use std::collections::HashSet;

use machine::encryption::SLOTS;

use super::{Check, Mode, names, network};
use crate::scalar::MachineType;
use crate::v1alpha1::{Config, EncryptionKey, FilePlace, InstallDiskSelector, Machine};

pub(super) fn check(check: &mut Check<'_>, config: &Config, mode: Mode) {
    if config.persist == Some(false) {
        check.error("persist", "a machine always keeps its configuration: persist cannot be false");
    }
    let Some(machine) = &config.machine else {
        check.error("machine", "the machine part is missing");
        return;
    };
    identity(check, machine);
    install(check, machine, mode);
    disks(check, machine);
    network::check(check, machine, mode);
    files(check, machine);
    names::machine(check, machine);
    profiles(check, machine);
    encryption(check, machine);
    features(check, machine, mode);
    kernel_and_logging(check, machine);
    labels(check, machine);
}

fn identity(check: &mut Check<'_>, machine: &Machine) {
    match machine.r#type {
        None => check.remark("machine.type", "without a type the machine is a worker"),
        Some(MachineType::Init) => {
            check.remark("machine.type", "init is an old type: use controlplane and bootstrap through the API");
        }
        Some(MachineType::ControlPlane | MachineType::Worker) => {}
    }
    let control_plane = machine.r#type.is_some_and(MachineType::is_control_plane);
    if machine.token.is_empty() {
        check.remark("machine.token", "without the token workers cannot get their certificates");
    }
    let has = |text: fn(&pki::PemPair) -> &str| machine.ca.as_ref().is_some_and(|ca| !text(ca).is_empty());
    match (has(|ca| &ca.crt), has(|ca| &ca.key), control_plane) {
        (_, true, false) => check.error_with_hint(
            "machine.ca.key",
            "a worker must not have the key of the machine API's certificate authority",
            "leave only crt",
        ),
        (false, _, _) => check.remark("machine.ca", "without its certificate authority the machine API is not served"),
        (true, false, true) => {
            check
                .remark("machine.ca.key", "without the key of its certificate authority the machine API is not served");
        }
        (true, false, false) => {}
        (true, true, true) => {
            if let Some(Err(error)) = machine.ca.as_ref().map(pki::Authority::from_pair) {
                check.error("machine.ca", error.to_string());
            }
        }
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
    if install.disk_selector.as_ref().is_some_and(|selector| *selector == InstallDiskSelector::default()) {
        check.error("machine.install.diskSelector", "an empty selector fits every disk");
    }
    let mut images = HashSet::new();
    for (index, extension) in install.extensions.iter().enumerate() {
        let path = format!("machine.install.extensions[{index}].image");
        if extension.image.is_empty() {
            check.error(&path, "an extension needs its image");
        } else if !images.insert(extension.image.as_str()) {
            check.error(&path, format!("{} is listed twice", extension.image));
        }
    }
    if !install.extensions.is_empty() {
        check.warn("machine.install.extensions", "extensions listed here are deprecated: build them into the image");
    }
}

fn disks(check: &mut Check<'_>, machine: &Machine) {
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

fn profiles(check: &mut Check<'_>, machine: &Machine) {
    let mut profiles = HashSet::new();
    for (index, profile) in machine.seccomp_profiles.iter().enumerate() {
        if !profile.name.is_empty() && !profiles.insert(profile.name.as_str()) {
            let path = format!("machine.seccompProfiles[{index}].name");
            check.error(&path, format!("a second profile named {}", profile.name));
        }
    }
}

fn files(check: &mut Check<'_>, machine: &Machine) {
    for (index, file) in machine.files.iter().enumerate() {
        let path = |field: &str| format!("machine.files[{index}].{field}");
        if file.path.is_empty() {
            check.error(&path("path"), "a file needs a path");
        } else if file.place().is_none() {
            check.error(&path("path"), "this cannot be the path of a file of the machine");
        } else if matches!(file.place(), Some(FilePlace::Image(_))) && matches!(file.op.as_str(), "" | "create") {
            check.error_with_hint(
                &path("path"),
                "files can be created only below /var, in /etc/kubernetes/manifests and as containerd's customization; \
                 those of the image can be overwritten and appended to",
                FilePlace::CUSTOMIZATION,
            );
        }
        if file.op.is_empty() {
            check.remark(&path("op"), "an operation should be given: create, append or overwrite");
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
            if slot >= SLOTS {
                check.error(
                    &format!("{base}.keys[{index}].slot"),
                    format!("there is no slot {slot}: 0 to {}", SLOTS - 1),
                );
            }
            if !slots.insert(slot) {
                check.error(&format!("{base}.keys[{index}].slot"), format!("slot {slot} is taken by another key"));
            }
            if kinds_of_key(key) != 1 {
                check.error(&format!("{base}.keys[{index}]"), "a key is exactly one of static, nodeID, kms, tpm");
            }
            if key.kms.as_ref().is_some_and(|kms| kms.endpoint.is_empty()) {
                check.error(&format!("{base}.keys[{index}].kms.endpoint"), "the address of the key service is missing");
            }
            if key.r#static.as_ref().is_some_and(|key| key.passphrase.is_empty()) {
                check.error(&format!("{base}.keys[{index}].static.passphrase"), "the passphrase is missing");
            }
        }
    }
}

fn kinds_of_key(key: &EncryptionKey) -> usize {
    [key.r#static.is_some(), key.node_id.is_some(), key.kms.is_some(), key.tpm.is_some()].iter().filter(|k| **k).count()
}

fn features(check: &mut Check<'_>, machine: &Machine, mode: Mode) {
    let Some(features) = &machine.features else { return };
    let access = features.kubernetes_talos_api_access.as_ref();
    let worker = !machine.r#type.is_some_and(MachineType::is_control_plane);
    if worker && access.and_then(|a| a.enabled) == Some(true) {
        let path = "machine.features.kubernetesTalosAPIAccess";
        check.error(path, "access to the machine API from Kubernetes works only on a control plane");
    }
    let dns = features.host_dns.as_ref();
    if dns.is_some_and(|d| d.forward_kube_dns_to_host == Some(true) && d.enabled != Some(true)) {
        let path = "machine.features.hostDNS.forwardKubeDNSToHost";
        check.error(path, "forwarding to the host's DNS needs hostDNS.enabled");
    }
    if mode == Mode::Container
        && dns.is_some_and(|d| d.enabled == Some(false) || d.forward_kube_dns_to_host == Some(false))
    {
        let path = "machine.features.hostDNS";
        check.error(
            path,
            "pods cannot reach the resolver of a container's host: host DNS has to be on, and forward to it",
        );
    }
}

/// The kernel takes no more of a module's parameters.
const MAX_PARAMETERS: usize = 4096;

fn kernel_and_logging(check: &mut Check<'_>, machine: &Machine) {
    let modules = machine.kernel.iter().flat_map(|kernel| &kernel.modules);
    for (index, module) in modules.enumerate() {
        let path = |field: &str| format!("machine.kernel.modules[{index}].{field}");
        if module.name.is_empty() {
            check.error(&path("name"), "the module's name is missing");
        }
        if module.parameters.iter().map(|parameter| parameter.len() + 1).sum::<usize>() > MAX_PARAMETERS {
            check.error(&path("parameters"), format!("parameters have at most {MAX_PARAMETERS} characters together"));
        }
    }
    let destinations = machine.logging.iter().flat_map(|logging| &logging.destinations);
    for (index, destination) in destinations.enumerate() {
        if destination.endpoint.is_empty() {
            let path = format!("machine.logging.destinations[{index}].endpoint");
            check.error(&path, "the address of the receiver is missing");
        }
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
    prefix.is_none_or(is_subdomain) && !name.is_empty() && label_value(name)
}

/// Lower-case labels with dots between, as Kubernetes has them.
fn is_subdomain(text: &str) -> bool {
    let label = |label: &str| {
        let inner = label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        inner && !label.is_empty() && !label.starts_with('-') && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

fn label_value(value: &str) -> bool {
    let edge = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
    value.len() <= 63
        && value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        && edge(value.chars().next())
        && edge(value.chars().last())
}
