//! PID 1 of a node. Reads the environment, starts the machine, and ends only when the machine does.

mod api;
mod boot;
mod lock;
mod machine;
mod maintenance;
mod wiring;

use std::io;
use std::process::ExitCode;

use stdx::error_chain;
use supervisor::{LogStore, logs};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,kube_client=off"));
    let logs = LogStore::default();
    let own = logs.sink("machined");
    let writer = move || Twice(own.clone());
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(writer).init();
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        tracing::error!("a TLS provider was installed before");
    }
    let result = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(machine::run(environment(), logs)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = error_chain(&*error), "the machine cannot run");
            ExitCode::FAILURE
        }
    }
}

/// The log of machined: on standard output, and beside the logs of the services, where operators read it.
struct Twice(logs::Sink);

impl io::Write for Twice {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        (self.0)(line);
        // A machine whose output nobody takes runs on.
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
