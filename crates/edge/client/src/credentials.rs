//! The certificates and the key of a client, out of PEM. Key files carry the label `ED25519 PRIVATE KEY` around
//! PKCS#8 as well as the standard labels; both are read.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer};

/// The client certificate with its key, and the accepted authorities.
pub struct Credentials {
    pub(crate) ca: Vec<CertificateDer<'static>>,
    pub(crate) identity: Option<Identity>,
}

pub(crate) struct Identity {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

/// Why certificates or a key could not be read.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    #[error("{what} is not base64")]
    Base64 {
        what: &'static str,
        #[source]
        source: base64::DecodeError,
    },
    #[error("{what} is not PEM")]
    NotPem { what: &'static str },
    #[error("{what} has no {expected}")]
    Missing { what: &'static str, expected: &'static str },
}

impl Credentials {
    /// From PEM texts: the accepted authorities, and the client's certificate with its key.
    pub fn from_pem(ca: &[u8], identity: Option<(&[u8], &[u8])>) -> Result<Self, CredentialsError> {
        let identity = match identity {
            Some((crt, key)) => {
                Some(Identity { chain: certificates(crt, "the client certificate")?, key: private_key(key)? })
            }
            None => None,
        };
        Ok(Self { ca: certificates(ca, "the CA certificate")?, identity })
    }
}

impl Clone for Credentials {
    fn clone(&self) -> Self {
        let identity =
            self.identity.as_ref().map(|own| Identity { chain: own.chain.clone(), key: own.key.clone_key() });
        Self { ca: self.ca.clone(), identity }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let identity = self.identity.is_some();
        f.debug_struct("Credentials").field("ca", &self.ca.len()).field("identity", &identity).finish()
    }
}

/// Decodes base64 text from a talosconfig; white space is ignored.
pub(crate) fn decode_base64(text: &str, what: &'static str) -> Result<Vec<u8>, CredentialsError> {
    let compact: String = text.split_whitespace().collect();
    STANDARD.decode(compact).map_err(|source| CredentialsError::Base64 { what, source })
}

/// Every block of a PEM text as `(label, DER)`.
pub(crate) fn pem_blocks(pem: &[u8], what: &'static str) -> Result<Vec<(String, Vec<u8>)>, CredentialsError> {
    let text = std::str::from_utf8(pem).map_err(|_| CredentialsError::NotPem { what })?;
    let mut blocks = Vec::new();
    let mut open: Option<(String, String)> = None;
    for line in text.lines().map(str::trim) {
        if let Some(label) = line.strip_prefix("-----BEGIN ").and_then(|rest| rest.strip_suffix("-----")) {
            open = Some((label.to_owned(), String::new()));
        } else if line.starts_with("-----END ") {
            let (label, body) = open.take().ok_or(CredentialsError::NotPem { what })?;
            blocks.push((label, decode_base64(&body, what)?));
        } else if let Some((_, body)) = &mut open
            && !line.contains(':')
        {
            body.push_str(line);
        }
    }
    if blocks.is_empty() { Err(CredentialsError::NotPem { what }) } else { Ok(blocks) }
}

fn certificates(pem: &[u8], what: &'static str) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
    let found: Vec<_> = pem_blocks(pem, what)?
        .into_iter()
        .filter(|(label, _)| label == "CERTIFICATE")
        .map(|(_, der)| CertificateDer::from(der))
        .collect();
    if found.is_empty() { Err(CredentialsError::Missing { what, expected: "certificate" }) } else { Ok(found) }
}

fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, CredentialsError> {
    let what = "the client key";
    pem_blocks(pem, what)?
        .into_iter()
        .find_map(|(label, der)| match label.as_str() {
            "PRIVATE KEY" | "ED25519 PRIVATE KEY" => Some(PrivatePkcs8KeyDer::from(der).into()),
            "EC PRIVATE KEY" => Some(PrivateSec1KeyDer::from(der).into()),
            "RSA PRIVATE KEY" => Some(PrivatePkcs1KeyDer::from(der).into()),
            _ => None,
        })
        .ok_or(CredentialsError::Missing { what, expected: "private key" })
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use pki::{Algorithm, Authority, CaProfile, PrivateKey};

    use super::*;

    #[test]
    fn both_labels_of_an_ed25519_key_are_read() {
        let key = PrivateKey::generate(Algorithm::Ed25519).unwrap();
        let (standard, labelled) = (key.to_pkcs8_pem(), key.to_pem());
        assert!(standard.starts_with("-----BEGIN PRIVATE KEY") && labelled.starts_with("-----BEGIN ED25519 PRIVATE"));
        let read = |pem: &str| private_key(pem.as_bytes()).unwrap().secret_der().to_vec();
        assert_eq!(read(&standard), read(&labelled));
    }

    #[test]
    fn a_key_where_a_certificate_is_expected_is_named() {
        let key = PrivateKey::generate(Algorithm::Ed25519).unwrap().to_pem();
        let error = Credentials::from_pem(key.as_bytes(), None).unwrap_err();
        assert!(matches!(error, CredentialsError::Missing { expected: "certificate", .. }), "{error}");
        let error = Credentials::from_pem(b"hello", None).unwrap_err();
        assert!(matches!(error, CredentialsError::NotPem { .. }), "{error}");
    }

    #[test]
    fn debug_shows_no_key() {
        let pair = Authority::generate(CaProfile::Os, SystemTime::UNIX_EPOCH).unwrap().pair();
        let identity = Some((pair.crt.as_bytes(), pair.key.as_bytes()));
        let both = Credentials::from_pem(pair.crt.as_bytes(), identity).unwrap();
        assert_eq!(format!("{both:?}"), "Credentials { ca: 1, identity: true }");
    }
}
