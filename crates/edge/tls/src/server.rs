//! Configurations of servers: TLS 1.3 and HTTP/2, with or without certificates of clients.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;

use crate::identity::{Identity, IdentityError, Roots};

/// What a server asks of its clients.
#[derive(Debug, Clone)]
pub enum ClientAuth {
    /// Nothing.
    None,
    /// A certificate for client use that one of these authorities signed.
    Required(Roots),
}

/// TLS 1.3 with HTTP/2 for a server that shows `identity`.
///
/// # Errors
/// The key does not fit the certificate, or the authorities cannot be used.
pub fn server_config(identity: Identity, clients: &ClientAuth) -> Result<ServerConfig, IdentityError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(IdentityError::Tls)?;
    let builder = match clients {
        ClientAuth::None => builder.with_no_client_auth(),
        ClientAuth::Required(roots) => builder.with_client_cert_verifier(
            WebPkiClientVerifier::builder_with_provider(roots.0.clone(), provider)
                .build()
                .map_err(IdentityError::Verifier)?,
        ),
    };
    let mut config = builder.with_single_cert(identity.chain, identity.key).map_err(IdentityError::Tls)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}
