//! Runs `trustd` until cancelled.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pki::{Authority, PemPair};
use stdx::SystemClock;
use stdx::tasks::{CancellationToken, TaskSet};
use tokio::sync::watch::Receiver;
use tower::Layer;
use transport::program::ListenError;
use transport::{AuditLayer, ClientAuth, Identity, IdentityError, Limits, Slot};
use wire::securityapi::security_service_server::SecurityServiceServer;

use crate::names::Reserved;
use crate::service::{Security, Trust};
use crate::watch::{self, Root, WatchedState};

/// The largest request that is read, in bytes. Callers are not known until it was: a certificate request with an RSA key
/// and every name that is accepted is below this.
const MAX_REQUEST: usize = 64 << 10;
/// Interval of reminders while waiting.
const REMIND: Duration = Duration::from_secs(30);

/// Arguments of `trustd`.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to listen.
    pub listen: SocketAddr,
    /// The socket of the state that this process may read.
    pub state_socket: PathBuf,
}

/// Why `trustd` ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It could not listen.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The certificate of the node cannot be used.
    #[error("using the certificate of trustd")]
    Certificate(#[source] IdentityError),
    /// The authority cannot sign.
    #[error("using the authority of the cluster")]
    Authority(#[source] pki::PkiError),
    /// The server failed.
    #[error("serving certificates")]
    Serve(#[source] tonic::transport::Error),
}

/// Waits for certificate and authority and serves until `stop` fires, with what they are at each moment.
///
/// # Errors
/// It cannot listen, the first certificate or authority cannot be used, or the server failed.
pub async fn run(options: Options, stop: CancellationToken) -> Result<(), RunError> {
    let tasks = TaskSet::child_of(&stop, "trustd");
    let mut seen = watch::start(&options.state_socket, &tasks);
    let Some((server, root)) = first(&mut seen, &stop).await else { return Ok(()) };
    let tls = Slot::new(config(&server).map_err(RunError::Certificate)?);
    let trust = Slot::new(trust(&root).map_err(RunError::Authority)?);
    let listener = transport::program::listen(options.listen).await?;
    tracing::info!(address = %options.listen, "serving certificates");
    let reserved = Slot::new(seen.borrow().reserved());
    let security = Security::new(trust.clone(), reserved.clone(), Arc::new(SystemClock));
    let security = SecurityServiceServer::new(security).max_decoding_message_size(MAX_REQUEST);
    let service = AuditLayer::new("trustd", transport::audit::no_caller).layer(security);
    let reload = reload_forever(seen, server, root, tls.clone(), trust, reserved);
    // Both arms end the process's work; nothing is lost with the other.
    tokio::select! {
        served = transport::serve::tls(listener, tls, Limits::ANYBODY, service, stop) => served.map_err(RunError::Serve),
        () = reload => Ok(()),
    }
}

async fn first(seen: &mut Receiver<WatchedState>, stop: &CancellationToken) -> Option<(PemPair, Root)> {
    loop {
        let now = seen.borrow_and_update().clone();
        // Nothing is signed before the names of control planes were read once.
        let complete = now.has_reserved();
        let missing = match (now.server, now.root) {
            (Some(server), Some(root)) if complete => return Some((server, root)),
            (None, _) => "the certificate of trustd",
            (Some(_), None) => "the authority of the cluster",
            (Some(_), Some(_)) => "the names of control planes",
        };
        // `changed` and `cancelled` are cancel-safe; the reminder starts anew after each change.
        tokio::select! {
            () = stop.cancelled() => return None,
            changed = seen.changed() => changed.ok()?,
            () = tokio::time::sleep(REMIND) => tracing::info!("waiting for {missing}"),
        }
    }
}

async fn reload_forever(
    mut seen: Receiver<WatchedState>,
    mut server: PemPair,
    mut root: Root,
    tls: Slot<rustls::ServerConfig>,
    slot: Slot<Trust>,
    reserved: Slot<Reserved>,
) {
    while seen.changed().await.is_ok() {
        let now = seen.borrow_and_update().clone();
        reserved.set(now.reserved());
        if let Some(next) = now.server.filter(|next| *next != server) {
            match config(&next) {
                Ok(config) => tls.set(config),
                Err(error) => keep_old("certificate", &error),
            }
            server = next;
        }
        if let Some(next) = now.root.filter(|next| *next != root) {
            match trust(&next) {
                Ok(trust) => slot.set(trust),
                Err(error) => keep_old("authority", &error),
            }
            root = next;
        }
    }
}

fn keep_old(what: &str, error: &dyn std::error::Error) {
    tracing::error!(error = %stdx::error_chain(error), "new {what} is unusable; keeping the old");
}

fn config(server: &PemPair) -> Result<rustls::ServerConfig, IdentityError> {
    transport::server_config(Identity::from_pem(&server.crt, &server.key)?, &ClientAuth::None)
}

fn trust(root: &Root) -> Result<Trust, pki::PkiError> {
    let authority = Authority::from_pair(&root.authority)?;
    Ok(Trust { authority, accepted: root.accepted.clone(), token: root.token.clone() })
}
