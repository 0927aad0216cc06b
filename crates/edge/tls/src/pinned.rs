//! Servers that a client knows by fingerprint or not at all: nodes in maintenance mode.

use std::sync::Arc;

use pki::MAINTENANCE_NAME;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error as TlsError, OtherError, SignatureScheme};

use crate::fingerprint::Fingerprint;

/// The server's certificate is none of those that were given.
#[derive(Debug, thiserror::Error)]
#[error("server certificate has fingerprint {0}, which is not among the accepted ones")]
struct FingerprintMismatch(String);

/// Accepts certificates by fingerprint; the handshake's signature is verified in any case.
#[derive(Debug)]
pub(crate) struct Pinned {
    accepted: Vec<Fingerprint>,
    provider: Arc<CryptoProvider>,
    servers: Servers,
}

/// The servers that may be accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Servers {
    Any,
    /// Those with the name of maintenance mode. Others are turned down before they are shown the client's certificate: a node
    /// that has its configuration has a certificate that can be verified, and is not when a client asks in this way.
    InMaintenance,
}

impl Pinned {
    pub(crate) const fn new(accepted: Vec<Fingerprint>, provider: Arc<CryptoProvider>, servers: Servers) -> Self {
        Self { accepted, provider, servers }
    }
}

/// Whether a DER certificate is for the name of maintenance mode.
fn is_of_maintenance(certificate: &[u8]) -> bool {
    let read = pki::Certificate::from_der(certificate);
    read.is_ok_and(|certificate| certificate.sans().dns.iter().any(|name| name == MAINTENANCE_NAME))
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        if self.servers == Servers::InMaintenance && !is_of_maintenance(end_entity) {
            return Err(TlsError::General("the node is not in maintenance mode".to_owned()));
        }
        if self.accepted.is_empty() || self.accepted.iter().any(|one| one.matches(end_entity)) {
            return Ok(ServerCertVerified::assertion());
        }
        let found = Fingerprint::of_public_key(end_entity).map(|one| one.to_string()).unwrap_or_default();
        let cause = OtherError(Arc::new(FingerprintMismatch(found)));
        Err(TlsError::InvalidCertificate(CertificateError::Other(cause)))
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Err(TlsError::General("TLS 1.2 is not accepted".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
