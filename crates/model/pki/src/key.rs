//! Private keys: generation, parsing of all common encodings, signatures.

use std::sync::Arc;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RsaKeyPair};

use crate::der;
use crate::error::PkiError;
use crate::pem;

/// Key type to generate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    Ed25519,
    EcdsaP256,
    Rsa2048,
    Rsa4096,
}

/// A private key. Cheap to clone; `Debug` shows only its type.
#[derive(Clone)]
pub struct PrivateKey {
    inner: Arc<Inner>,
}

struct Inner {
    pair: Pair,
    pkcs8: Vec<u8>,
    spki: Vec<u8>,
}

enum Pair {
    Ed25519(Ed25519KeyPair),
    Ecdsa(EcdsaKeyPair, Curve),
    Rsa(Box<RsaKeyPair>),
}

#[derive(Clone, Copy, Debug)]
enum Curve {
    P256,
    P384,
    P521,
}

impl Curve {
    const ALL: [Self; 3] = [Self::P256, Self::P384, Self::P521];

    fn signing(self) -> &'static EcdsaSigningAlgorithm {
        match self {
            Self::P256 => &signature::ECDSA_P256_SHA256_ASN1_SIGNING,
            Self::P384 => &signature::ECDSA_P384_SHA384_ASN1_SIGNING,
            Self::P521 => &signature::ECDSA_P521_SHA512_ASN1_SIGNING,
        }
    }

    /// Last arc of `ecdsa-with-SHA2` 1.2.840.10045.4.3.x.
    fn signature_arc(self) -> u8 {
        match self {
            Self::P256 => 2,
            Self::P384 => 3,
            Self::P521 => 4,
        }
    }
}

impl PrivateKey {
    pub fn generate(algorithm: Algorithm) -> Result<Self, PkiError> {
        let failed = |_| PkiError::Generate { what: "a private key" };
        let pair = match algorithm {
            Algorithm::Ed25519 => Pair::Ed25519(Ed25519KeyPair::generate().map_err(failed)?),
            Algorithm::EcdsaP256 => {
                Pair::Ecdsa(EcdsaKeyPair::generate(Curve::P256.signing()).map_err(failed)?, Curve::P256)
            }
            Algorithm::Rsa2048 => Pair::Rsa(Box::new(RsaKeyPair::generate(KeySize::Rsa2048).map_err(failed)?)),
            Algorithm::Rsa4096 => Pair::Rsa(Box::new(RsaKeyPair::generate(KeySize::Rsa4096).map_err(failed)?)),
        };
        Self::from_pair(pair)
    }

    /// The first private key of a PEM text, whatever its label: PKCS#8, SEC 1 or PKCS#1.
    pub fn from_pem(text: &str) -> Result<Self, PkiError> {
        let blocks = pem::decode(text)?;
        let block = blocks.iter().find(|b| b.label.ends_with("PRIVATE KEY"));
        let block = block.ok_or(PkiError::Missing { what: "private key" })?;
        if block.label == "ENCRYPTED PRIVATE KEY" {
            return Err(PkiError::Key { reason: "the key is encrypted with a password" });
        }
        Self::from_der(&block.der)
    }

    /// PKCS#8, SEC 1 or PKCS#1 bytes.
    pub fn from_der(bytes: &[u8]) -> Result<Self, PkiError> {
        if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(bytes) {
            return Self::from_pair(Pair::Ed25519(pair));
        }
        for curve in Curve::ALL {
            if let Ok(pair) = EcdsaKeyPair::from_private_key_der(curve.signing(), bytes) {
                return Self::from_pair(Pair::Ecdsa(pair, curve));
            }
        }
        if let Ok(pair) = RsaKeyPair::from_pkcs8(bytes).or_else(|_| RsaKeyPair::from_der(bytes)) {
            return Self::from_pair(Pair::Rsa(Box::new(pair)));
        }
        Err(PkiError::Key { reason: "neither Ed25519 nor ECDSA (P-256, P-384, P-521) nor RSA (2048 to 8192 bits)" })
    }

    fn from_pair(pair: Pair) -> Result<Self, PkiError> {
        let failed = |_| PkiError::Key { reason: "the key cannot be encoded" };
        let (pkcs8, spki) = match &pair {
            Pair::Ed25519(key) => (
                key.to_pkcs8v1().map_err(failed)?.as_ref().to_vec(),
                key.public_key().as_der().map_err(failed)?.as_ref().to_vec(),
            ),
            Pair::Ecdsa(key, _) => (
                key.to_pkcs8v1().map_err(failed)?.as_ref().to_vec(),
                AsDer::<aws_lc_rs::encoding::PublicKeyX509Der<'_>>::as_der(key.public_key())
                    .map_err(failed)?
                    .as_ref()
                    .to_vec(),
            ),
            Pair::Rsa(key) => (
                key.as_der().map_err(failed)?.as_ref().to_vec(),
                key.public_key().as_der().map_err(failed)?.as_ref().to_vec(),
            ),
        };
        Ok(Self { inner: Arc::new(Inner { pair, pkcs8, spki }) })
    }

    /// PEM with a label by key type: `ED25519 PRIVATE KEY` (PKCS#8 inside), `EC PRIVATE KEY` (SEC 1), `RSA PRIVATE KEY`
    /// (PKCS#1). Go programs read all three; rustls does not know the first.
    #[must_use]
    pub fn to_pem(&self) -> String {
        let pkcs8 = &self.inner.pkcs8;
        match &self.inner.pair {
            Pair::Ed25519(_) => pem::encode("ED25519 PRIVATE KEY", pkcs8),
            Pair::Ecdsa(key, _) => match key.private_key().as_der() {
                Ok(sec1) => pem::encode("EC PRIVATE KEY", sec1.as_ref()),
                Err(_) => pem::encode("PRIVATE KEY", pkcs8),
            },
            Pair::Rsa(_) => match pkcs8_payload(pkcs8) {
                Some(pkcs1) => pem::encode("RSA PRIVATE KEY", pkcs1),
                None => pem::encode("PRIVATE KEY", pkcs8),
            },
        }
    }

    /// PEM of the PKCS#8 form, label `PRIVATE KEY`, which every TLS stack reads.
    #[must_use]
    pub fn to_pkcs8_pem(&self) -> String {
        pem::encode("PRIVATE KEY", &self.inner.pkcs8)
    }

    /// The PKCS#8 form, for `rustls::pki_types::PrivatePkcs8KeyDer::from`.
    #[must_use]
    pub fn pkcs8_der(&self) -> &[u8] {
        &self.inner.pkcs8
    }

    /// The public key as SubjectPublicKeyInfo.
    #[must_use]
    pub fn spki_der(&self) -> &[u8] {
        &self.inner.spki
    }

    /// The public key as PEM, label `PUBLIC KEY`.
    #[must_use]
    pub fn public_key_pem(&self) -> String {
        pem::encode("PUBLIC KEY", &self.inner.spki)
    }

    #[must_use]
    pub fn is_rsa(&self) -> bool {
        matches!(self.inner.pair, Pair::Rsa(_))
    }

    /// The AlgorithmIdentifier that [`sign`](Self::sign) uses.
    pub(crate) fn signature_algorithm(&self) -> Vec<u8> {
        match &self.inner.pair {
            Pair::Ed25519(_) => der::sequence(&[&der::oid(&[0x2b, 0x65, 0x70])]),
            Pair::Ecdsa(_, curve) => {
                let arcs = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, curve.signature_arc()];
                der::sequence(&[&der::oid(&arcs)])
            }
            Pair::Rsa(_) => {
                let arcs = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b];
                der::sequence(&[&der::oid(&arcs), &[0x05, 0x00]])
            }
        }
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, PkiError> {
        let failed = |_| PkiError::Sign { what: "with the private key" };
        match &self.inner.pair {
            Pair::Ed25519(key) => Ok(key.sign(message).as_ref().to_vec()),
            Pair::Ecdsa(key, _) => Ok(key.sign(&SystemRandom::new(), message).map_err(failed)?.as_ref().to_vec()),
            Pair::Rsa(key) => {
                let mut out = vec![0; key.public_modulus_len()];
                key.sign(&signature::RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut out).map_err(failed)?;
                Ok(out)
            }
        }
    }
}

/// The key inside a PKCS#8 envelope: version, algorithm, octet string.
fn pkcs8_payload(pkcs8: &[u8]) -> Option<&[u8]> {
    let (der::SEQUENCE, content, _) = der::read(pkcs8)? else { return None };
    let (der::INTEGER, _, rest) = der::read(content)? else { return None };
    let (der::SEQUENCE, _, rest) = der::read(rest)? else { return None };
    let (der::OCTET_STRING, payload, _) = der::read(rest)? else { return None };
    Some(payload)
}

impl std::fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match &self.inner.pair {
            Pair::Ed25519(_) => "Ed25519".to_owned(),
            Pair::Ecdsa(_, curve) => format!("ECDSA {curve:?}"),
            Pair::Rsa(key) => format!("RSA {}", key.public_modulus_len() * 8),
        };
        write!(f, "PrivateKey({kind}, hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_key_comes_back_from_both_pem_forms() {
        for (algorithm, label) in [
            (Algorithm::Ed25519, "ED25519 PRIVATE KEY"),
            (Algorithm::EcdsaP256, "EC PRIVATE KEY"),
            (Algorithm::Rsa2048, "RSA PRIVATE KEY"),
        ] {
            let key = PrivateKey::generate(algorithm).unwrap();
            let native = key.to_pem();
            assert!(native.starts_with(&format!("-----BEGIN {label}-----\n")), "{native}");
            let again = PrivateKey::from_pem(&native).unwrap();
            assert_eq!(again.spki_der(), key.spki_der());
            assert_eq!(again.to_pem(), native);
            let plain = PrivateKey::from_pem(&key.to_pkcs8_pem()).unwrap();
            assert_eq!(plain.pkcs8_der(), key.pkcs8_der());
        }
    }

    #[test]
    fn debug_output_names_only_the_kind() {
        let key = PrivateKey::generate(Algorithm::Ed25519).unwrap();
        assert_eq!(format!("{key:?}"), "PrivateKey(Ed25519, hidden)");
    }

    #[test]
    fn text_without_a_key_says_what_is_missing() {
        let error = PrivateKey::from_pem("nothing").unwrap_err();
        assert!(matches!(error, PkiError::Missing { what: "private key" }), "{error:?}");
        let error = PrivateKey::from_pem(&pem::encode("PRIVATE KEY", b"junk")).unwrap_err();
        assert!(matches!(error, PkiError::Key { .. }), "{error:?}");
    }
}
