//! Certificate parsing.
//!
//! A [`Certificate`] is parsed once and keeps its DER bytes. Chain verification is left to the TLS stack;
//! [`Certificate::is_signed_by`] verifies one signature.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate, X509Name};

use crate::error::PkiError;
use crate::names::{Sans, Subject};
use crate::pem;
use crate::role::RoleSet;

/// A parsed certificate.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    der: Vec<u8>,
    subject: Subject,
    issuer: Subject,
    subject_der: Vec<u8>,
    issuer_der: Vec<u8>,
    spki_der: Vec<u8>,
    subject_key_id: Option<Vec<u8>>,
    sans: Sans,
    serial: Vec<u8>,
    not_before: SystemTime,
    not_after: SystemTime,
    is_ca: bool,
    server_auth: bool,
    client_auth: bool,
}

impl Certificate {
    pub fn from_der(bytes: &[u8]) -> Result<Self, PkiError> {
        let failed = |reason: String| PkiError::Certificate { reason };
        let (rest, x509) = X509Certificate::from_der(bytes).map_err(|e| failed(e.to_string()))?;
        if !rest.is_empty() {
            return Err(failed("bytes after the end".to_owned()));
        }
        let is_ca = x509.basic_constraints().map_err(|e| failed(e.to_string()))?.is_some_and(|c| c.value.ca);
        let usages = x509.extended_key_usage().map_err(|e| failed(e.to_string()))?;
        let sans = x509.subject_alternative_name().map_err(|e| failed(e.to_string()))?;
        let validity = x509.validity();
        Ok(Self {
            der: bytes.to_vec(),
            subject: subject(x509.subject()),
            issuer: subject(x509.issuer()),
            subject_der: x509.subject().as_raw().to_vec(),
            issuer_der: x509.issuer().as_raw().to_vec(),
            spki_der: x509.public_key().raw.to_vec(),
            subject_key_id: subject_key_id(&x509),
            sans: sans.map(|s| alternative_names(&s.value.general_names)).unwrap_or_default(),
            serial: x509.raw_serial().to_vec(),
            not_before: system_time(validity.not_before.timestamp()),
            not_after: system_time(validity.not_after.timestamp()),
            is_ca,
            server_auth: usages.as_ref().is_some_and(|u| u.value.server_auth || u.value.any),
            client_auth: usages.as_ref().is_some_and(|u| u.value.client_auth || u.value.any),
        })
    }

    /// The first certificate of a PEM text.
    pub fn from_pem(text: &str) -> Result<Self, PkiError> {
        Self::chain_from_pem(text)?.into_iter().next().ok_or(PkiError::Missing { what: "certificate" })
    }

    /// All certificates of a PEM text, in order. Other blocks are skipped; a text without certificates is an error.
    pub fn chain_from_pem(text: &str) -> Result<Vec<Self>, PkiError> {
        let blocks = pem::decode(text)?;
        let chain: Vec<_> = blocks
            .iter()
            .filter(|b| b.label == "CERTIFICATE")
            .map(|b| Self::from_der(&b.der))
            .collect::<Result<_, _>>()?;
        if chain.is_empty() { Err(PkiError::Missing { what: "certificate" }) } else { Ok(chain) }
    }

    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Whether the key of `authority` made this certificate's signature. Names, validity and what the authority may sign are
    /// not looked at: two authorities of the same name are told apart by this alone.
    #[must_use]
    pub fn is_signed_by(&self, authority: &Self) -> bool {
        let Ok((_, x509)) = X509Certificate::from_der(&self.der) else { return false };
        let Ok((_, authority)) = X509Certificate::from_der(&authority.der) else { return false };
        x509.verify_signature(Some(authority.public_key())).is_ok()
    }

    #[must_use]
    pub fn to_pem(&self) -> String {
        pem::encode("CERTIFICATE", &self.der)
    }

    #[must_use]
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    #[must_use]
    pub fn issuer(&self) -> &Subject {
        &self.issuer
    }

    /// The roles in the subject's organizations; other organizations are skipped.
    #[must_use]
    pub fn roles(&self) -> RoleSet {
        RoleSet::parse(&self.subject.organizations)
    }

    #[must_use]
    pub fn sans(&self) -> &Sans {
        &self.sans
    }

    #[must_use]
    pub fn not_before(&self) -> SystemTime {
        self.not_before
    }

    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// The time to renew the certificate: half of its lifetime.
    #[must_use]
    pub fn renew_at(&self) -> SystemTime {
        let lifetime = self.not_after.duration_since(self.not_before).unwrap_or(Duration::ZERO);
        self.not_before + lifetime / 2
    }

    #[must_use]
    pub fn is_ca(&self) -> bool {
        self.is_ca
    }

    /// Whether it is valid for servers.
    #[must_use]
    pub fn allows_server(&self) -> bool {
        self.server_auth
    }

    /// Whether it is valid for clients.
    #[must_use]
    pub fn allows_client(&self) -> bool {
        self.client_auth
    }

    /// Big-endian serial number.
    #[must_use]
    pub fn serial(&self) -> &[u8] {
        &self.serial
    }

    /// The public key as SubjectPublicKeyInfo.
    #[must_use]
    pub fn spki_der(&self) -> &[u8] {
        &self.spki_der
    }

    /// The value of `--cert-fingerprint`: standard base64 of the SHA-256 of the SubjectPublicKeyInfo. It identifies the
    /// key and survives renewal of the certificate with the same key.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        spki_fingerprint(&self.spki_der)
    }

    pub(crate) fn subject_der(&self) -> &[u8] {
        &self.subject_der
    }

    pub(crate) fn issuer_der(&self) -> &[u8] {
        &self.issuer_der
    }

    pub(crate) fn subject_key_id(&self) -> Option<&[u8]> {
        self.subject_key_id.as_deref()
    }
}

/// The fingerprint of a public key; see [`Certificate::fingerprint`].
#[must_use]
pub fn spki_fingerprint(spki_der: &[u8]) -> String {
    STANDARD.encode(digest(&SHA256, spki_der))
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificate")
            .field("subject", &self.subject.to_string())
            .field("issuer", &self.issuer.to_string())
            .field("sans", &self.sans)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

pub(crate) fn subject(name: &X509Name<'_>) -> Subject {
    let text = |value: &x509_parser::prelude::AttributeTypeAndValue<'_>| value.as_str().ok().map(str::to_owned);
    Subject {
        common_name: name.iter_common_name().find_map(text),
        organizations: name.iter_organization().filter_map(text).collect(),
    }
}

pub(crate) fn alternative_names(names: &[GeneralName<'_>]) -> Sans {
    let mut sans = Sans::default();
    for name in names {
        match name {
            GeneralName::DNSName(dns) => sans.dns.push((*dns).to_owned()),
            GeneralName::IPAddress(bytes) => sans.ips.extend(address(bytes)),
            _ => {}
        }
    }
    sans
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Some(octets.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

fn subject_key_id(x509: &X509Certificate<'_>) -> Option<Vec<u8>> {
    x509.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        x509_parser::extensions::ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
        _ => None,
    })
}

fn system_time(seconds: i64) -> SystemTime {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 { SystemTime::UNIX_EPOCH - distance } else { SystemTime::UNIX_EPOCH + distance }
}
