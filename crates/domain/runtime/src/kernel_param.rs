//! Kernel parameters: defaults, configured values, and the kernel's values.
//!
//! On a kernel that is the host's, as in a container, most parameters belong to the host and to everybody on it. There only those of the node's own
//! namespaces are set; the others, among them all of `/sys`, are shown as they are.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use resources::config::MachineConfig;
use resources::machine::{Ownership, PlatformCapabilities};
use resources::runtime::{KernelParamDefaultSpec, KernelParamSpec, KernelParamStatus};
use sys::kernel_param::{KernelParam, KernelParamError, Tree};

/// Recommendations of the Kernel Self Protection Project: defaults on every machine, and a machine with a kernel of its own does
/// not start without them (Talos 1.7).
pub const KSPP_PARAMETERS: [(&str, &str); 7] = [
    ("kernel.kptr_restrict", "1"),
    ("kernel.dmesg_restrict", "1"),
    ("kernel.perf_event_paranoid", "3"),
    ("kernel.yama.ptrace_scope", "1"),
    ("user.max_user_namespaces", "0"),
    ("kernel.unprivileged_bpf_disabled", "1"),
    ("net.core.bpf_jit_harden", "2"),
];

/// Other defaults of Talos 1.7 on every machine.
const DEFAULTS: [(&str, &str); 10] = [
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
];

/// Additional defaults on a kernel of the machine's own: bridged packets pass netfilter there, and a kubelet that protects the
/// kernel's defaults (`protectKernelDefaults`) does not start without a panic on oops.
const MACHINE_DEFAULTS: [(&str, &str); 3] = [
    ("net.bridge.bridge-nf-call-iptables", "1"),
    ("net.bridge.bridge-nf-call-ip6tables", "1"),
    ("kernel.panic_on_oops", "1"),
];

/// Whether a parameter is the node's own on the host's kernel: one of the network's and the inter-process communication's
/// namespaces. The kernel hides or protects shared parameters below `net`.
fn is_of_namespaces(param: &KernelParam) -> bool {
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
    let name = param.name().replace('/', ".");
    param.tree() == Tree::Sysctl
        && (OWN.contains(&name.as_str()) || name.starts_with("net.") || name.starts_with("fs.mqueue."))
}

/// `runtime.KernelParamDefaultsController`: parameters set unless configured otherwise.
#[derive(Debug, Default)]
pub struct KernelParamDefaultsController;

#[async_trait]
impl Controller for KernelParamDefaultsController {
    fn name(&self) -> &'static str {
        "runtime.KernelParamDefaultsController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![Input::weak::<PlatformCapabilities>().id(PlatformCapabilities::ID)]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<KernelParamDefaultSpec>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let Some(kernel) = kernel_owner(ctx)? else { return Ok(()) };
        let machine = MACHINE_DEFAULTS.into_iter().filter(|_| kernel == Ownership::Machine);
        for (name, value) in DEFAULTS.into_iter().chain(KSPP_PARAMETERS).chain(machine) {
            let spec = KernelParamDefaultSpec { value: value.to_owned(), ignore_errors: true };
            ctx.put(&id(Tree::Sysctl, name), spec)?;
        }
        ctx.keep_touched::<KernelParamDefaultSpec>()
    }
}

/// `runtime.KernelParamConfigController`: `machine.sysctls` and `machine.sysfs` as specs.
#[derive(Debug, Default)]
pub struct KernelParamConfigController;

#[async_trait]
impl Controller for KernelParamConfigController {
    fn name(&self) -> &'static str {
        "runtime.KernelParamConfigController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![Input::weak::<MachineConfig>().id(MachineConfig::ACTIVE_ID)]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<KernelParamSpec>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let active = ctx.get::<MachineConfig>(MachineConfig::ACTIVE_ID)?;
        if let Some(config) = MachineConfig::root_of(active.as_deref())? {
            let machine = config.machine();
            for (tree, params) in [(Tree::Sysctl, &machine.sysctls), (Tree::Sysfs, &machine.sysfs)] {
                for (id, value) in one_spelling(tree, params) {
                    ctx.put(&id, KernelParamSpec { value: value.to_owned(), ignore_errors: false })?;
                }
            }
        }
        ctx.keep_touched::<KernelParamSpec>()
    }
}

/// Parameters by their ids. One that is there in both spellings is the same parameter: the last one counts.
fn one_spelling<'a>(
    tree: Tree,
    params: impl IntoIterator<Item = (&'a String, &'a String)>,
) -> BTreeMap<String, &'a str> {
    let mut all = BTreeMap::new();
    for (name, value) in params {
        let id = id(tree, name);
        if let Some(other) = all.insert(id.clone(), value.as_str()).filter(|other| *other != value) {
            tracing::warn!(parameter = id, value, other, "kernel parameter configured twice in two spellings");
        }
    }
    all
}

fn id(tree: Tree, name: &str) -> String {
    KernelParam::new(tree, name).to_string()
}

/// `None` until it is known.
fn kernel_owner(ctx: &Ctx) -> Result<Option<Ownership>, ReconcileError> {
    Ok(ctx.get::<PlatformCapabilities>(PlatformCapabilities::ID)?.map(|capabilities| capabilities.kernel))
}

/// Kernel parameters as they can be read and written.
trait Parameters: Debug + Send + Sync {
    fn read(&self, param: &KernelParam) -> Result<String, KernelParamError>;
    fn write(&self, param: &KernelParam, value: &str) -> Result<(), KernelParamError>;
}

/// `/proc/sys` and `/sys`.
#[derive(Debug)]
struct Kernel;

impl Parameters for Kernel {
    fn read(&self, param: &KernelParam) -> Result<String, KernelParamError> {
        param.read()
    }

    fn write(&self, param: &KernelParam, value: &str) -> Result<(), KernelParamError> {
        param.write(value)
    }
}

/// `runtime.KernelParamSpecController`: sets parameters, and restores them when no longer requested.
#[derive(Debug)]
pub struct KernelParamSpecController {
    parameters: Box<dyn Parameters>,
    before: BTreeMap<KernelParam, String>,
    /// Parameters that could not be set, reported once.
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
        vec![
            Input::weak::<KernelParamSpec>(),
            Input::weak::<KernelParamDefaultSpec>(),
            Input::weak::<PlatformCapabilities>().id(PlatformCapabilities::ID),
        ]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<KernelParamStatus>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let Some(kernel) = kernel_owner(ctx)? else { return Ok(()) };
        let (mut failures, mut refused) = (Vec::new(), BTreeSet::new());
        let wanted = wanted(ctx)?;
        for (param, DesiredParam { value, ignore_errors }) in &wanted {
            let id = param.to_string();
            let set =
                if kernel == Ownership::Host && !is_of_namespaces(param) { None } else { Some(self.set(param, value)) };
            match set {
                Some(Ok((current, default))) => {
                    ctx.put(&id, KernelParamStatus { current, default, unsupported: false })?;
                }
                Some(Err(error)) if !ignore_errors && kernel == Ownership::Machine => {
                    failures.push(stdx::error_chain(&error));
                }
                not_set => {
                    if let Some(Err(error)) = not_set {
                        tracing::debug!(parameter = id, error = stdx::error_chain(&error), "kernel parameter not set");
                    }
                    let current = self.parameters.read(param).unwrap_or_default();
                    // One that has the value already lacks nothing.
                    if current != *value {
                        refused.insert(id.clone());
                    }
                    let status = KernelParamStatus { default: current.clone(), current, unsupported: true };
                    ctx.put(&id, status)?;
                }
            }
        }
        self.set_back(&wanted)?;
        let news: Vec<_> = refused.difference(&self.refused).collect();
        if !news.is_empty() {
            tracing::warn!(parameters = ?news, "{}", refusal(kernel));
        }
        self.refused = refused;
        ctx.keep_touched::<KernelParamStatus>()?;
        if failures.is_empty() { Ok(()) } else { Err(ReconcileError::msg(failures.join("; "))) }
    }
}

/// What is said of parameters that keep their values.
const fn refusal(kernel: Ownership) -> &'static str {
    match kernel {
        Ownership::Host => "kernel parameters stay as the host has them",
        Ownership::Machine => "this kernel has no such parameters, or does not take these values",
    }
}

impl KernelParamSpecController {
    fn new(parameters: Box<dyn Parameters>) -> Self {
        Self { parameters, before: BTreeMap::new(), refused: BTreeSet::new() }
    }

    /// Returns the value in force and the one from before us.
    fn set(&mut self, param: &KernelParam, value: &str) -> Result<(String, String), KernelParamError> {
        let current = self.parameters.read(param)?;
        if current != value {
            self.parameters.write(param, value)?;
        }
        let default = self.before.entry(param.clone()).or_insert(current).clone();
        Ok((self.parameters.read(param)?, default))
    }

    fn set_back(&mut self, wanted: &BTreeMap<KernelParam, DesiredParam>) -> Result<(), KernelParamError> {
        let dropped: Vec<_> = self.before.keys().filter(|param| !wanted.contains_key(param)).cloned().collect();
        for param in dropped {
            if let Some(value) = self.before.remove(&param) {
                self.parameters.write(&param, &value)?;
            }
        }
        Ok(())
    }
}

/// A desired value.
#[derive(Debug, Clone, PartialEq, Eq)]
struct DesiredParam {
    value: String,
    ignore_errors: bool,
}

/// The defaults, overridden and extended by the configuration.
fn wanted(ctx: &Ctx) -> Result<BTreeMap<KernelParam, DesiredParam>, ReconcileError> {
    let defaults = ctx.list::<KernelParamDefaultSpec>()?.into_iter().map(|spec| {
        let wanted = DesiredParam { value: spec.value.clone(), ignore_errors: spec.ignore_errors };
        (spec.id().to_owned(), wanted)
    });
    let configured = ctx.list::<KernelParamSpec>()?.into_iter().map(|spec| {
        let wanted = DesiredParam { value: spec.value.clone(), ignore_errors: spec.ignore_errors };
        (spec.id().to_owned(), wanted)
    });
    let all = defaults.chain(configured);
    Ok(all.filter_map(|(id, wanted)| Some((KernelParam::from_id(&id)?, wanted))).collect())
}

#[cfg(test)]
mod tests;
