//! Kernel parameters: defaults, what the configuration says, and what the kernel has.
//!
//! In a container most parameters belong to the host and to everybody on it. There only those of the node's own
//! namespaces are set; the others are shown as they are.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use resources::config::MachineConfig;
use resources::runtime::{KernelParamSpec, KernelParamStatus, PlatformMetadata};
use sys::sysctl::SysctlError;

use crate::platform::CONTAINER;

/// Where parameters come from, by id prefix: `proc.sys.` is the only tree so far.
const PREFIX: &str = "proc.sys.";

/// What Talos 1.7 sets on every machine, among it what the Kernel Self Protection Project recommends.
const DEFAULTS: [(&str, &str); 17] = [
    ("net.ipv4.ip_forward", "1"),
    ("net.ipv6.conf.default.forwarding", "1"),
    ("net.ipv6.conf.default.accept_ra", "2"),
    ("net.ipv4.tcp_keepalive_time", "600"),
    ("net.ipv4.tcp_keepalive_intvl", "60"),
    ("kernel.panic", "10"),
    ("kernel.pid_max", "262144"),
    ("vm.overcommit_memory", "1"),
    ("fs.inotify.max_user_instances", "8192"),
    ("fs.aio-max-nr", "1048576"),
    ("kernel.kptr_restrict", "1"),
    ("kernel.dmesg_restrict", "1"),
    ("kernel.perf_event_paranoid", "3"),
    ("kernel.yama.ptrace_scope", "1"),
    ("user.max_user_namespaces", "0"),
    ("kernel.unprivileged_bpf_disabled", "1"),
    ("net.core.bpf_jit_harden", "2"),
];

/// What is set besides on machines that are no container: a bridge's packets pass the filter there.
const MACHINE_DEFAULTS: [(&str, &str); 2] =
    [("net.bridge.bridge-nf-call-iptables", "1"), ("net.bridge.bridge-nf-call-ip6tables", "1")];

/// Whether a parameter is the node's own in a container: one of the network's and the inter-process communication's
/// namespaces. The kernel hides or protects what is everybody's below `net`.
fn is_of_namespaces(name: &str) -> bool {
    const OWN: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    let name = name.replace('/', ".");
    OWN.contains(&name.as_str()) || name.starts_with("net.") || name.starts_with("fs.mqueue.")
}

/// `runtime.KernelParamConfigController`: the defaults and `machine.sysctls` as specs.
#[derive(Debug, Default)]
pub struct KernelParamConfigController;

#[async_trait]
impl Controller for KernelParamConfigController {
    fn name(&self) -> &'static str {
        "runtime.KernelParamConfigController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![
            Input::weak::<MachineConfig>().id(MachineConfig::ACTIVE_ID),
            Input::weak::<PlatformMetadata>().id(PlatformMetadata::ID),
        ]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<KernelParamSpec>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let Some(in_container) = in_container(ctx)? else { return Ok(()) };
        let machine = MACHINE_DEFAULTS.into_iter().filter(|_| !in_container);
        let defaults = DEFAULTS.into_iter().chain(machine);
        let mut wanted: BTreeMap<String, (String, bool)> =
            defaults.map(|(name, value)| (name.to_owned(), (value.to_owned(), true))).collect();
        let active = ctx.get::<MachineConfig>(MachineConfig::ACTIVE_ID)?;
        if let Some(config) = MachineConfig::root_of(active.as_deref())? {
            let sysctls = config.machine().sysctls.clone();
            wanted.extend(sysctls.into_iter().map(|(name, value)| (name, (value, false))));
        }
        for (name, (value, ignore_errors)) in wanted {
            ctx.put(&format!("{PREFIX}{name}"), KernelParamSpec { value, ignore_errors })?;
        }
        ctx.keep_touched::<KernelParamSpec>()
    }
}

/// `None` until it is known.
fn in_container(ctx: &Ctx) -> Result<Option<bool>, ReconcileError> {
    Ok(ctx.get::<PlatformMetadata>(PlatformMetadata::ID)?.map(|platform| platform.platform == CONTAINER))
}

/// Kernel parameters as they can be read and written.
trait Parameters: Debug + Send + Sync {
    fn read(&self, name: &str) -> Result<String, SysctlError>;
    fn write(&self, name: &str, value: &str) -> Result<(), SysctlError>;
}

/// `/proc/sys`.
#[derive(Debug)]
struct Kernel;

impl Parameters for Kernel {
    fn read(&self, name: &str) -> Result<String, SysctlError> {
        sys::sysctl::read(name)
    }

    fn write(&self, name: &str, value: &str) -> Result<(), SysctlError> {
        sys::sysctl::write(name, value)
    }
}

/// `runtime.KernelParamSpecController`: sets parameters, and sets them back when nobody asks for them any more.
#[derive(Debug)]
pub struct KernelParamSpecController {
    parameters: Box<dyn Parameters>,
    before: BTreeMap<String, String>,
    /// What could not be set, as it was said last.
    refused: BTreeSet<String>,
}

impl Default for KernelParamSpecController {
    fn default() -> Self {
        Self::new(Box::new(Kernel))
    }
}

#[async_trait]
impl Controller for KernelParamSpecController {
    fn name(&self) -> &'static str {
        "runtime.KernelParamSpecController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![Input::weak::<KernelParamSpec>(), Input::weak::<PlatformMetadata>().id(PlatformMetadata::ID)]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<KernelParamStatus>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let Some(in_container) = in_container(ctx)? else { return Ok(()) };
        let (mut failures, mut refused) = (Vec::new(), BTreeSet::new());
        let specs = ctx.list::<KernelParamSpec>()?;
        for spec in &specs {
            let name = spec.id().strip_prefix(PREFIX).unwrap_or(spec.id()).to_owned();
            let set = if in_container && !is_of_namespaces(&name) { None } else { Some(self.set(&name, &spec.value)) };
            match set {
                Some(Ok((current, default))) => {
                    ctx.put(spec.id(), KernelParamStatus { current, default, unsupported: false })?;
                }
                Some(Err(error)) if !spec.ignore_errors && !in_container => {
                    failures.push(stdx::error_chain(&error));
                }
                not_set => {
                    if let Some(Err(error)) = not_set {
                        tracing::debug!(
                            parameter = name,
                            error = stdx::error_chain(&error),
                            "kernel parameter not set"
                        );
                    }
                    let current = self.parameters.read(&name).unwrap_or_default();
                    // One that has the value already lacks nothing.
                    if current != spec.value {
                        refused.insert(name);
                    }
                    let status = KernelParamStatus { default: current.clone(), current, unsupported: true };
                    ctx.put(spec.id(), status)?;
                }
            }
        }
        self.set_back(&specs.iter().filter_map(|spec| spec.id().strip_prefix(PREFIX)).collect())?;
        if self.refused != refused {
            if !refused.is_empty() {
                tracing::warn!(parameters = ?refused, in_container, "kernel parameters stay as the host has them");
            }
            self.refused = refused;
        }
        ctx.keep_touched::<KernelParamStatus>()?;
        if failures.is_empty() { Ok(()) } else { Err(ReconcileError::msg(failures.join("; "))) }
    }
}

impl KernelParamSpecController {
    fn new(parameters: Box<dyn Parameters>) -> Self {
        Self { parameters, before: BTreeMap::new(), refused: BTreeSet::new() }
    }

    /// Returns the value in force and the one from before us.
    fn set(&mut self, name: &str, value: &str) -> Result<(String, String), SysctlError> {
        let current = self.parameters.read(name)?;
        if current != value {
            self.parameters.write(name, value)?;
        }
        let default = self.before.entry(name.to_owned()).or_insert(current).clone();
        Ok((self.parameters.read(name)?, default))
    }

    fn set_back(&mut self, wanted: &BTreeSet<&str>) -> Result<(), SysctlError> {
        let dropped: Vec<String> = self.before.keys().filter(|name| !wanted.contains(name.as_str())).cloned().collect();
        for name in dropped {
            if let Some(value) = self.before.remove(&name) {
                self.parameters.write(&name, &value)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
