//! TLS of the client: TLS 1.3 only, servers verified against one pinned authority, or, for a node in maintenance mode
//! that has no authority yet, against fingerprints or not at all.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pki::MAINTENANCE_NAME;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, OtherError, RootCertStore,
    SignatureScheme,
};
use x509_parser::prelude::GeneralName;

use crate::credentials::Credentials;
use crate::error::ConnectError;

/// What a client demands of a server's certificate.
#[derive(Debug, Clone)]
pub enum ServerTrust {
    /// Signed by the authority of these credentials, for the name that was dialled.
    Authority(Credentials),
    /// Maintenance mode: one of these fingerprints, or any certificate when the list is empty. A node that belongs to a
    /// cluster asks for the certificate of `credentials`; its authority plays no part.
    Fingerprints { accepted: Vec<Fingerprint>, credentials: Option<Credentials> },
}

/// SHA-256 over a certificate's public key info (shown as base64) or over the whole certificate (given as hex).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fingerprint {
    PublicKey([u8; 32]),
    Certificate([u8; 32]),
}

/// The text is not a fingerprint.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("fingerprint {0:?} is neither base64 nor hex of 32 bytes")]
pub struct ParseFingerprintError(String);

/// The server's certificate is none of those that were given.
#[derive(Debug, thiserror::Error)]
#[error("server certificate has fingerprint {0}, which is not among the accepted ones")]
pub(crate) struct FingerprintMismatch(String);

impl Fingerprint {
    /// The fingerprint of the public key in a DER certificate, as nodes print it.
    pub fn of_public_key(certificate: &[u8]) -> Option<Self> {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
        Some(Self::PublicKey(sha256(parsed.tbs_certificate.subject_pki.raw)))
    }

    fn matches(&self, certificate: &[u8]) -> bool {
        match self {
            Self::PublicKey(_) => Self::of_public_key(certificate).as_ref() == Some(self),
            Self::Certificate(expected) => sha256(certificate) == *expected,
        }
    }
}

impl FromStr for Fingerprint {
    type Err = ParseFingerprintError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let trimmed = text.trim();
        let hex: String = trimmed.chars().filter(|c| *c != ':').collect();
        if hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            let mut bytes = [0u8; 32];
            for (at, byte) in bytes.iter_mut().enumerate() {
                let pair = &hex[at * 2..at * 2 + 2];
                *byte = u8::from_str_radix(pair, 16).map_err(|_| ParseFingerprintError(text.to_owned()))?;
            }
            return Ok(Self::Certificate(bytes));
        }
        let bytes = STANDARD.decode(trimmed).map_err(|_| ParseFingerprintError(text.to_owned()))?;
        bytes.try_into().map(Self::PublicKey).map_err(|_| ParseFingerprintError(text.to_owned()))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PublicKey(bytes) => f.write_str(&STANDARD.encode(bytes)),
            Self::Certificate(bytes) => {
                for (at, byte) in bytes.iter().enumerate() {
                    write!(f, "{}{byte:02x}", if at == 0 { "" } else { ":" })?;
                }
                Ok(())
            }
        }
    }
}

fn sha256(data: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, data).as_ref());
    out
}

/// The rustls configuration for a kind of trust.
pub(crate) fn client_config(trust: &ServerTrust) -> Result<ClientConfig, ConnectError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(ConnectError::Tls)?;
    let mut config = match trust {
        ServerTrust::Authority(credentials) => {
            let mut roots = RootCertStore::empty();
            for certificate in &credentials.ca {
                roots.add(certificate.clone()).map_err(ConnectError::Authority)?;
            }
            let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|error| ConnectError::Authority(TlsError::General(error.to_string())))?;
            let builder = builder.with_webpki_verifier(verifier);
            match &credentials.identity {
                Some(own) => builder
                    .with_client_auth_cert(own.chain.clone(), own.key.clone_key())
                    .map_err(ConnectError::Identity)?,
                None => builder.with_no_client_auth(),
            }
        }
        ServerTrust::Fingerprints { accepted, credentials } => {
            let maintained = Arc::new(AtomicBool::new(false));
            let identity = credentials.as_ref().and_then(|credentials| credentials.identity.as_ref());
            let key = identity.map(|own| CertifiedKey::from_der(own.chain.clone(), own.key.clone_key(), &provider));
            let key = key.transpose().map_err(ConnectError::Identity)?.map(Arc::new);
            let pinned = Arc::new(Pinned { accepted: accepted.clone(), provider, maintained: Arc::clone(&maintained) });
            let builder = builder.dangerous().with_custom_certificate_verifier(pinned);
            match key {
                Some(key) => builder.with_client_cert_resolver(Arc::new(ForMaintenance { key, maintained })),
                None => builder.with_no_client_auth(),
            }
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// Accepts certificates by fingerprint; the handshake's signature is verified in any case.
#[derive(Debug)]
struct Pinned {
    accepted: Vec<Fingerprint>,
    provider: Arc<CryptoProvider>,
    /// Whether the server of the handshake has the name of maintenance mode.
    maintained: Arc<AtomicBool>,
}

/// Shows the client's certificate to a server in maintenance mode. A node that has its configuration is refused without: its
/// own certificate can be verified, and is not when a client asks for it in this way.
#[derive(Debug)]
struct ForMaintenance {
    key: Arc<CertifiedKey>,
    maintained: Arc<AtomicBool>,
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
    let Ok((_, parsed)) = x509_parser::parse_x509_certificate(certificate) else { return false };
    let Ok(Some(names)) = parsed.subject_alternative_name() else { return false };
    let is_it = |name: &GeneralName<'_>| matches!(name, GeneralName::DNSName(name) if *name == MAINTENANCE_NAME);
    names.value.general_names.iter().any(is_it)
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

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use pki::{Authority, CaProfile};

    use super::*;

    #[test]
    fn fingerprints_are_read_in_both_forms() {
        let authority = Authority::generate(CaProfile::Os, SystemTime::UNIX_EPOCH).unwrap();
        let certificate = CertificateDer::from(authority.certificate().der());
        let own = Fingerprint::of_public_key(&certificate).unwrap();
        assert_eq!(own.to_string().parse::<Fingerprint>().as_ref(), Ok(&own));
        assert!(own.matches(&certificate));
        let whole = Fingerprint::Certificate(sha256(&certificate));
        assert_eq!(whole.to_string().parse::<Fingerprint>().as_ref(), Ok(&whole));
        assert!(whole.matches(&certificate));
        assert!(!Fingerprint::PublicKey([0; 32]).matches(&certificate));
        assert!("abc".parse::<Fingerprint>().is_err_and(|error| error == ParseFingerprintError("abc".to_owned())));
    }
}
