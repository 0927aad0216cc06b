//! PID 1 of a node. Reads the environment, runs the machine, and ends the way that the machine's lifecycle decided.
//!
//! It never ends by itself: a machine that cannot run, also for a panic, is a failure that ends in a reboot.

mod api;
mod boot;
mod components;
mod exit;
mod machine;
mod maintenance;
mod paths;
mod plans;
mod wiring;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;

use sequencer::{Outcome, REBOOT_AFTER_FAILURE};
use stdx::error_chain;
use supervisor::{LogStore, logs};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,kube_client=off"));
    let logs = LogStore::default();
    let own = logs.sink("machined");
    let writer = move || Tee(own.clone());
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(writer).init();
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        tracing::error!("a TLS provider was installed before");
    }
    let outcome = catch_unwind(AssertUnwindSafe(|| run(logs)))
        .unwrap_or_else(|panic| Err(anyhow::anyhow!("panicked: {}", stdx::tasks::panic_message(&*panic))));
    let outcome = outcome.unwrap_or_else(|error| {
        tracing::error!(error = error_chain(&*error), "machine cannot run; rebooting in {REBOOT_AFTER_FAILURE:?}");
        #[expect(clippy::disallowed_methods, reason = "there is no runtime any more")]
        std::thread::sleep(REBOOT_AFTER_FAILURE);
        Outcome::Reboot
    });
    exit::leave(outcome, Path::new(paths::EXIT_STATUS))
}

fn run(logs: LogStore) -> anyhow::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let outcome = runtime.block_on(machine::run(environment(), logs));
    // Threads blocked on a disk or an absent host do not block the end of the machine.
    runtime.shutdown_background();
    outcome
}

/// The log of machined: on standard output, and beside the logs of the services, where operators read it.
struct Tee(logs::Sink);

impl io::Write for Tee {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        (self.0)(line);
        // A closed standard output must not stop the machine.
        io::stdout().write_all(line).ok();
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush()
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads the environment of PID 1")]
fn environment() -> platform::Environment {
    let variable = |name| std::env::var(name).ok();
    platform::Environment { platform: variable("PLATFORM"), user_data: variable("USERDATA"), sku: variable("TALOSSKU") }
}
