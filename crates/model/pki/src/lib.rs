//! Keys, certificate authorities, certificates, signing requests, roles, the secrets bundle, and the variables of Secure Boot.
//!
//! All functions are pure except for random bytes: they read neither files nor clocks. Times are passed in as
//! [`Validity`], and a caller that renews certificates compares [`Certificate::not_after`] with its own clock.
//!
//! Private keys are written in the encoding of machine configurations (`ED25519 PRIVATE KEY`, `EC PRIVATE KEY`, `RSA
//! PRIVATE KEY`) and read in that encoding and in plain PKCS#8. A TLS stack that knows only the standard labels takes
//! [`PrivateKey::pkcs8_der`] and [`Certificate::der`].

pub mod authority;
pub mod certificate;
mod der;
mod error;
mod extension;
pub mod key;
pub mod names;
pub mod pem;
pub mod request;
pub mod role;
pub mod secrets;
pub mod secureboot;
pub mod token;

pub use authority::{Authority, CaProfile, Template, Usage, Validity};
pub use certificate::Certificate;
pub use error::PkiError;
pub use key::{Algorithm, PrivateKey};
pub use names::{Sans, Subject};
pub use pem::PemPair;
pub use request::CertificateRequest;
pub use role::{Role, RoleSet};
pub use secrets::{KubernetesPki, SecretsBundle, SecretsOptions};

/// The name in the certificate of a node in maintenance mode (Talos 1.7), which nobody signed. It tells such a node from one
/// that has its configuration.
pub const MAINTENANCE_NAME: &str = "maintenance-service.talos.dev";

#[cfg(test)]
mod fuzz_tests;
