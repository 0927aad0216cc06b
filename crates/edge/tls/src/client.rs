//! Configurations of clients: HTTP/2 over TLS 1.3, servers verified against authorities that are given, or, for a node in
//! maintenance mode that has no authority yet, against fingerprints or not at all.

use std::sync::Arc;

use rustls::{ClientConfig, SupportedProtocolVersion};

use crate::fingerprint::Fingerprint;
use crate::identity::{Identity, IdentityError, Roots};
use crate::pinned::{Pinned, Servers};

const TLS13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];
const TLS12_AND_13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];

/// What a configuration is made from. The default of versions is TLS 1.3 alone: our own servers speak nothing else.
#[derive(Debug, Clone)]
pub struct ClientTls {
    trust: Trust,
    identity: Option<Identity>,
    versions: &'static [&'static SupportedProtocolVersion],
}

#[derive(Debug, Clone)]
enum Trust {
    Roots(Roots),
    Fingerprints(Vec<Fingerprint>),
}

impl ClientTls {
    /// For servers with a certificate of `roots`, for the name that is dialled.
    #[must_use]
    pub const fn trusting(roots: Roots) -> Self {
        Self { trust: Trust::Roots(roots), identity: None, versions: TLS13 }
    }

    /// For servers with one of these fingerprints; for any server when there are none. An identity is shown to servers in
    /// maintenance mode alone.
    #[must_use]
    pub const fn pinned(fingerprints: Vec<Fingerprint>) -> Self {
        Self { trust: Trust::Fingerprints(fingerprints), identity: None, versions: TLS13 }
    }

    /// Shows `identity` to servers that ask.
    #[must_use]
    pub fn with_identity(self, identity: Option<Identity>) -> Self {
        Self { identity, ..self }
    }

    /// Speaks TLS 1.2 too, for services of others.
    #[must_use]
    pub fn with_tls12(self) -> Self {
        Self { versions: TLS12_AND_13, ..self }
    }

    /// The configuration.
    ///
    /// # Errors
    /// The key does not fit the certificate.
    pub fn build(self) -> Result<ClientConfig, rustls::Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone()).with_protocol_versions(self.versions)?;
        let mut config = match self.trust {
            Trust::Roots(roots) => {
                let builder = builder.with_root_certificates(roots.0);
                match self.identity {
                    Some(own) => builder.with_client_auth_cert(own.chain, own.key)?,
                    None => builder.with_no_client_auth(),
                }
            }
            Trust::Fingerprints(accepted) => {
                let servers = if self.identity.is_some() { Servers::InMaintenance } else { Servers::Any };
                let pinned = Arc::new(Pinned::new(accepted, provider, servers));
                let builder = builder.dangerous().with_custom_certificate_verifier(pinned);
                match self.identity {
                    Some(own) => builder.with_client_auth_cert(own.chain, own.key)?,
                    None => builder.with_no_client_auth(),
                }
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }
}

/// The usual configuration: TLS 1.3, servers of `roots`, `identity` if there is one.
///
/// # Errors
/// The key does not fit the certificate.
pub fn client_config(identity: Option<Identity>, roots: &Roots) -> Result<ClientConfig, IdentityError> {
    ClientTls::trusting(roots.clone()).with_identity(identity).build().map_err(IdentityError::Tls)
}
