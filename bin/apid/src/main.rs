//! `apid` as a program: where things are on a node, logging and the exit code; the rest is in the library.

use std::path::PathBuf;

use anyhow::Context;

fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_ansi(false).without_time().with_max_level(tracing::Level::INFO).init();
    let options = apid::Options {
        listen: transport::program::wildcard_address(apid::PORT),
        port: apid::PORT,
        machine_socket: PathBuf::from("/system/run/machined/machine.sock"),
        state_socket: PathBuf::from("/system/run/apid/runtime.sock"),
    };
    transport::program::run(2, |stop| apid::run(options, stop)).context("apid failed")
}
