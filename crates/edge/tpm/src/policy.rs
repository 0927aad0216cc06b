//! What has to hold where a key is given back, as the digest that the TPM computes of it (part 3, 23). Pure.

use crate::codes::{ALG_SHA256, POLICY_AUTHORIZE, POLICY_PCR};
use crate::digest::{DIGEST, Digest, sha256};
use crate::wire::Writer;

/// Nothing has to hold.
pub(crate) const EMPTY: Digest = [0; DIGEST];
/// State of Secure Boot: its variables, and who signed what was started.
pub(crate) const SECURE_BOOT: u32 = 7;
/// The UKI and the phases of its start.
pub(crate) const SYSTEM: u32 = 11;

/// One register of the SHA-256 bank (`TPML_PCR_SELECTION`).
pub(crate) fn selection(pcr: u32) -> Vec<u8> {
    let bits = 1_u32.checked_shl(pcr).unwrap_or(0).to_le_bytes();
    Writer::default().u32(1).u16(ALG_SHA256).u8(3).raw(&bits[..3]).bytes()
}

/// After `PolicyPCR` with one register.
pub(crate) fn with_pcr(before: &Digest, pcr: u32, value: &Digest) -> Digest {
    sha256(&[before, &POLICY_PCR.code.to_be_bytes(), &selection(pcr), &sha256(&[value])])
}

/// After `PolicyAuthorize` by a key with this name, without a reference.
pub(crate) fn authorized(key_name: &[u8]) -> Digest {
    sha256(&[&sha256(&[&EMPTY, &POLICY_AUTHORIZE.code.to_be_bytes(), key_name])])
}

/// Whether a register was extended by anybody.
pub(crate) fn is_measured(value: &Digest) -> bool {
    *value != EMPTY && *value != [0xff; DIGEST]
}
