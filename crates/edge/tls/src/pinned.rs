//! Servers that a client knows by fingerprint or not at all: nodes in maintenance mode.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pki::MAINTENANCE_NAME;
use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
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
    /// Whether the server of the handshake has the name of maintenance mode.
    maintained: Arc<AtomicBool>,
}

/// Shows the client's certificate to a server in maintenance mode. A node that has its configuration is refused without: its
/// own certificate can be verified, and is not when a client asks for it in this way.
#[derive(Debug)]
pub(crate) struct ForMaintenance {
    key: Arc<CertifiedKey>,
    maintained: Arc<AtomicBool>,
}

impl Pinned {
    pub(crate) fn new(accepted: Vec<Fingerprint>, provider: Arc<CryptoProvider>) -> Self {
        Self { accepted, provider, maintained: Arc::default() }
    }
}

impl ForMaintenance {
    /// Shows `key` when `pinned` has seen a server in maintenance mode.
    pub(crate) fn new(key: CertifiedKey, pinned: &Pinned) -> Self {
        Self { key: Arc::new(key), maintained: Arc::clone(&pinned.maintained) }
    }
}

impl ResolvesClientCert for ForMaintenance {
    fn resolve(&self, _authorities: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.maintained.load(Ordering::SeqCst).then(|| Arc::clone(&self.key))
    }

    fn has_certs(&self) -> bool {
        true
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
        self.maintained.store(is_of_maintenance(end_entity), Ordering::SeqCst);
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
