//! Who may read which resources.

use resources::Sensitivity;
use state::{Kind, Store};
use tonic::Status;
use tonic::metadata::MetadataMap;

/// Metadata: a role of the client, as `apid` says it; repeated.
const ROLE: &str = "talos-role";

/// The rule of a state server.
#[derive(Debug, Clone, Copy)]
pub enum Access {
    /// By the roles that `apid` passes on: what is sensitive is for `os:admin`.
    ByRole,
    /// Only these types, as (namespace, type), sensitive or not, whoever asks: for the socket of one process.
    Only(&'static [(&'static str, &'static str)]),
}

impl Access {
    /// Whether a caller may read a kind.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` with what is missing.
    pub(crate) fn check(self, store: &Store, kind: &Kind, metadata: &MetadataMap) -> Result<(), Status> {
        match self {
            Self::ByRole if sensitivity(store, kind) == Sensitivity::NonSensitive => Ok(()),
            Self::ByRole if is_admin(metadata) => Ok(()),
            Self::ByRole => Err(denied(kind, "it is sensitive and needs role os:admin")),
            Self::Only(types) if types.contains(&(&kind.namespace, &kind.type_name)) => Ok(()),
            Self::Only(_) => Err(denied(kind, "this socket does not show it")),
        }
    }
}

fn denied(kind: &Kind, why: &str) -> Status {
    Status::permission_denied(format!("reading {kind} is not allowed: {why}"))
}

/// A type that nobody defined is taken for sensitive.
fn sensitivity(store: &Store, kind: &Kind) -> Sensitivity {
    store.definition(&kind.type_name).map_or(Sensitivity::Sensitive, |definition| definition.sensitivity)
}

/// Whether `apid` says that the caller is an administrator. The door of maintenance mode never says so.
pub(crate) fn is_admin(metadata: &MetadataMap) -> bool {
    metadata.get_all(ROLE).iter().any(|role| role == pki::Role::Admin.as_str())
}
