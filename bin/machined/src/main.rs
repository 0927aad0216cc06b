//! PID 1 of a node. Reads the environment, runs the machine, and ends the way that the machine's lifecycle decided.
//!
//! It never ends by itself: a machine that cannot run, also for a panic, is a failure that ends in a reboot.

mod actions;
mod api;
mod boot_times;
mod components;
mod exit;
mod inventory;
mod logging;
mod machine;
mod maintenance;
mod paths;
mod plans;
mod storage;
mod system_disk;
mod trial_watchdogs;
mod versions;
mod wiring;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use ::machine::cmdline::Cmdline;
use platform::Environment;
use resources::runtime::MountStatus;
use sequencer::{Outcome, REBOOT_AFTER_FAILURE};
use stdx::error_chain;
use supervisor::LogStore;
use sys::late::{KernelLateSystem, LateSystem};
use sys::root::InitSteps;
use tokio::time::Instant;
use tracing_subscriber::EnvFilter;

use crate::boot_times::Before;
use crate::logging::KernelLog;

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,kube_client=off"));
    let environment = environment();
    // Process 1 without a host that says so is the first of a machine, also where it cannot tell which one.
    let is_machine = std::process::id() == 1 && environment.platform.is_none();
    let (logs, kernel_log) = (LogStore::default(), KernelLog::default());
    let before = is_machine.then(before);
    if let Some(before) = &before {
        kernel_log.enable(before.kernel);
    }
    let installed = tracing::subscriber::set_global_default(logging::subscriber(filter, &logs, &kernel_log));
    if let Err(error) = installed {
        tracing::error!(error = error_chain(&error), "log lines go to another subscriber");
    }
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        tracing::error!("a TLS provider was installed before");
    }
    let mut state = None;
    let command_line = environment.command_line.clone();
    let outcome = catch_unwind(AssertUnwindSafe(|| run(environment, logs, before, &mut state)))
        .unwrap_or_else(|panic| Err(anyhow::anyhow!("panicked: {}", stdx::tasks::panic_message(&*panic))));
    let outcome = outcome.unwrap_or_else(|error| {
        tracing::error!(error = error_chain(&*error), "machine cannot run; rebooting in {REBOOT_AFTER_FAILURE:?}");
        #[expect(clippy::disallowed_methods, reason = "there is no runtime any more")]
        std::thread::sleep(REBOOT_AFTER_FAILURE);
        Outcome::Reboot
    });
    if is_machine {
        let system: Arc<dyn LateSystem> = Arc::new(KernelLateSystem);
        exit::end_machine(&system, outcome, command_line.last("talos.shutdown"));
        // A machine has ended; here it has not.
        return ExitCode::FAILURE;
    }
    exit::leave(outcome, state.map(|state| state.join(paths::EXIT_STATUS)).as_deref())
}

/// Runs the machine; `before` is what a machine of its own did before this program, `state` where its host mounted the volume
/// STATE, if it did.
fn run(
    environment: Environment,
    logs: LogStore,
    before: Option<Before>,
    state: &mut Option<PathBuf>,
) -> anyhow::Result<Outcome> {
    let platform = platform::detect(environment)?;
    let mounts = platform.host_mounts();
    *state = mounts.into_iter().find(|mount| mount.volume == MountStatus::STATE).map(|mount| mount.target);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let outcome = runtime.block_on(machine::run(platform, logs, before));
    // Threads blocked on a disk or an absent host do not block the end of the machine.
    runtime.shutdown_background();
    outcome
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads the environment of PID 1")]
fn environment() -> Environment {
    let variable = |name| std::env::var(name).ok();
    // Without `/proc` there is no machine to run either; the platform is unknown then.
    let command_line = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    Environment {
        platform: variable("PLATFORM"),
        user_data: variable("USERDATA"),
        sku: variable("TALOSSKU"),
        command_line: Cmdline::parse(&command_line),
    }
}

/// What was before this program, by the kernel's clock and what init tells.
#[expect(clippy::disallowed_methods, reason = "as in `environment`")]
fn before() -> Before {
    let (machined, now) = (Instant::now(), sys::host::since_boot());
    let told = std::env::var(sys::root::INIT_STARTED).ok().and_then(|text| text.parse().ok());
    let kernel = told.map_or(now, Duration::from_millis);
    let init_steps = InitSteps::parse(&std::env::var(sys::root::INIT_STEPS).unwrap_or_default());
    Before { machined, kernel, init: now.saturating_sub(kernel), init_steps }
}
