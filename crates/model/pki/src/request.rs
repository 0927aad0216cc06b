//! Certificate signing requests.

use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer as _;

use crate::certificate::{alternative_names, subject};
use crate::der;
use crate::error::PkiError;
use crate::extension::{SUBJECT_ALT_NAME, extension};
use crate::key::PrivateKey;
use crate::names::{Sans, Subject};
use crate::pem;

/// A signing request with a verified signature. Its content is a request, not a decision: see [`crate::Authority`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateRequest {
    der: Vec<u8>,
    subject: Subject,
    sans: Sans,
    spki: Vec<u8>,
    rsa: bool,
}

impl CertificateRequest {
    /// Creates a request for a key, signed with it.
    pub fn create(key: &PrivateKey, subject: &Subject, sans: &Sans) -> Result<Self, PkiError> {
        let attributes = if sans.is_empty() {
            der::explicit(0, &[])
        } else {
            let extensions = der::sequence(&[&extension(SUBJECT_ALT_NAME, false, &sans.to_der()?)]);
            // extensionRequest, PKCS#9 1.2.840.113549.1.9.14
            let kind = der::oid(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x0e]);
            der::explicit(0, &der::sequence(&[&kind, &der::set(&[&extensions])]))
        };
        let body = der::sequence(&[&der::unsigned(&[0]), &subject.to_der()?, key.spki_der(), &attributes]);
        let signature = key.sign(&body)?;
        let bytes = der::sequence(&[&body, &key.signature_algorithm(), &der::bit_string(&signature)]);
        Ok(Self {
            der: bytes,
            subject: subject.clone(),
            sans: sans.clone(),
            spki: key.spki_der().to_vec(),
            rsa: key.is_rsa(),
        })
    }

    /// Parses a request and verifies its signature with its own key.
    pub fn from_pem(text: &str) -> Result<Self, PkiError> {
        let blocks = pem::decode(text)?;
        let block = blocks.iter().find(|b| b.label.ends_with("CERTIFICATE REQUEST"));
        Self::from_der(&block.ok_or(PkiError::Missing { what: "certificate signing request" })?.der)
    }

    /// Like [`from_pem`](Self::from_pem), from DER bytes.
    pub fn from_der(bytes: &[u8]) -> Result<Self, PkiError> {
        let failed = |reason: String| PkiError::Request { reason };
        let (rest, request) = X509CertificationRequest::from_der(bytes).map_err(|e| failed(e.to_string()))?;
        if !rest.is_empty() {
            return Err(failed("bytes after the end".to_owned()));
        }
        if !is_canonical(bytes) {
            return Err(failed("not in the distinguished encoding (DER)".to_owned()));
        }
        request.verify_signature().map_err(|_| PkiError::RequestSignature)?;
        let info = &request.certification_request_info;
        let mut sans = Sans::default();
        for wish in request.requested_extensions().into_iter().flatten() {
            if let ParsedExtension::SubjectAlternativeName(names) = wish {
                sans = alternative_names(&names.general_names);
            }
        }
        let rsa = info.subject_pki.parsed().is_ok_and(|key| matches!(key, x509_parser::public_key::PublicKey::RSA(_)));
        Ok(Self {
            der: bytes.to_vec(),
            subject: subject(&info.subject),
            sans,
            spki: info.subject_pki.raw.to_vec(),
            rsa,
        })
    }

    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    #[must_use]
    pub fn to_pem(&self) -> String {
        pem::encode("CERTIFICATE REQUEST", &self.der)
    }

    #[must_use]
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    #[must_use]
    pub fn sans(&self) -> &Sans {
        &self.sans
    }

    #[must_use]
    pub fn spki_der(&self) -> &[u8] {
        &self.spki
    }

    pub(crate) fn is_rsa(&self) -> bool {
        self.rsa
    }
}

/// Whether the part of a request that the signature does not cover is DER: the outer sequence, the algorithm and the
/// signature's bit string. The parser is lenient there (it accepts other tag classes and long lengths), and a request
/// must have exactly one encoding.
fn is_canonical(bytes: &[u8]) -> bool {
    let parts = || {
        let (_, content, _) = der::read(bytes)?;
        let (_, body, rest) = der::read(content)?;
        let (_, algorithm, rest) = der::read(rest)?;
        let (_, signature, rest) = der::read(rest)?;
        let (_, id, parameters) = der::read(algorithm)?;
        Some((body, id, parameters, signature.split_first()?.1, rest))
    };
    parts().is_some_and(|(body, id, parameters, signature, rest)| {
        let algorithm = der::sequence(&[&der::oid(id), parameters]);
        let body = der::sequence(&[body]);
        rest.is_empty() && der::sequence(&[&body, &algorithm, &der::bit_string(signature)]) == bytes
    })
}
