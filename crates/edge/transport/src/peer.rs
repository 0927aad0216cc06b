//! The other end of a connection, as far as TLS knows it.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use pki::Certificate;

/// Who is at the other end of a connection; an extension of each request on it.
#[derive(Debug, Clone)]
pub struct PeerInfo {
    /// Where the connection comes from.
    pub address: SocketAddr,
    /// Who it is; nothing where the server asked for no certificate.
    pub identity: Option<Arc<PeerIdentity>>,
}

/// What the verified certificate of a client says. Read once for each connection.
#[derive(Debug)]
pub struct PeerIdentity {
    /// The leaf of the chain.
    pub certificate: Certificate,
    /// SHA-256 of the public key, base64: the same for all certificates of one key.
    pub fingerprint: Arc<str>,
}

impl PeerIdentity {
    /// The identity in a leaf certificate.
    #[must_use]
    pub fn new(certificate: Certificate) -> Self {
        Self { fingerprint: certificate.fingerprint().into(), certificate }
    }
}

impl fmt::Display for PeerInfo {
    /// `FINGERPRINT ADDRESS SUBJECT`, or `- ADDRESS` for a peer without a certificate.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.identity {
            Some(own) => write!(f, "{} {} {}", own.fingerprint, self.address, own.certificate.subject()),
            None => write!(f, "- {}", self.address),
        }
    }
}
