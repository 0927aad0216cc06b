//! The error type of this crate.

/// A failure with a key, a certificate or a bundle.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("generating {what}")]
    Generate { what: &'static str },
    #[error("parsing PEM: {reason}")]
    Pem { reason: &'static str },
    #[error("no {what} in the PEM text")]
    Missing { what: &'static str },
    #[error("parsing private key: {reason}")]
    Key { reason: &'static str },
    #[error("parsing certificate: {reason}")]
    Certificate { reason: String },
    #[error("parsing certificate signing request: {reason}")]
    Request { reason: String },
    #[error("signature of the certificate signing request does not match its key")]
    RequestSignature,
    #[error("private key does not belong to the certificate of {subject}")]
    KeyMismatch { subject: String },
    #[error("certificate of {subject} is not a certificate authority")]
    NotAuthority { subject: String },
    #[error("signing {what}")]
    Sign { what: &'static str },
    #[error("time {time} cannot be written into a certificate")]
    Time { time: String },
    #[error("name {name:?} cannot be written into a certificate")]
    Name { name: String },
    #[error("a common name has at most 64 characters, this one has {length}")]
    LongName { length: usize },
    #[error("reading the secrets bundle")]
    ReadBundle(#[source] yaml::ReadError),
    #[error("secrets bundle: {field}: {reason}")]
    Bundle { field: &'static str, reason: String },
}
