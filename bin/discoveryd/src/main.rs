//! `discoveryd`: the discovery service as a program. Arguments, logging, signals and the exit code; the service itself
//! is in `discovery`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Parser;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Lets the nodes of clusters find each other.
#[derive(Debug, Parser)]
#[command(name = "discoveryd", version)]
struct Arguments {
    /// Address and port to listen on.
    #[arg(long, default_value = "127.0.0.1:3000")]
    listen: SocketAddr,
    /// File with the server certificate and its chain, PEM; without it, plain gRPC is served
    #[arg(long, requires = "tls_key")]
    tls_certificate: Option<PathBuf>,
    /// File with the private key of the certificate, PEM
    #[arg(long, requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
    /// Log filter, in the syntax of tracing-subscriber.
    #[arg(long, default_value = "info", env = "DISCOVERYD_LOG")]
    log: String,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let filter = tracing_subscriber::EnvFilter::try_new(&arguments.log).context("reading --log")?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
    runtime.block_on(run(arguments))
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let mut requests = sys::signals::Requests::listen().context("listening for signals")?;
    let listener =
        TcpListener::bind(arguments.listen).await.with_context(|| format!("listening on {}", arguments.listen))?;
    tracing::info!(address = %listener.local_addr()?, "discovery service is listening");
    let tls = tls(&arguments)?;
    let serving = discovery::serve(listener, tls, discovery::Options::default(), stop.clone());
    tokio::pin!(serving);
    // The request is cancel-safe, and `serving` is polled again below.
    tokio::select! {
        served = &mut serving => return served.context("discovery service failed"),
        _ = requests.next() => {}
    }
    tracing::info!("stopping");
    stop.cancel();
    serving.await.context("discovery service failed")
}

fn tls(arguments: &Arguments) -> anyhow::Result<Option<rustls::ServerConfig>> {
    let (Some(certificate), Some(key)) = (&arguments.tls_certificate, &arguments.tls_key) else { return Ok(None) };
    let read = |path: &Path| std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()));
    let identity =
        transport::Identity::from_pem(&read(certificate)?, &read(key)?).context("reading the certificate")?;
    Ok(Some(transport::server_config(identity, &transport::ClientAuth::None)?))
}
