//! Certificates and keys in the form that the TLS stack takes.

use std::fmt;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// Why certificates could not be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A certificate or key does not parse.
    #[error("reading {what}")]
    Parse {
        /// Which one.
        what: &'static str,
        /// The reason.
        #[source]
        source: pki::PkiError,
    },
    /// There is no certificate at all.
    #[error("{what} is empty")]
    Empty {
        /// Which one.
        what: &'static str,
    },
    /// The TLS stack refuses them.
    #[error("configuring TLS")]
    Tls(#[source] rustls::Error),
    /// The authorities cannot verify peers.
    #[error("configuring the authorities of peers")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
}

/// A certificate with its chain and its private key.
pub struct Identity {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

impl Identity {
    /// A chain, leaf first, and the leaf's key, as they are.
    #[must_use]
    pub const fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Self {
        Self { chain, key }
    }

    /// Reads a chain, leaf first, and the leaf's key.
    ///
    /// # Errors
    /// One of them does not parse or is missing.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, IdentityError> {
        let chain = certificates(certificate, "certificate")?;
        if chain.is_empty() {
            return Err(IdentityError::Empty { what: "certificate" });
        }
        let key = pki::PrivateKey::from_pem(key).map_err(|source| IdentityError::Parse { what: "key", source })?;
        Ok(Self { chain, key: PrivatePkcs8KeyDer::from(key.pkcs8_der().to_vec()).into() })
    }
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key() }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("chain", &self.chain.len()).finish_non_exhaustive()
    }
}

/// Authorities that peers' certificates are verified against.
#[derive(Debug, Clone)]
pub struct Roots(pub(crate) Arc<RootCertStore>);

impl Roots {
    /// Authorities as they are.
    ///
    /// # Errors
    /// One cannot be used.
    pub fn new(certificates: impl IntoIterator<Item = CertificateDer<'static>>) -> Result<Self, rustls::Error> {
        let mut store = RootCertStore::empty();
        for certificate in certificates {
            store.add(certificate)?;
        }
        Ok(Self(Arc::new(store)))
    }

    /// Those of a bundle that can be used: one that cannot does not spoil the others.
    pub fn usable(certificates: impl IntoIterator<Item = CertificateDer<'static>>) -> Self {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(certificates);
        Self(Arc::new(store))
    }

    /// Reads authorities, any number in each text.
    ///
    /// # Errors
    /// One does not parse, or there is none.
    pub fn from_pem<I: IntoIterator<Item: AsRef<str>>>(texts: I) -> Result<Self, IdentityError> {
        let mut store = RootCertStore::empty();
        for text in texts {
            for certificate in certificates(text.as_ref(), "authority")? {
                store.add(certificate).map_err(IdentityError::Tls)?;
            }
        }
        if store.is_empty() {
            return Err(IdentityError::Empty { what: "list of authorities" });
        }
        Ok(Self(Arc::new(store)))
    }
}

fn certificates(text: &str, what: &'static str) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let chain = pki::Certificate::chain_from_pem(text).map_err(|source| IdentityError::Parse { what, source })?;
    Ok(chain.iter().map(|certificate| CertificateDer::from(certificate.der().to_vec())).collect())
}
