//! Certificate authorities and the certificates that they issue.
//!
//! There is no default lifetime or usage, and no derived serial number: every certificate states its own, and serial
//! numbers are 127 random bits.

use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use crate::certificate::Certificate;
use crate::der;
use crate::error::PkiError;
use crate::extension::{SUBJECT_ALT_NAME, extension};
use crate::key::{Algorithm, PrivateKey};
use crate::names::{Sans, Subject};
use crate::pem::PemPair;
use crate::request::CertificateRequest;

/// Lifetime of certificate authorities: ten years of 365 days.
pub const CA_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// `ub-common-name` of RFC 5280.
const MAX_COMMON_NAME: usize = 64;

/// Backdating of certificates, so that a machine with a slightly slow clock accepts them.
pub const BACKDATE: Duration = Duration::from_secs(60);

/// Validity period of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    pub not_before: SystemTime,
    pub not_after: SystemTime,
}

impl Validity {
    /// From [`BACKDATE`] before `now` to `lifetime` after it. An end beyond the range of the clock cannot be encoded,
    /// and issuing with it fails.
    #[must_use]
    pub fn starting(now: SystemTime, lifetime: Duration) -> Self {
        let never = || SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 60);
        Self {
            not_before: now.checked_sub(BACKDATE).unwrap_or(now),
            not_after: now.checked_add(lifetime).unwrap_or_else(never),
        }
    }
}

/// Permitted use of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    Server,
    Client,
    /// Both, as between etcd peers.
    Peer,
}

/// Everything in a certificate except its key and issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    pub subject: Subject,
    pub sans: Sans,
    pub usage: Usage,
    pub validity: Validity,
}

/// The authorities of a cluster, each with its own key type and name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaProfile {
    /// `O=talos`, Ed25519: the machine API.
    Os,
    /// `O=etcd`, ECDSA P-256.
    Etcd,
    /// `O=kubernetes`, ECDSA P-256.
    Kubernetes,
    /// `CN=front-proxy`, ECDSA P-256: the aggregation layer.
    Aggregator,
    /// `O=talos`, Ed25519: the maintenance API.
    Maintenance,
}

impl CaProfile {
    #[must_use]
    pub fn subject(self) -> Subject {
        match self {
            Self::Os | Self::Maintenance => Subject::organization("talos"),
            Self::Etcd => Subject::organization("etcd"),
            Self::Kubernetes => Subject::organization("kubernetes"),
            Self::Aggregator => Subject::common_name("front-proxy"),
        }
    }

    #[must_use]
    pub fn algorithm(self) -> Algorithm {
        match self {
            Self::Os | Self::Maintenance => Algorithm::Ed25519,
            Self::Etcd | Self::Kubernetes | Self::Aggregator => Algorithm::EcdsaP256,
        }
    }
}

/// A certificate authority: its certificate and its key.
#[derive(Clone, Debug)]
pub struct Authority {
    certificate: Certificate,
    key: PrivateKey,
}

impl Authority {
    /// A new authority of a cluster, valid for [`CA_LIFETIME`].
    pub fn generate(profile: CaProfile, now: SystemTime) -> Result<Self, PkiError> {
        Self::self_signed(&profile.subject(), profile.algorithm(), Validity::starting(now, CA_LIFETIME))
    }

    /// A new authority with the given name and key type.
    pub fn self_signed(subject: &Subject, algorithm: Algorithm, validity: Validity) -> Result<Self, PkiError> {
        Self::self_signed_with(subject, PrivateKey::generate(algorithm)?, validity)
    }

    /// A new authority with an existing key.
    ///
    /// # Errors
    /// `LongName` for a common name of more than 64 characters, the bound of RFC 5280. Names of leaves are not bounded: those
    /// of nodes may be longer, and Kubernetes takes them.
    pub fn self_signed_with(subject: &Subject, key: PrivateKey, validity: Validity) -> Result<Self, PkiError> {
        let length = subject.common_name.as_ref().map_or(0, |name| name.chars().count());
        if length > MAX_COMMON_NAME {
            return Err(PkiError::LongName { length });
        }
        let name = subject.to_der()?;
        let extensions = [
            extension(BASIC_CONSTRAINTS, true, &der::sequence(&[&der::boolean_true()])),
            // digitalSignature, keyCertSign, cRLSign
            extension(KEY_USAGE, true, &[0x03, 0x02, 0x01, 0x86]),
            extension(SUBJECT_KEY_ID, false, &der::octet_string(&key_id(key.spki_der()))),
        ];
        let body = Body { issuer: &name, subject: &name, spki: key.spki_der(), validity, extensions: &extensions };
        let certificate = Certificate::from_der(&body.sign(&key)?)?;
        Ok(Self { certificate, key })
    }

    /// An authority from its PEM texts; the key must match the first certificate, which must be a CA.
    pub fn from_pair(pair: &PemPair) -> Result<Self, PkiError> {
        let certificate = Certificate::from_pem(&pair.crt)?;
        let key = PrivateKey::from_pem(&pair.key)?;
        if key.spki_der() != certificate.spki_der() {
            return Err(PkiError::KeyMismatch { subject: certificate.subject().to_string() });
        }
        if !certificate.is_ca() {
            return Err(PkiError::NotAuthority { subject: certificate.subject().to_string() });
        }
        Ok(Self { certificate, key })
    }

    #[must_use]
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    #[must_use]
    pub fn key(&self) -> &PrivateKey {
        &self.key
    }

    /// Certificate and key as PEM, as configurations carry them.
    #[must_use]
    pub fn pair(&self) -> PemPair {
        PemPair::new(self.certificate.to_pem(), self.key.to_pem())
    }

    /// Issues a certificate for a key.
    pub fn issue(&self, key: &PrivateKey, template: &Template) -> Result<Certificate, PkiError> {
        self.issue_for(key.spki_der(), key.is_rsa(), template)
    }

    /// Issues a certificate with a new key.
    pub fn issue_pair(&self, algorithm: Algorithm, template: &Template) -> Result<PemPair, PkiError> {
        let key = PrivateKey::generate(algorithm)?;
        Ok(PemPair::new(self.issue(&key, template)?.to_pem(), key.to_pem()))
    }

    /// Signs a request with the caller's template: only the key is taken from the request.
    pub fn sign_request(&self, request: &CertificateRequest, template: &Template) -> Result<Certificate, PkiError> {
        self.issue_for(request.spki_der(), request.is_rsa(), template)
    }

    /// Signs a worker's request to `trustd`: a server certificate. The common name and the alternative names are kept;
    /// organizations (which would be roles) and any other usage or extension are dropped.
    pub fn sign_server_request(
        &self,
        request: &CertificateRequest,
        validity: Validity,
    ) -> Result<Certificate, PkiError> {
        let subject = Subject { common_name: request.subject().common_name.clone(), organizations: Vec::new() };
        let template = Template { subject, sans: request.sans().clone(), usage: Usage::Server, validity };
        self.sign_request(request, &template)
    }

    fn issue_for(&self, spki: &[u8], rsa: bool, template: &Template) -> Result<Certificate, PkiError> {
        let subject = template.subject.to_der()?;
        let issuer_key_id =
            self.certificate.subject_key_id().map_or_else(|| key_id(self.key.spki_der()), <[u8]>::to_vec);
        // digitalSignature; RSA keys also take keyEncipherment, for TLS 1.2 peers that use it
        let key_usage: &[u8] = if rsa { &[0x03, 0x02, 0x05, 0xa0] } else { &[0x03, 0x02, 0x07, 0x80] };
        let mut extensions = vec![
            extension(BASIC_CONSTRAINTS, true, &der::sequence(&[])),
            extension(KEY_USAGE, true, key_usage),
            extension(EXTENDED_KEY_USAGE, false, &usages(template.usage)),
            extension(SUBJECT_KEY_ID, false, &der::octet_string(&key_id(spki))),
            extension(AUTHORITY_KEY_ID, false, &der::sequence(&[&der::tlv(0x80, &issuer_key_id)])),
        ];
        if !template.sans.is_empty() {
            extensions.push(extension(SUBJECT_ALT_NAME, false, &template.sans.to_der()?));
        }
        let body = Body {
            issuer: self.certificate.subject_der(),
            subject: &subject,
            spki,
            validity: template.validity,
            extensions: &extensions,
        };
        Certificate::from_der(&body.sign(&self.key)?)
    }
}

const SUBJECT_KEY_ID: &[u8] = &[0x55, 0x1d, 0x0e];
const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
const AUTHORITY_KEY_ID: &[u8] = &[0x55, 0x1d, 0x23];
const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25];

struct Body<'a> {
    issuer: &'a [u8],
    subject: &'a [u8],
    spki: &'a [u8],
    validity: Validity,
    extensions: &'a [Vec<u8>],
}

impl Body<'_> {
    fn sign(&self, key: &PrivateKey) -> Result<Vec<u8>, PkiError> {
        let mut serial = [0; 16];
        aws_lc_rs::rand::fill(&mut serial).map_err(|_| PkiError::Generate { what: "a serial number" })?;
        serial[0] = serial[0] & 0x7f | 0x40;
        let algorithm = key.signature_algorithm();
        let validity = der::sequence(&[&time(self.validity.not_before)?, &time(self.validity.not_after)?]);
        let body = der::sequence(&[
            &der::explicit(0, &der::unsigned(&[2])),
            &der::unsigned(&serial),
            &algorithm,
            self.issuer,
            &validity,
            self.subject,
            self.spki,
            &der::explicit(3, &der::tlv(der::SEQUENCE, &self.extensions.concat())),
        ]);
        let signature = key.sign(&body)?;
        Ok(der::sequence(&[&body, &algorithm, &der::bit_string(&signature)]))
    }
}

fn time(at: SystemTime) -> Result<Vec<u8>, PkiError> {
    let seconds = match at.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => i128::from(after.as_secs()),
        Err(before) => -i128::from(before.duration().as_secs()),
    };
    // The conversion itself panics after the year 9999.
    let date = i64::try_from(seconds).ok().and_then(|s| time::OffsetDateTime::from_unix_timestamp(s).ok());
    date.and_then(der::time).ok_or_else(|| PkiError::Time { time: format!("{seconds} s after 1970") })
}

fn usages(usage: Usage) -> Vec<u8> {
    let server = der::oid(&[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01]);
    let client = der::oid(&[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02]);
    match usage {
        Usage::Server => der::sequence(&[&server]),
        Usage::Client => der::sequence(&[&client]),
        Usage::Peer => der::sequence(&[&server, &client]),
    }
}

/// The usual key identifier: SHA-1 over the public key's bits (RFC 5280, 4.2.1.2). An identifier, not a protection.
fn key_id(spki: &[u8]) -> Vec<u8> {
    let bits = der::read(spki)
        .and_then(|(_, content, _)| der::read(content))
        .and_then(|(_, _, rest)| der::read(rest))
        .map_or(spki, |(_, bits, _)| bits.get(1..).unwrap_or(bits));
    digest(&SHA1_FOR_LEGACY_USE_ONLY, bits).as_ref().to_vec()
}

#[cfg(test)]
mod tests;
