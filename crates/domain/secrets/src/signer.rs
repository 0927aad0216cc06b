//! Asking trustd on a control plane for a certificate.

use std::{fmt::Debug, net::IpAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use stdx::Secret;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;
use tonic::{
    Request,
    metadata::{Ascii, MetadataValue},
    transport::{Endpoint, Uri},
};
use wire::securityapi::{CertificateRequest, security_service_client::SecurityServiceClient};

/// The port of trustd.
pub const TRUSTD_PORT: u16 = 50001;
/// One endpoint may take this long to connect and answer; then the next one is asked.
const DEADLINE: Duration = Duration::from_secs(10);

/// What is to be signed, and by whom.
#[derive(Clone, Debug)]
pub struct SignRequest {
    /// Control planes, asked in turn.
    pub endpoints: Vec<IpAddr>,
    /// PEM of the authorities that trustd's certificate may have.
    pub accepted_cas: Vec<Vec<u8>>,
    /// The machine token.
    pub token: Secret<String>,
    /// The request, PEM.
    pub csr: Vec<u8>,
}

/// What trustd answered.
#[derive(Clone, Debug)]
pub struct Signed {
    /// The issuing authority, PEM.
    pub ca: Vec<u8>,
    /// The certificate, PEM.
    pub crt: Vec<u8>,
}

/// Why no certificate was got.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The accepted authorities cannot be used.
    #[error("reading the accepted authorities")]
    Authority(#[source] pki::PkiError),
    /// TLS cannot be set up.
    #[error("setting up TLS for trustd")]
    Tls(#[source] rustls::Error),
    /// The token cannot be sent.
    #[error("machine token has characters that cannot be sent")]
    Token,
    /// There is nobody to ask.
    #[error("no control plane is known")]
    NoEndpoint,
    /// No control plane signed; this is the last one's reason.
    #[error("asking trustd at {endpoint} for a certificate")]
    Refused {
        /// The last one asked.
        endpoint: IpAddr,
        /// Why it did not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Has certificates signed by somebody who holds the authority's key.
#[async_trait]
pub trait Signer: Debug + Send + Sync + 'static {
    /// Asks each endpoint in turn until one signs.
    ///
    /// # Errors
    /// [`SignError::Refused`] with the last endpoint's reason.
    async fn sign(&self, request: &SignRequest) -> Result<Signed, SignError>;
}

/// Asks trustd.
#[derive(Clone, Copy, Debug, Default)]
pub struct TrustdSigner;

#[async_trait]
impl Signer for TrustdSigner {
    async fn sign(&self, request: &SignRequest) -> Result<Signed, SignError> {
        let tls = TlsConnector::from(Arc::new(client_config(&request.accepted_cas)?));
        let token = request.token.expose().parse::<MetadataValue<Ascii>>().map_err(|_| SignError::Token)?;
        let mut last = SignError::NoEndpoint;
        for endpoint in request.endpoints.iter().copied() {
            let asked = timeout(DEADLINE, ask(endpoint, tls.clone(), token.clone(), request.csr.clone())).await;
            let source = match asked {
                Ok(Ok(signed)) => return Ok(signed),
                Ok(Err(error)) => error,
                Err(elapsed) => elapsed.into(),
            };
            tracing::debug!(%endpoint, error = %stdx::ErrorChain(&*source), "trustd did not sign");
            last = SignError::Refused { endpoint, source };
        }
        Err(last)
    }
}

fn client_config(accepted_cas: &[Vec<u8>]) -> Result<ClientConfig, SignError> {
    let mut roots = RootCertStore::empty();
    for pem in accepted_cas {
        let chain = pki::Certificate::chain_from_pem(&String::from_utf8_lossy(pem)).map_err(SignError::Authority)?;
        for certificate in chain {
            roots.add(certificate.der().to_vec().into()).map_err(SignError::Tls)?;
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(SignError::Tls)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

async fn ask(
    endpoint: IpAddr,
    tls: TlsConnector,
    token: MetadataValue<Ascii>,
    csr: Vec<u8>,
) -> Result<Signed, BoxError> {
    let connect = tower::service_fn(move |_: Uri| {
        let tls = tls.clone();
        async move {
            let stream = TcpStream::connect((endpoint, TRUSTD_PORT)).await?;
            tls.connect(ServerName::from(endpoint), stream).await.map(TokioIo::new)
        }
    });
    // The address is used by the connector; the URI only has to be well-formed.
    let channel = Endpoint::from_static("http://trustd").connect_with_connector(connect).await?;
    let mut request = Request::new(CertificateRequest { csr: csr.into() });
    request.metadata_mut().insert("token", token);
    let answer = SecurityServiceClient::new(channel).certificate(request).await?.into_inner();
    Ok(Signed { ca: answer.ca.into(), crt: answer.crt.into() })
}
