//! Client of trustd: how a node that holds no authority gets its server certificate from a control plane.
//!
//! [`Signer`] is the seam that controllers use; [`TrustdClient`] is the real one. It asks once for each call: when to ask
//! again is the caller's affair.

use std::{
    fmt::Debug,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use async_trait::async_trait;
use stdx::Secret;
use tls::{IdentityError, Roots};
use tokio::time::timeout;
use tonic::{
    Request,
    metadata::{Ascii, MetadataValue},
    transport::Channel,
};
use transport::Slot;
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
    Authority(#[source] IdentityError),
    /// TLS cannot be set up.
    #[error("setting up TLS for trustd")]
    Tls(#[source] IdentityError),
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
#[derive(Clone, Copy, Debug)]
pub struct TrustdClient {
    port: u16,
}

impl Default for TrustdClient {
    fn default() -> Self {
        Self { port: TRUSTD_PORT }
    }
}

impl TrustdClient {
    /// A client of trustd on another port.
    #[must_use]
    pub const fn on_port(port: u16) -> Self {
        Self { port }
    }
}

#[async_trait]
impl Signer for TrustdClient {
    async fn sign(&self, request: &SignRequest) -> Result<Signed, SignError> {
        let authorities = request.accepted_cas.iter().map(|pem| String::from_utf8_lossy(pem));
        let roots = Roots::from_pem(authorities).map_err(SignError::Authority)?;
        let config = Slot::new(tls::client_config(None, &roots).map_err(SignError::Tls)?);
        let token = request.token.expose().parse::<MetadataValue<Ascii>>().map_err(|_| SignError::Token)?;
        let mut last = SignError::NoEndpoint;
        for endpoint in request.endpoints.iter().copied() {
            let channel = transport::dial::channel(SocketAddr::new(endpoint, self.port), config.clone());
            let source: Box<dyn std::error::Error + Send + Sync> =
                match timeout(DEADLINE, ask(channel, token.clone(), request.csr.clone())).await {
                    Ok(Ok(signed)) => return Ok(signed),
                    Ok(Err(status)) => status.into(),
                    Err(elapsed) => elapsed.into(),
                };
            tracing::debug!(%endpoint, error = %stdx::ErrorChain(&*source), "trustd did not sign");
            last = SignError::Refused { endpoint, source };
        }
        Err(last)
    }
}

async fn ask(channel: Channel, token: MetadataValue<Ascii>, csr: Vec<u8>) -> Result<Signed, tonic::Status> {
    let mut request = Request::new(CertificateRequest { csr: csr.into() });
    request.metadata_mut().insert("token", token);
    let answer = SecurityServiceClient::new(channel).certificate(request).await?.into_inner();
    Ok(Signed { ca: answer.ca.into(), crt: answer.crt.into() })
}

#[cfg(test)]
mod tests {
    use pki::{Authority, CaProfile};
    use stdx::Clock as _;

    use super::*;

    fn request(endpoints: &[&str]) -> SignRequest {
        let ca = Authority::generate(CaProfile::Os, stdx::SystemClock.now()).unwrap();
        SignRequest {
            endpoints: endpoints.iter().map(|ip| ip.parse().unwrap()).collect(),
            accepted_cas: vec![ca.certificate().to_pem().into_bytes()],
            token: Secret::new("abcdef.0123456789abcdef".to_owned()),
            csr: b"csr".to_vec(),
        }
    }

    #[tokio::test]
    async fn every_endpoint_is_asked_and_the_last_one_is_named() {
        // Nobody listens on port 1 of these addresses.
        let refused = TrustdClient::on_port(1).sign(&request(&["127.0.0.2", "127.0.0.3"])).await.unwrap_err();
        let last: IpAddr = [127, 0, 0, 3].into();
        assert!(matches!(&refused, SignError::Refused { endpoint, .. } if *endpoint == last), "{refused:?}");
        assert!(stdx::error_chain(&refused).contains("refused"), "{}", stdx::error_chain(&refused));
    }

    #[tokio::test]
    async fn without_an_endpoint_or_an_authority_nobody_is_asked() {
        let client = TrustdClient::default();
        assert!(matches!(client.sign(&request(&[])).await, Err(SignError::NoEndpoint)));
        let broken = SignRequest { accepted_cas: vec![b"no PEM".to_vec()], ..request(&["127.0.0.2"]) };
        assert!(matches!(client.sign(&broken).await, Err(SignError::Authority(_))));
    }
}
