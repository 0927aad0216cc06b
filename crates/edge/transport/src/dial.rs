//! Channels to other nodes over TLS 1.3, with the certificates of a slot.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

use crate::identity::{Identity, IdentityError, Roots};
use crate::slot::Slot;

/// Opening a connection, TLS included, may take this long.
pub const CONNECT: Duration = Duration::from_secs(5);
/// A peer that is silent this long is asked for a sign of life...
const KEEPALIVE: Duration = Duration::from_secs(10);
/// ...and given up when none comes in this time.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// TLS 1.3 with HTTP/2 for a client that verifies servers against `roots` and shows `identity` if it has one.
///
/// # Errors
/// The key does not fit the certificate.
pub fn client_config(identity: Option<Identity>, roots: &Roots) -> Result<ClientConfig, IdentityError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(IdentityError::Tls)?
        .with_root_certificates(roots.0.clone());
    let mut config = match identity {
        Some(own) => builder.with_client_auth_cert(own.chain, own.key).map_err(IdentityError::Tls)?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// A channel to `address`, whose certificate must be for that IP address. It connects at the first call and again
/// after a loss, with the configuration that the slot holds then.
#[must_use]
pub fn channel(address: SocketAddr, config: Slot<ClientConfig>) -> Channel {
    Endpoint::from_static("http://node")
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .connect_with_connector_lazy(tower::service_fn(move |_| {
            let connector = TlsConnector::from(config.get());
            async move {
                match tokio::time::timeout(CONNECT, connect(connector, address)).await {
                    Ok(connected) => connected.map(TokioIo::new),
                    Err(_) => Err(std::io::Error::new(
                        std::io::ErrorKind::TimedOut,
                        format!("no connection to {address} within {} s", CONNECT.as_secs()),
                    )),
                }
            }
        }))
}

async fn connect(
    connector: TlsConnector,
    address: SocketAddr,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    connector.connect(ServerName::IpAddress(address.ip().into()), stream).await
}
