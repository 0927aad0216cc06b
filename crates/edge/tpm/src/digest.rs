//! SHA-256, the one hash that is used with a TPM here.

use aws_lc_rs::digest;

/// Bytes of a digest.
pub(crate) const DIGEST: usize = 32;

pub(crate) type Digest = [u8; DIGEST];

/// Of all parts, one behind the other.
pub(crate) fn sha256(parts: &[&[u8]]) -> Digest {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part);
    }
    let mut out = [0; DIGEST];
    out.copy_from_slice(context.finish().as_ref());
    out
}
