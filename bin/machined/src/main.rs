//! PID 1 of a node. Reads the environment, starts the machine, and ends only when the machine does.

mod api;
mod boot;
mod lock;
mod machine;
mod maintenance;
mod wiring;

use std::process::ExitCode;

use stdx::error_chain;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,kube_client=off"));
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(std::io::stdout).init();
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        tracing::error!("a TLS provider was installed before");
    }
    let result = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(machine::run(environment())));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = error_chain(&*error), "the machine cannot run");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads the environment of PID 1")]
fn environment() -> machine::Environment {
    let variable = |name| std::env::var(name).ok();
    machine::Environment { platform: variable("PLATFORM"), user_data: variable("USERDATA"), sku: variable("TALOSSKU") }
}
