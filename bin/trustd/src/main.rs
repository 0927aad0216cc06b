//! `trustd` as a program: where things are on a node, logging and the exit code; the rest is in the library.

use std::path::PathBuf;

use anyhow::Context;

fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_ansi(false).without_time().with_max_level(tracing::Level::INFO).init();
    let options = trustd::Options {
        listen: transport::program::wildcard_address(trustd::PORT),
        state_socket: PathBuf::from("/system/run/trustd/runtime.sock"),
    };
    transport::program::run(1, |stop| trustd::run(options, stop)).context("trustd failed")
}
