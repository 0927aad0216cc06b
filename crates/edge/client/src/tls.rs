//! TLS of the client: servers verified against one pinned authority, or, for a node in maintenance mode that has no authority
//! yet, against fingerprints or not at all.

use ::tls::{ClientTls, Fingerprint, Identity, Roots};
use rustls::ClientConfig;

use crate::credentials::Credentials;
use crate::error::ConnectError;

/// Requirements for a server certificate.
#[derive(Debug, Clone)]
pub enum ServerTrust {
    /// Signed by the authority of these credentials, for the name that was dialled.
    Authority(Credentials),
    /// Maintenance mode: one of these fingerprints, or any certificate when the list is empty. A node that belongs to a
    /// cluster asks for the certificate of `credentials`; its authority plays no part.
    Fingerprints { accepted: Vec<Fingerprint>, credentials: Option<Credentials> },
}

/// The configuration for a kind of trust.
pub(crate) fn client_config(trust: &ServerTrust) -> Result<ClientConfig, ConnectError> {
    let (tls, credentials) = match trust {
        ServerTrust::Authority(credentials) => {
            let roots = Roots::new(credentials.ca.iter().cloned()).map_err(ConnectError::Authority)?;
            (ClientTls::trusting(roots), Some(credentials))
        }
        ServerTrust::Fingerprints { accepted, credentials } => {
            (ClientTls::pinned(accepted.clone()), credentials.as_ref())
        }
    };
    let identity = credentials.and_then(|credentials| credentials.identity.as_ref());
    let Some(own) = identity else { return tls.build().map_err(ConnectError::Tls) };
    let identity = Identity::new(own.chain.clone(), own.key.clone_key());
    tls.with_identity(Some(identity)).build().map_err(ConnectError::Identity)
}
