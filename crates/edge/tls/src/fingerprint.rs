//! Fingerprints, by which a client knows a server that no authority vouches for: a node in maintenance mode.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

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

impl Fingerprint {
    /// The fingerprint of the public key in a DER certificate, as nodes print it.
    pub fn of_public_key(certificate: &[u8]) -> Option<Self> {
        Some(Self::PublicKey(sha256(pki::Certificate::from_der(certificate).ok()?.spki_der())))
    }

    pub(crate) fn matches(&self, certificate: &[u8]) -> bool {
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

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use pki::{Authority, CaProfile};

    use super::*;

    #[test]
    fn fingerprints_are_read_in_both_forms() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let authority = Authority::generate(CaProfile::Maintenance, now).unwrap();
        let certificate = authority.certificate();
        let own = Fingerprint::of_public_key(certificate.der()).unwrap();
        assert_eq!(own.to_string(), certificate.fingerprint());
        assert_eq!(own.to_string().parse::<Fingerprint>().as_ref(), Ok(&own));
        assert!(own.matches(certificate.der()));
        let whole = Fingerprint::Certificate(sha256(certificate.der()));
        assert_eq!(whole.to_string().parse::<Fingerprint>().as_ref(), Ok(&whole));
        assert!(whole.matches(certificate.der()));
        assert!(!Fingerprint::PublicKey([0; 32]).matches(certificate.der()));
        assert!("abc".parse::<Fingerprint>().is_err_and(|error| error == ParseFingerprintError("abc".to_owned())));
    }
}
