//! Client of key services, which seal keys of disks (`sidero.kms.KMSService`).

#[cfg(feature = "testing")]
mod fake;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use stdx::Secret;
use tls::{ClientTls, Roots};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tower::service_fn;
use wire::sidero::kms::kms_service_client::KmsServiceClient;
use wire::sidero::kms::{Request, Response};

#[cfg(feature = "testing")]
pub use fake::FakeKeyService;

/// One call, with its connection (Talos 1.7: an attempt with a key).
const CALL: Duration = Duration::from_secs(10);
/// The longest answer: a sealed key and what a service adds.
const LONGEST: usize = 64 << 10;
/// Port of an address without one.
const PORT: u16 = 4050;

/// A key service did not seal or unseal.
#[derive(Debug, thiserror::Error)]
pub enum KmsError {
    #[error("{0:?} is no address of a key service: grpc://HOST:PORT or https://HOST:PORT")]
    Address(String),
    #[error("the key service {endpoint} does not answer within {} s", CALL.as_secs())]
    Silent { endpoint: String },
    #[error("the key service {endpoint} cannot be reached")]
    Connect {
        endpoint: String,
        #[source]
        source: tonic::transport::Error,
    },
    #[error("the key service {endpoint} is not available")]
    Unavailable {
        endpoint: String,
        #[source]
        status: Status,
    },
    #[error("the key service {endpoint} refuses")]
    Refused {
        endpoint: String,
        #[source]
        status: Status,
    },
    #[error("setting up TLS to key services")]
    Tls(#[source] io::Error),
}

impl KmsError {
    /// Whether the same may succeed later.
    #[must_use]
    pub const fn is_away(&self) -> bool {
        matches!(self, Self::Silent { .. } | Self::Connect { .. } | Self::Unavailable { .. })
    }
}

/// Key services, by their addresses.
#[async_trait]
pub trait KeyService: std::fmt::Debug + Send + Sync {
    /// Seals a key for the node with this UUID.
    ///
    /// # Errors
    /// [`KmsError`].
    async fn seal(&self, endpoint: &str, node: &str, key: &Secret<Vec<u8>>) -> Result<Vec<u8>, KmsError>;

    /// The key that the node with this UUID had sealed.
    ///
    /// # Errors
    /// [`KmsError`].
    async fn unseal(&self, endpoint: &str, node: &str, sealed: &[u8]) -> Result<Secret<Vec<u8>>, KmsError>;
}

/// Key services over the network.
#[derive(Debug, Clone)]
pub struct GrpcKeyService {
    authorities: PathBuf,
}

impl GrpcKeyService {
    /// Trusts the certificate authorities of this file, PEM, in services with TLS.
    pub fn new(authorities: impl Into<PathBuf>) -> Self {
        Self { authorities: authorities.into() }
    }

    async fn call(&self, operation: Operation, endpoint: &str, node: &str, data: &[u8]) -> Result<Vec<u8>, KmsError> {
        let work = async {
            let mut client = KmsServiceClient::new(self.connect(endpoint).await?).max_decoding_message_size(LONGEST);
            let request = Request { node_uuid: node.to_owned(), data: data.to_vec().into() };
            let answer = match operation {
                Operation::Seal => client.seal(request).await,
                Operation::Unseal => client.unseal(request).await,
            };
            let endpoint = endpoint.to_owned();
            let Response { data } = answer
                .map_err(|status| match status.code() {
                    Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted => {
                        KmsError::Unavailable { endpoint, status }
                    }
                    _ => KmsError::Refused { endpoint, status },
                })?
                .into_inner();
            Ok(data.to_vec())
        };
        let silent = |_| KmsError::Silent { endpoint: endpoint.to_owned() };
        tokio::time::timeout(CALL, work).await.map_err(silent)?
    }

    async fn connect(&self, endpoint: &str) -> Result<Channel, KmsError> {
        let address = Address::parse(endpoint)?;
        let refused = |source| KmsError::Connect { endpoint: endpoint.to_owned(), source };
        let target = Endpoint::from_shared(format!("http://{}", address.authority));
        let target = target.map_err(|_| KmsError::Address(endpoint.to_owned()))?;
        if !address.tls {
            return target.connect().await.map_err(refused);
        }
        let host = address.authority.rsplit_once(':').map_or("", |(host, _)| host).trim_matches(['[', ']']);
        let server = ServerName::try_from(host.to_owned()).map_err(|_| KmsError::Address(endpoint.to_owned()))?;
        let connector = TlsConnector::from(Arc::new(self.tls().map_err(KmsError::Tls)?));
        let authority = address.authority;
        let connector = service_fn(move |_| {
            let (connector, server, authority) = (connector.clone(), server.clone(), authority.clone());
            async move {
                let stream = TcpStream::connect(&authority).await?;
                Ok::<_, io::Error>(TokioIo::new(connector.connect(server, stream).await?))
            }
        });
        target.connect_with_connector(connector).await.map_err(refused)
    }

    fn tls(&self) -> io::Result<rustls::ClientConfig> {
        let certificates = CertificateDer::pem_file_iter(&self.authorities).map_err(io::Error::other)?;
        let certificates = certificates.collect::<Result<Vec<_>, _>>().map_err(io::Error::other)?;
        ClientTls::trusting(Roots::usable(certificates)).with_tls12().build().map_err(io::Error::other)
    }
}

#[derive(Debug, Clone, Copy)]
enum Operation {
    Seal,
    Unseal,
}

#[async_trait]
impl KeyService for GrpcKeyService {
    async fn seal(&self, endpoint: &str, node: &str, key: &Secret<Vec<u8>>) -> Result<Vec<u8>, KmsError> {
        self.call(Operation::Seal, endpoint, node, key.expose()).await
    }

    async fn unseal(&self, endpoint: &str, node: &str, sealed: &[u8]) -> Result<Secret<Vec<u8>>, KmsError> {
        self.call(Operation::Unseal, endpoint, node, sealed).await.map(Secret::new)
    }
}

/// Where a service is.
#[derive(Debug, PartialEq, Eq)]
struct Address {
    tls: bool,
    /// `HOST:PORT`.
    authority: String,
}

impl Address {
    fn parse(endpoint: &str) -> Result<Self, KmsError> {
        let wrong = || KmsError::Address(endpoint.to_owned());
        let (tls, authority) = match endpoint.split_once("://") {
            None => (false, endpoint),
            Some(("grpc", authority)) => (false, authority),
            Some(("https", authority)) => (true, authority),
            Some(_) => return Err(wrong()),
        };
        let authority = authority.trim_end_matches('/');
        if authority.is_empty() || authority.contains(['/', '@', '?', '#']) || authority.contains(char::is_whitespace) {
            return Err(wrong());
        }
        let has_port = authority
            .rsplit_once(':')
            .is_some_and(|(host, port)| port.parse::<u16>().is_ok() && (!host.contains(':') || host.ends_with(']')));
        let port = if tls { 443 } else { PORT };
        let authority = if has_port { authority.to_owned() } else { format!("{authority}:{port}") };
        Ok(Self { tls, authority })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_plain_unless_it_says_otherwise() {
        let address = |text: &str| Address::parse(text).map(|address| (address.tls, address.authority)).ok();
        let plain = |authority: &str| Some((false, authority.to_owned()));
        assert_eq!(address("grpc://10.5.0.1:4050"), plain("10.5.0.1:4050"));
        assert_eq!(address("kms.example:1"), plain("kms.example:1"));
        assert_eq!(address("grpc://[fd00::1]:7"), plain("[fd00::1]:7"));
        assert_eq!(address("grpc://kms.example"), plain("kms.example:4050"));
        assert_eq!(address("https://kms.example/"), Some((true, "kms.example:443".to_owned())));
        for wrong in ["", "http://kms.example", "grpc://", "grpc://a/b", "https://user@kms.example", "grpc://a b"] {
            assert_eq!(address(wrong), None, "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_service_that_is_not_there_is_away() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("grpc://{}", listener.local_addr().unwrap());
        drop(listener);
        let error = GrpcKeyService::new("/none").unseal(&endpoint, "node", b"sealed").await.unwrap_err();
        assert!(error.is_away(), "{error}");
        let refused = GrpcKeyService::new("/none").unseal("https://localhost:1", "node", b"sealed").await.unwrap_err();
        assert!(matches!(refused, KmsError::Tls(_)), "{refused}");
    }
}
