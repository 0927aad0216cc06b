//! The way to a discovery service: TLS with the system's certificate authorities, or plain where the configuration says
//! so.

use std::fmt::Debug;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, ServerName};
use tls::{ClientTls, Roots};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The service closes connections that ask more often than every 10 s; a tenth of the time to live of an affiliate.
const KEEP_ALIVE: Duration = Duration::from_secs(180);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The address is not `HOST:PORT`.
    #[error("reading the discovery service's address {0:?}")]
    Address(String),
    /// Its host cannot stand in a certificate.
    #[error("reading the discovery service's host")]
    Host(#[source] InvalidDnsNameError),
    /// There are no certificate authorities.
    #[error("reading certificate authorities from {path}")]
    Authorities { path: String, source: rustls::pki_types::pem::Error },
    /// TLS cannot be set up.
    #[error("setting up TLS")]
    Tls(#[from] rustls::Error),
    /// It does not answer.
    #[error("connecting to the discovery service {address}")]
    Connect { address: String, source: tonic::transport::Error },
}

/// Opens the way to a service.
#[async_trait]
pub trait Dial: Debug + Send + Sync + 'static {
    /// A channel to `address` (`HOST:PORT`), with TLS unless `insecure`.
    ///
    /// # Errors
    /// Nobody answers there, or not with a certificate of `ca_bundle`.
    async fn dial(&self, address: &str, insecure: bool, ca_bundle: &Path) -> Result<Channel, ConnectError>;
}

/// TCP.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpDial;

#[async_trait]
impl Dial for TcpDial {
    async fn dial(&self, address: &str, insecure: bool, ca_bundle: &Path) -> Result<Channel, ConnectError> {
        connect(address, insecure, ca_bundle).await
    }
}

/// Opens a channel to `address` (`HOST:PORT`).
async fn connect(address: &str, insecure: bool, ca_bundle: &Path) -> Result<Channel, ConnectError> {
    let invalid = || ConnectError::Address(address.to_owned());
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|_| invalid())?;
    let endpoint = endpoint.connect_timeout(CONNECT_TIMEOUT).http2_keep_alive_interval(KEEP_ALIVE);
    let refused = |source| ConnectError::Connect { address: address.to_owned(), source };
    if insecure {
        return endpoint.connect().await.map_err(refused);
    }
    let host = address.rsplit_once(':').ok_or_else(invalid)?.0.trim_matches(['[', ']']);
    let server = ServerName::try_from(host.to_owned()).map_err(ConnectError::Host)?;
    let connector = TlsConnector::from(Arc::new(client_config(ca_bundle)?));
    let target = address.to_owned();
    let connector = service_fn(move |_| {
        let (connector, server, target) = (connector.clone(), server.clone(), target.clone());
        async move {
            let stream = TcpStream::connect(&target).await?;
            Ok::<_, io::Error>(TokioIo::new(connector.connect(server, stream).await?))
        }
    });
    endpoint.connect_with_connector(connector).await.map_err(refused)
}

fn client_config(ca_bundle: &Path) -> Result<ClientConfig, ConnectError> {
    let failed = |source| ConnectError::Authorities { path: ca_bundle.display().to_string(), source };
    let certificates = CertificateDer::pem_file_iter(ca_bundle).map_err(failed)?;
    let certificates = certificates.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    Ok(ClientTls::trusting(Roots::usable(certificates)).with_tls12().build()?)
}
