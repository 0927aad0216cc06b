//! `kmsd`: the key service as a program. Arguments, the key's file, logging, signals and the exit code; the service itself is in
//! `kms`.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use clap::Parser;
use stdx::Secret;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Seals keys of encrypted disks for nodes
#[derive(Debug, Parser)]
#[command(name = "kmsd", version)]
struct Arguments {
    /// Address and port to listen on
    #[arg(long, default_value = "127.0.0.1:4050")]
    listen: SocketAddr,
    /// File with the service's key, 32 bytes; a new one is made where there is none
    #[arg(long)]
    key: PathBuf,
    /// File with the server certificate and its chain, PEM; without it, plain gRPC is served
    #[arg(long, requires = "tls_key")]
    tls_certificate: Option<PathBuf>,
    /// File with the private key of the certificate, PEM
    #[arg(long, requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
    /// Log filter, in the syntax of tracing-subscriber
    #[arg(long, default_value = "info", env = "KMSD_LOG")]
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
    let key = key(&arguments.key)?;
    let stop = CancellationToken::new();
    let mut requests = sys::signals::Requests::listen().context("listening for signals")?;
    let listener =
        TcpListener::bind(arguments.listen).await.with_context(|| format!("listening on {}", arguments.listen))?;
    tracing::info!(address = %listener.local_addr()?, "key service is listening");
    let serving = kms::serve(listener, tls(&arguments)?, &key, stop.clone());
    tokio::pin!(serving);
    // The request is cancel-safe, and `serving` is polled again below.
    tokio::select! {
        served = &mut serving => return served.context("key service failed"),
        _ = requests.next() => {}
    }
    tracing::info!("stopping");
    stop.cancel();
    serving.await.context("key service failed")
}

/// The service's key; a new one where there is no file.
fn key(path: &Path) -> anyhow::Result<Secret<[u8; 32]>> {
    let shown = path.display();
    let new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    match new {
        Ok(mut file) => {
            let key = pki::token::random_key().context("making a key")?;
            file.write_all(&key).and_then(|()| file.sync_all()).with_context(|| format!("writing {shown}"))?;
            tracing::info!(path = %shown, "new key: without this file, no disk that it seals opens");
            Ok(Secret::new(key))
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            let mode = std::fs::metadata(path).with_context(|| format!("looking at {shown}"))?.permissions().mode();
            ensure!(mode & 0o077 == 0, "{shown} can be read by others: its mode has to be 0600");
            let bytes = std::fs::read(path).with_context(|| format!("reading {shown}"))?;
            let length = bytes.len();
            let key = bytes.try_into().ok().with_context(|| format!("{shown} has {length} bytes, not 32"))?;
            Ok(Secret::new(key))
        }
        Err(error) => Err(error).with_context(|| format!("making {shown}")),
    }
}

fn tls(arguments: &Arguments) -> anyhow::Result<Option<rustls::ServerConfig>> {
    let (Some(certificate), Some(key)) = (&arguments.tls_certificate, &arguments.tls_key) else { return Ok(None) };
    let read = |path: &Path| std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()));
    let identity =
        transport::Identity::from_pem(&read(certificate)?, &read(key)?).context("reading the certificate")?;
    Ok(Some(transport::server_config(identity, &transport::ClientAuth::None)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_one_that_others_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let made = key(&path).unwrap();
        assert_eq!(key(&path).unwrap(), made);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(key(&path).unwrap_err().to_string().contains("can be read by others"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, b"short").unwrap();
        assert!(key(&path).unwrap_err().to_string().contains("has 5 bytes"));
    }
}
