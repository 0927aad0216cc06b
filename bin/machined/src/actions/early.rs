//! First steps of a machine: requirements on the kernel, its filesystems, control groups, files. Few of them are a
//! container's as well.

use std::path::Path;

use domain_runtime::kernel_param::KSPP_PARAMETERS;
use machine::cmdline::{self, Argument, Cmdline};
use sys::early::{EarlyError, EarlySystem, SystemMount};
use sys::kernel_param::{KernelParam, Tree};
use sys::mounts::MountFlags;

use crate::paths::{ETC, RENDERED_ETC};
use crate::plans::MachineKind;

/// A requirement of the Kernel Self Protection Project is not met.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KsppError {
    #[error(
        "the kernel was started without {}: add them to the arguments of the boot loader", missing.join(" and ")
    )]
    Arguments { missing: Vec<String> },
    #[error("kernel parameter {param} is {value}, and has to be {wanted}")]
    Parameter { param: KernelParam, value: String, wanted: &'static str },
    #[error("a requirement on the kernel cannot be checked")]
    Unknown(#[from] EarlyError),
}

/// Arguments without which this machine does not start (Talos 1.7).
const KSPP_ARGUMENTS: [(&str, &str); 2] = [("slab_nomerge", ""), ("pti", "on")];

/// Checks arguments, and sets the parameters without which it does not start either.
pub(crate) fn kspp(system: &dyn EarlySystem) -> Result<(), KsppError> {
    let line = Cmdline::parse(&system.read(Path::new("/proc/cmdline"))?);
    let is_missing = |(name, value): &(&str, &str)| line.last(name) != Some(value);
    let missing: Vec<String> = KSPP_ARGUMENTS
        .iter()
        .filter(|wanted| is_missing(wanted))
        .map(|(name, value)| if value.is_empty() { (*name).to_owned() } else { format!("{name}={value}") })
        .collect();
    if !missing.is_empty() {
        return Err(KsppError::Arguments { missing });
    }
    let weakening = weakening(&line);
    if !weakening.is_empty() {
        tracing::warn!(
            arguments = weakening.join(" "),
            "kernel arguments turn off protections that the machine expects"
        );
    }
    for (argument, reason) in ignored(&line) {
        tracing::warn!(argument, "a kernel argument has no effect: {reason}");
    }
    for (name, wanted) in KSPP_PARAMETERS {
        let param = KernelParam::new(Tree::Sysctl, name);
        let value = system.set_param(&param, wanted)?;
        if value != wanted {
            return Err(KsppError::Parameter { param, value, wanted });
        }
    }
    Ok(())
}

/// Arguments that turn off what [`KSPP_ARGUMENTS`] ask for, or other protections of the kernel: a key, and the values that do
/// so; none where any value does. They are accepted: `nopti` is for emulated processors, which take long for it.
const WEAKENING: [(&str, &[&str]); 14] = [
    ("nopti", &[]),
    ("pti", &["off"]),
    ("slab_merge", &[]),
    ("mitigations", &["off"]),
    ("nokaslr", &[]),
    ("nosmap", &[]),
    ("nosmep", &[]),
    ("nospectre_v1", &[]),
    ("nospectre_v2", &[]),
    ("spectre_v2", &["off"]),
    ("mds", &["off"]),
    ("l1tf", &["off"]),
    ("init_on_alloc", &["0"]),
    ("module.sig_enforce", &["0"]),
];

/// The arguments of a command line that turn protections off, as they are written there.
fn weakening(line: &Cmdline) -> Vec<String> {
    let is_weakening = |argument: &&Argument| {
        let known = WEAKENING.iter().find(|(key, _)| *key == argument.key);
        known.is_some_and(|(_, values)| values.is_empty() || values.contains(&argument.value.as_str()))
    };
    line.iter().filter(is_weakening).map(ToString::to_string).collect()
}

/// Arguments of Talos 1.7 that have no effect here, and why.
const WITHOUT_EFFECT: [(&str, &str); 6] = [
    ("talos.events.sink", "events are not sent to a sink"),
    ("siderolink.api", "there is no SideroLink"),
    ("em.events_url", "it belongs to platform equinixMetal, which is not supported"),
    ("talos.dashboard.disabled", "there is no dashboard"),
    ("talos.board", "there are no images for single boards"),
    ("talos.unified_cgroup_hierarchy", "control groups are those of version 2"),
];

/// Arguments of the system that have an effect; below the last one there are more.
const WITH_EFFECT: [&str; 9] = [
    cmdline::PLATFORM,
    cmdline::CONFIG,
    cmdline::WIPE,
    cmdline::ENVIRONMENT,
    cmdline::LOGGING,
    "talos.hostname",
    "talos.network.interface.ignore",
    "talos.shutdown",
    "talos.debug",
];
const OAUTH: &str = "talos.config.oauth.";

/// Arguments for this system that have no effect, each once, and why.
fn ignored(line: &Cmdline) -> Vec<(String, &'static str)> {
    let reason = |argument: &Argument| {
        let key = argument.key.as_str();
        let is_fulfilled = key == "talos.unified_cgroup_hierarchy" && argument.value == "1";
        if is_fulfilled || WITH_EFFECT.contains(&key) || key.starts_with(OAUTH) {
            return None;
        }
        let known = WITHOUT_EFFECT.iter().find(|(name, _)| *name == key).map(|(_, reason)| *reason);
        known.or_else(|| key.starts_with("talos.").then_some("this version does not know it"))
    };
    let mut ignored: Vec<(String, &str)> = Vec::new();
    for argument in line.iter() {
        if let Some(reason) = reason(argument)
            && !ignored.iter().any(|(key, _)| *key == argument.key)
        {
            ignored.push((argument.key.clone(), reason));
        }
    }
    ignored
}

const STRICT: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

const fn mount(kind: &'static str, target: &'static str, data: &'static str) -> SystemMount {
    SystemMount { kind, target, flags: STRICT, data }
}

/// Programs of the kernel that other processes pinned.
pub(crate) const BPF: SystemMount = mount("bpf", "/sys/fs/bpf", "mode=0700");
const CGROUPS: SystemMount = mount("cgroup2", "/sys/fs/cgroup", "nsdelegate,memory_recursiveprot");

/// Filesystems that every kernel of ours has. `/proc`, `/sys`, `/dev`, `/run`, `/system` and `/tmp` are mounted by init.
const PSEUDO: [SystemMount; 7] = [
    SystemMount {
        kind: "devpts",
        target: "/dev/pts",
        flags: MountFlags::NOSUID.union(MountFlags::NOEXEC),
        data: "ptmxmode=000,mode=620,gid=5",
    },
    SystemMount {
        kind: "tmpfs",
        target: "/dev/shm",
        flags: MountFlags::NOSUID.union(MountFlags::NODEV),
        data: "mode=1777",
    },
    mount("mqueue", "/dev/mqueue", ""),
    mount("securityfs", "/sys/kernel/security", ""),
    mount("tracefs", "/sys/kernel/tracing", ""),
    mount("debugfs", "/sys/kernel/debug", ""),
    mount("pstore", "/sys/fs/pstore", ""),
];
/// Directories of `/dev` that filesystems are mounted on.
const DEV_DIRECTORIES: [(&str, u32); 3] = [("/dev/pts", 0o755), ("/dev/shm", 0o755), ("/dev/mqueue", 0o755)];
/// On a machine that was started by UEFI.
const EFI: SystemMount = mount("efivarfs", "/sys/firmware/efi/efivars", "");

/// Mounts filesystems of the kernel; one that this kernel was built without is left out.
pub(crate) fn pseudo_filesystems(system: &dyn EarlySystem) -> Result<(), EarlyError> {
    for (path, mode) in DEV_DIRECTORIES {
        system.directory(Path::new(path), mode)?;
    }
    for filesystem in &PSEUDO {
        mount_if_known(system, filesystem)?;
    }
    if system.read(Path::new("/sys/firmware/efi/fw_platform_size")).is_ok() {
        // Where the firmware has no variables at run time there is no directory for them.
        if let Err(error) = mount_if_known(system, &EFI) {
            tracing::warn!(error = stdx::error_chain(&error), "variables of the firmware cannot be reached");
        }
    }
    system.share_mounts()
}

pub(crate) fn mount_if_known(system: &dyn EarlySystem, filesystem: &SystemMount) -> Result<(), EarlyError> {
    match system.mount(filesystem) {
        Err(error) if error.is_unknown_filesystem() => {
            tracing::info!(filesystem = filesystem.kind, "this kernel has no such filesystem");
            Ok(())
        }
        mounted => mounted,
    }
}

/// Where control groups are.
const CGROUP_ROOT: &str = "/sys/fs/cgroup";

pub(crate) fn cgroup_filesystem(system: &dyn EarlySystem) -> Result<(), EarlyError> {
    system.mount(&CGROUPS)
}

/// Groups of the machine, parents before children; their controllers are delegated to children (Talos 1.7). `init` is for
/// machined: only groups without processes can delegate.
const GROUPS: [(&str, bool); 12] = [
    ("init", false),
    ("system", true),
    ("system/runtime", false),
    ("system/udevd", false),
    ("system/apid", false),
    ("system/trustd", false),
    // Nothing runs in them yet; whoever measures groups of Talos 1.7 finds them empty.
    ("system/dashboard", false),
    ("system/extensions", true),
    ("podruntime", true),
    ("podruntime/runtime", false),
    ("podruntime/etcd", false),
    ("podruntime/kubelet", false),
];

/// Makes the groups, and moves this process into its own.
pub(crate) fn cgroups(system: &dyn EarlySystem) -> Result<(), EarlyError> {
    let root = Path::new(CGROUP_ROOT);
    for (name, _) in GROUPS {
        system.directory(&root.join(name), 0o755)?;
    }
    system.write(&root.join("init/cgroup.procs"), "0")?;
    let controllers = system.read(&root.join("cgroup.controllers"))?;
    let all: Vec<String> = controllers.split_whitespace().map(|name| format!("+{name}")).collect();
    let delegating = GROUPS.iter().filter(|(_, delegates)| *delegates).map(|(name, _)| root.join(name));
    for group in std::iter::once(root.to_owned()).chain(delegating) {
        system.write(&group.join("cgroup.subtree_control"), &all.join(" "))?;
    }
    Ok(())
}

/// Directories of the system that are made at each boot, with their modes; `/system` is an empty filesystem then.
const DIRECTORIES: [(&str, u32); 8] = [
    ("/system/etc", 0o755),
    ("/system/etc/cri", 0o755),
    ("/system/run", 0o755),
    ("/system/run/machined", 0o755),
    ("/system/run/apid", 0o755),
    ("/system/run/trustd", 0o755),
    ("/system/secrets", 0o755),
    ("/system/config", 0o755),
];

/// Those of a machine with disks and devices of its own.
const MACHINE_DIRECTORIES: [(&str, u32); 5] = [
    ("/system/libexec", 0o755),
    ("/system/overlays", 0o755),
    ("/system/state", 0o700),
    ("/system/udev", 0o755),
    ("/run/udev", 0o755),
];

pub(crate) fn directories(system: &dyn EarlySystem, kind: MachineKind) -> Result<(), EarlyError> {
    let machine = MACHINE_DIRECTORIES.iter().filter(|_| kind == MachineKind::Machine);
    DIRECTORIES.iter().chain(machine).try_for_each(|(path, mode)| system.directory(Path::new(path), *mode))
}

/// The limit of open files of Talos 1.7.
pub(super) const OPEN_FILES: u64 = 1_048_576;

pub(crate) fn limits(system: &dyn EarlySystem) -> Result<(), EarlyError> {
    let got = system.raise_open_files(OPEN_FILES)?;
    if got < OPEN_FILES {
        tracing::warn!(wanted = OPEN_FILES, got, "open files are limited");
    }
    Ok(())
}

/// Where the kernel takes rules for what it measures.
const IMA_POLICY: &str = "/sys/kernel/security/ima/policy";

/// What the kernel measures: all that runs, and what root reads, of the system's own image. Content of the other filesystems
/// changes all the time, or is made by the kernel itself; `linux/magic.h` has their numbers.
const IMA_RULES: [&str; 20] = [
    "dont_measure fsmagic=0x9fa0",     // proc
    "dont_measure fsmagic=0x62656572", // sysfs
    "dont_measure fsmagic=0x64626720", // debugfs
    "dont_measure fsmagic=0x74726163", // tracefs
    "dont_measure fsmagic=0x1021994",  // tmpfs
    "dont_measure fsmagic=0x1cd1",     // devpts
    "dont_measure fsmagic=0x73636673", // securityfs
    "dont_measure fsmagic=0x63677270", // cgroup2
    "dont_measure fsmagic=0x6e736673", // namespaces
    "dont_measure fsmagic=0xcafe4a11", // bpf
    "dont_measure fsmagic=0x6165676c", // pstore
    "dont_measure fsmagic=0xde5e81e4", // variables of the firmware
    "dont_measure fsmagic=0x58465342", // XFS: volumes
    "dont_measure fsmagic=0x794c7630", // overlays: containers, and directories on volumes
    "measure func=BPRM_CHECK mask=MAY_EXEC",
    "measure func=MMAP_CHECK mask=MAY_EXEC",
    "measure func=FILE_CHECK mask=^MAY_READ uid=0",
    "measure func=MODULE_CHECK",
    "measure func=FIRMWARE_CHECK",
    "measure func=POLICY_CHECK",
];

/// Tells the kernel what to measure. One that cannot, or has its rules already, says so.
pub(crate) fn ima_policy(system: &dyn EarlySystem) -> Result<(), EarlyError> {
    let rules: String = IMA_RULES.iter().map(|rule| format!("{rule}\n")).collect();
    match system.write(Path::new(IMA_POLICY), &rules) {
        Err(error) if error.is_not_found() => {
            tracing::info!("this kernel measures nothing: it has no {IMA_POLICY}");
            Ok(())
        }
        written => written,
    }
}

/// `/etc/os-release` of the running version.
pub(crate) fn os_release(system: &dyn EarlySystem) -> Result<(), EarlyError> {
    let version = stdx::version::TAG;
    let text = format!("NAME=\"Talos\"\nID=talos\nVERSION_ID={version}\nPRETTY_NAME=\"Talos ({version})\"\n");
    system.file_over(&Path::new(RENDERED_ETC).join("os-release"), &Path::new(ETC).join("os-release"), text.as_bytes())
}

#[cfg(test)]
mod tests;
