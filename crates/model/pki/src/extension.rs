//! Extensions of certificates and of signing requests (RFC 5280, 4.2).

use crate::der;

/// Alternative names.
pub(crate) const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];

/// An extension of a kind. DER leaves a default out, so that only critical ones say whether they are.
pub(crate) fn extension(kind: &[u8], critical: bool, content: &[u8]) -> Vec<u8> {
    let critical = if critical { der::boolean_true() } else { Vec::new() };
    der::sequence(&[&der::oid(kind), &critical, &der::octet_string(content)])
}
