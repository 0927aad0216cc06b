//! `trustd` as a program: logging, signals and the exit code; the rest is in the library.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::Context;
use stdx::tasks::CancellationToken;

fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_ansi(false).without_time().with_max_level(tracing::Level::INFO).init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("starting the runtime")?;
    runtime.block_on(run())
}

async fn run() -> anyhow::Result<()> {
    let mut requests = sys::signals::Requests::listen().context("listening for signals")?;
    let stop = CancellationToken::new();
    let serving = trustd::run(options(), stop.clone());
    tokio::pin!(serving);
    // The request is cancel-safe, and `serving` is polled again below.
    tokio::select! {
        served = &mut serving => return served.context("trustd failed"),
        _ = requests.next() => tracing::info!("stopping"),
    }
    stop.cancel();
    serving.await.context("trustd failed")
}

fn options() -> trustd::Options {
    // Where the kernel has no IPv6, its wildcard cannot be bound.
    let six = SocketAddr::from((Ipv6Addr::UNSPECIFIED, trustd::PORT));
    let listen = match std::net::TcpListener::bind(SocketAddr::from((Ipv6Addr::LOCALHOST, 0))) {
        Ok(_) => six,
        Err(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, trustd::PORT)),
    };
    trustd::Options { listen, state_socket: PathBuf::from("/system/run/trustd/runtime.sock") }
}
