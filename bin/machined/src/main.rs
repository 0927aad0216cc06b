//! PID 1 of a node. Reads the environment, runs the machine, and ends the way that the machine's lifecycle decided.
//!
//! It never ends by itself: a machine that cannot run, also for a panic, is a failure that ends in a reboot.

mod api;
mod boot;
mod components;
mod exit;
mod logging;
mod machine;
mod maintenance;
mod paths;
mod plans;
mod storage;
mod wiring;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;

use resources::machine::Ownership;
use resources::runtime::MountStatus;
use sequencer::{Outcome, REBOOT_AFTER_FAILURE};
use stdx::error_chain;
use supervisor::LogStore;
use tracing_subscriber::EnvFilter;

use crate::logging::KernelLog;

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,kube_client=off"));
    let logs = LogStore::default();
    let kernel_log = KernelLog::default();
    let installed = tracing::subscriber::set_global_default(logging::subscriber(filter, &logs, &kernel_log));
    if let Err(error) = installed {
        tracing::error!(error = error_chain(&error), "log lines go to another subscriber");
    }
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        tracing::error!("a TLS provider was installed before");
    }
    let mut state = None;
    let outcome = catch_unwind(AssertUnwindSafe(|| run(logs, &kernel_log, &mut state)))
        .unwrap_or_else(|panic| Err(anyhow::anyhow!("panicked: {}", stdx::tasks::panic_message(&*panic))));
    let outcome = outcome.unwrap_or_else(|error| {
        tracing::error!(error = error_chain(&*error), "machine cannot run; rebooting in {REBOOT_AFTER_FAILURE:?}");
        #[expect(clippy::disallowed_methods, reason = "there is no runtime any more")]
        std::thread::sleep(REBOOT_AFTER_FAILURE);
        Outcome::Reboot
    });
    exit::leave(outcome, state.map(|state| state.join(paths::EXIT_STATUS)).as_deref())
}

/// Runs the machine; `state` is where its host mounted the volume STATE, if it did.
fn run(logs: LogStore, kernel_log: &KernelLog, state: &mut Option<PathBuf>) -> anyhow::Result<Outcome> {
    let platform = platform::detect(environment())?;
    if platform.capabilities().kernel == Ownership::Machine {
        kernel_log.enable();
    }
    let mounts = platform.host_mounts();
    *state = mounts.into_iter().find(|mount| mount.volume == MountStatus::STATE).map(|mount| mount.target);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let outcome = runtime.block_on(machine::run(platform, logs));
    // Threads blocked on a disk or an absent host do not block the end of the machine.
    runtime.shutdown_background();
    outcome
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads the environment of PID 1")]
fn environment() -> platform::Environment {
    let variable = |name| std::env::var(name).ok();
    platform::Environment { platform: variable("PLATFORM"), user_data: variable("USERDATA"), sku: variable("TALOSSKU") }
}
