//! The other end of a connection, as far as TLS knows it.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use pki::Certificate;

/// The authenticated peer of a connection; an extension of each request on it.
#[derive(Debug, Clone)]
pub struct PeerInfo {
    /// Source address of the connection.
    pub address: SocketAddr,
    /// Its identity; none if the server requests no certificate.
    pub identity: Option<Arc<PeerIdentity>>,
}

/// Content of a client's verified certificate. Parsed once per connection.
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
