//! Kernel parameters: defaults, what the configuration says, and what the kernel has.

use std::collections::BTreeMap;

use async_trait::async_trait;
use config::Documents;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use resources::config::MachineConfig;
use resources::runtime::{KernelParamSpec, KernelParamStatus};

/// Where parameters come from, by id prefix: `proc.sys.` is the only tree so far.
const PREFIX: &str = "proc.sys.";

/// What Talos 1.7 sets on every machine. In a container most belong to the host and are refused, which is fine.
const DEFAULTS: [(&str, &str); 9] = [
    ("net.ipv4.ip_forward", "1"),
    ("net.ipv6.conf.default.forwarding", "1"),
    ("net.ipv6.conf.default.accept_ra", "2"),
    ("net.ipv4.tcp_keepalive_time", "600"),
    ("net.ipv4.tcp_keepalive_intvl", "60"),
    ("kernel.panic", "10"),
    ("kernel.pid_max", "262144"),
    ("vm.overcommit_memory", "1"),
    ("fs.inotify.max_user_instances", "8192"),
];

/// `runtime.KernelParamConfigController`: the defaults and `machine.sysctls` as specs.
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
        let mut wanted: BTreeMap<String, (String, bool)> =
            DEFAULTS.into_iter().map(|(name, value)| (name.to_owned(), (value.to_owned(), true))).collect();
        if let Some(active) = ctx.get::<MachineConfig>(MachineConfig::ACTIVE_ID)? {
            let documents = Documents::from_yaml(active.text.as_bytes())?;
            let sysctls = documents.v1alpha1().map(|config| config.machine().sysctls.clone()).unwrap_or_default();
            wanted.extend(sysctls.into_iter().map(|(name, value)| (name, (value, false))));
        }
        for (name, (value, ignore_errors)) in wanted {
            ctx.put(&format!("{PREFIX}{name}"), KernelParamSpec { value, ignore_errors })?;
        }
        ctx.keep_touched::<KernelParamSpec>()
    }
}

/// `runtime.KernelParamSpecController`: sets parameters, and sets them back when nobody asks for them any more.
#[derive(Debug, Default)]
pub struct KernelParamSpecController {
    before: BTreeMap<String, String>,
}

#[async_trait]
impl Controller for KernelParamSpecController {
    fn name(&self) -> &'static str {
        "runtime.KernelParamSpecController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![Input::weak::<KernelParamSpec>()]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<KernelParamStatus>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let mut failures = Vec::new();
        let specs = ctx.list::<KernelParamSpec>()?;
        for spec in &specs {
            let name = spec.id().strip_prefix(PREFIX).unwrap_or(spec.id()).to_owned();
            match self.set(&name, &spec.value) {
                Ok((current, default)) => {
                    ctx.put(spec.id(), KernelParamStatus { current, default, unsupported: false })?;
                }
                Err(error) if spec.ignore_errors => {
                    tracing::debug!(parameter = name, error = stdx::error_chain(&error), "kernel parameter not set");
                    let current = sys::sysctl::read(&name).unwrap_or_default();
                    let status = KernelParamStatus { default: current.clone(), current, unsupported: true };
                    ctx.put(spec.id(), status)?;
                }
                Err(error) => failures.push(stdx::error_chain(&error)),
            }
        }
        let wanted: Vec<String> = specs.iter().filter_map(|s| s.id().strip_prefix(PREFIX).map(str::to_owned)).collect();
        let dropped: Vec<String> = self.before.keys().filter(|name| !wanted.contains(name)).cloned().collect();
        for name in dropped {
            if let Some(value) = self.before.remove(&name) {
                sys::sysctl::write(&name, &value)?;
            }
        }
        ctx.keep_touched::<KernelParamStatus>()?;
        if failures.is_empty() { Ok(()) } else { Err(ReconcileError::msg(failures.join("; "))) }
    }
}

impl KernelParamSpecController {
    /// Returns the value in force and the one from before us.
    fn set(&mut self, name: &str, value: &str) -> Result<(String, String), sys::sysctl::SysctlError> {
        let current = sys::sysctl::read(name)?;
        let default = self.before.entry(name.to_owned()).or_insert_with(|| current.clone()).clone();
        if current != value {
            sys::sysctl::write(name, value)?;
        }
        Ok((sys::sysctl::read(name)?, default))
    }
}
