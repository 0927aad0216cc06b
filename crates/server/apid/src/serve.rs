//! Assembles the server and runs it until cancelled.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, ServerConfig};
use stdx::tasks::{CancellationToken, TaskSet};
use tokio::net::TcpListener;
use tower::Layer;
use transport::program::ListenError;
use transport::{AuditLayer, ClientAuth, Identity, IdentityError, Limits, Roots, Slot};

use crate::node::NodeState;
use crate::proxy::{Backends, Proxy, caller_of, is_privileged};
use crate::quota::CallLimits;
use crate::watch::{self, Certificates, WatchedState};

/// Interval of reminders while waiting.
const REMIND: Duration = Duration::from_secs(30);

/// Arguments of `apid`.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to listen.
    pub listen: SocketAddr,
    /// The port of `apid` on other nodes.
    pub port: u16,
    /// The socket of the machine API of this node.
    pub machine_socket: PathBuf,
    /// The socket of the state that this process may read.
    pub state_socket: PathBuf,
}

/// Why `apid` ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It could not listen.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The certificates of the node cannot be used.
    #[error("using the certificates of the node")]
    Certificates(#[source] IdentityError),
    /// The server failed.
    #[error("serving the API")]
    Serve(#[source] tonic::transport::Error),
}

/// Watches the node's state, waits for its certificates, and serves until `stop` fires. Certificates, addresses and
/// machine type that change are taken up without a restart.
///
/// # Errors
/// It cannot listen, the first certificates cannot be used, or the server failed.
pub async fn run(options: Options, stop: CancellationToken) -> Result<(), RunError> {
    let tasks = TaskSet::child_of(&stop, "apid");
    let mut seen = watch::start(&options.state_socket, &tasks);
    let Some(first) = first_certificates(&mut seen, &stop).await else { return Ok(()) };
    let (server, client) = configs(&first).map_err(RunError::Certificates)?;
    let (server, client) = (Slot::new(server), Slot::new(client));
    let node = Slot::new(seen.borrow_and_update().node.clone());
    let local = transport::unix::channel(&options.machine_socket);
    let backends = Arc::new(Backends::new(local, options.port, client.clone()));
    let proxy = Proxy::new(backends.clone(), node.clone(), CallLimits::APID);

    let listener = transport::program::listen(options.listen).await?;
    tracing::info!(address = %options.listen, "serving the API");
    let reload = reload_forever(seen, first, node, server.clone(), client, backends);
    // Both arms end the process's work; nothing is lost with the other.
    tokio::select! {
        served = serve(listener, server, proxy, stop) => served,
        () = reload => Ok(()),
    }
}

/// Serves `proxy` on `listener` until `stop` fires.
///
/// # Errors
/// The server failed.
pub async fn serve(
    listener: TcpListener,
    tls: Slot<ServerConfig>,
    proxy: Proxy,
    stop: CancellationToken,
) -> Result<(), RunError> {
    let service = AuditLayer::new("apid", caller_of).layer(proxy);
    let limits = Limits { privileged: is_privileged, ..Limits::KNOWN };
    transport::serve::tls(listener, tls, limits, service, stop).await.map_err(RunError::Serve)
}

/// Waits for the first certificates; `None` if cancelled before.
async fn first_certificates(
    seen: &mut tokio::sync::watch::Receiver<WatchedState>,
    stop: &CancellationToken,
) -> Option<Certificates> {
    loop {
        if let Some(certificates) = seen.borrow_and_update().certificates.clone() {
            return Some(certificates);
        }
        // `changed` and `cancelled` are cancel-safe; the reminder starts anew after each change.
        tokio::select! {
            () = stop.cancelled() => return None,
            changed = seen.changed() => changed.ok()?,
            () = tokio::time::sleep(REMIND) => tracing::info!("waiting for the certificates of the API"),
        }
    }
}

/// Applies changes until the watch ends.
async fn reload_forever(
    mut seen: tokio::sync::watch::Receiver<WatchedState>,
    mut current: Certificates,
    node: Slot<NodeState>,
    server: Slot<ServerConfig>,
    client: Slot<ClientConfig>,
    backends: Arc<Backends>,
) {
    while seen.changed().await.is_ok() {
        let now = seen.borrow_and_update().clone();
        node.set(now.node);
        // Certificates that go away are kept: a node that resets still answers.
        let Some(certificates) = now.certificates.filter(|certificates| *certificates != current) else { continue };
        match configs(&certificates) {
            Ok((new_server, new_client)) => {
                server.set(new_server);
                client.set(new_client);
                backends.forget();
                tracing::info!("took up new certificates");
            }
            Err(error) => {
                tracing::error!(error = %stdx::error_chain(&error), "new certificates cannot be used; keeping the old");
            }
        }
        current = certificates;
    }
}

fn configs(certificates: &Certificates) -> Result<(ServerConfig, ClientConfig), IdentityError> {
    let roots = Roots::from_pem(&certificates.accepted)?;
    let server = Identity::from_pem(&certificates.server.0, certificates.server.1.expose())?;
    // A worker has no client certificate: it forwards nothing.
    let client = match &certificates.client {
        Some((certificate, key)) => Some(Identity::from_pem(certificate, key.expose())?),
        None => None,
    };
    Ok((
        transport::server_config(server, &ClientAuth::Required(roots.clone()))?,
        transport::client_config(client, &roots)?,
    ))
}
