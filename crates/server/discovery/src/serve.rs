//! Serves on a listener until cancelled.

use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use transport::{Limits, Slot};
use wire::sidero::discovery::server::cluster_server::ClusterServer;

use crate::service::{Options, Service};

/// The largest request: a full update with room for framing.
const MAX_REQUEST: usize = 64 << 10;
/// Grace period for open calls.
const GRACE: Duration = Duration::from_secs(3);

/// Why the server ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The transport failed.
    #[error("serving discovery")]
    Transport(#[source] tonic::transport::Error),
}

/// Serves gRPC on `listener`, over TLS where `tls` says how, until `stop` fires; open watches end then and running calls
/// are finished.
///
/// # Errors
/// The listener failed.
pub async fn serve(
    listener: TcpListener,
    tls: Option<ServerConfig>,
    options: Options,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let service = Service::new(options, stop.clone());
    let collector = service.clone();
    let server = ClusterServer::new(service).max_decoding_message_size(MAX_REQUEST);
    let serving = async {
        match tls {
            Some(config) => {
                transport::serve::tls(listener, Slot::new(config), Limits::CLUSTERS, server, stop.clone()).await
            }
            None => transport::serve::plain(listener, Limits::CLUSTERS, server, stop.clone()).await,
        }
    };
    // Every arm ends the server; the work of the others is dropped with it.
    tokio::select! {
        served = serving => served.map_err(ServeError::Transport),
        () = async { collector.collect_forever().await; tokio::time::sleep(GRACE).await } => Ok(()),
    }
}
