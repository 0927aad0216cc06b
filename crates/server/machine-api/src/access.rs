//! Read access to resources by role.

use resources::Sensitivity;
use state::{Kind, Store};
use tonic::Status;
use tonic::metadata::MetadataMap;

/// Metadata: a role of the client, set by `apid`; repeated.
const ROLE: &str = "talos-role";
/// How much of a name from a request is quoted in an answer.
const QUOTED: usize = 128;

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
    /// `NOT_FOUND` for a type or a namespace that is not registered, `PERMISSION_DENIED` with what is missing.
    pub(crate) fn check(self, store: &Store, kind: &Kind, metadata: &MetadataMap) -> Result<(), Status> {
        match self {
            Self::ByRole => {
                let definition = store.definition(&kind.type_name).ok_or_else(|| unknown("type", &kind.type_name))?;
                if definition.sensitivity == Sensitivity::Sensitive && !is_admin(metadata) {
                    return Err(denied(kind, "it is sensitive and needs role os:admin"));
                }
                if !store.has_namespace(&kind.namespace) {
                    return Err(unknown("namespace", &kind.namespace));
                }
                Ok(())
            }
            Self::Only(types) if types.contains(&(&kind.namespace, &kind.type_name)) => Ok(()),
            Self::Only(_) => Err(denied(kind, "this socket does not show it")),
        }
    }
}

/// A name from a request, truncated for quoting in a response.
pub(crate) fn quoted(name: &str) -> String {
    if name.len() <= QUOTED {
        return name.to_owned();
    }
    let end = (0..=QUOTED).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
    format!("{}...", &name[..end])
}

fn unknown(what: &str, name: &str) -> Status {
    Status::not_found(format!("resource {what} {:?} is not registered", quoted(name)))
}

fn denied(kind: &Kind, why: &str) -> Status {
    let Kind { namespace, type_name } = kind;
    Status::permission_denied(format!("not authorized: {}/{}: {why}", quoted(namespace), quoted(type_name)))
}

/// Whether `apid` reports the caller as an administrator. The maintenance proxy never does.
pub(crate) fn is_admin(metadata: &MetadataMap) -> bool {
    metadata.get_all(ROLE).iter().any(|role| role == pki::Role::Admin.as_str())
}

/// The answer to a method that maintenance mode does not serve to this caller, in the words of Talos 1.7.
pub(crate) fn not_in_maintenance_mode() -> tonic::Status {
    tonic::Status::unimplemented("API is not implemented in maintenance mode")
}

/// Whether the caller has no role at all: a client of maintenance mode.
pub(crate) fn has_no_role(metadata: &MetadataMap) -> bool {
    !metadata.contains_key(ROLE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quoted_is_short_and_whole_characters() {
        assert_eq!(quoted("eth0"), "eth0");
        assert_eq!(quoted(&"a".repeat(QUOTED)), "a".repeat(QUOTED));
        let long = format!("{}\u{e9}\u{e9}", "a".repeat(QUOTED - 1));
        assert_eq!(quoted(&long), format!("{}...", "a".repeat(QUOTED - 1)));
    }
}
