//! Numbers of the TPM 2.0 library specification (part 2), and what the codes of refusals mean.

use std::fmt;

/// Commands, as named by the specification.
pub(crate) struct Command {
    pub(crate) code: u32,
    pub(crate) name: &'static str,
}

macro_rules! commands {
    ($($constant:ident = $code:literal, $name:literal;)*) => {
        $(pub(crate) const $constant: Command = Command { code: $code, name: $name };)*
    };
}

commands! {
    CREATE_PRIMARY = 0x131, "CreatePrimary";
    CREATE = 0x153, "Create";
    LOAD = 0x157, "Load";
    UNSEAL = 0x15e, "Unseal";
    FLUSH_CONTEXT = 0x165, "FlushContext";
    LOAD_EXTERNAL = 0x167, "LoadExternal";
    POLICY_AUTHORIZE = 0x16a, "PolicyAuthorize";
    START_AUTH_SESSION = 0x176, "StartAuthSession";
    VERIFY_SIGNATURE = 0x177, "VerifySignature";
    PCR_READ = 0x17e, "PCR_Read";
    POLICY_PCR = 0x17f, "PolicyPCR";
    PCR_EXTEND = 0x182, "PCR_Extend";
}

pub(crate) const RH_OWNER: u32 = 0x4000_0001;
pub(crate) const RH_NULL: u32 = 0x4000_0007;
/// Authorization by an (empty) password.
pub(crate) const RS_PW: u32 = 0x4000_0009;

pub(crate) const ALG_RSA: u16 = 0x0001;
pub(crate) const ALG_AES: u16 = 0x0006;
pub(crate) const ALG_KEYED_HASH: u16 = 0x0008;
pub(crate) const ALG_SHA256: u16 = 0x000b;
pub(crate) const ALG_NULL: u16 = 0x0010;
pub(crate) const ALG_RSASSA: u16 = 0x0014;
pub(crate) const ALG_ECC: u16 = 0x0023;
pub(crate) const ALG_CFB: u16 = 0x0043;
pub(crate) const CURVE_P256: u16 = 0x0003;

pub(crate) const FIXED_TPM: u32 = 1 << 1;
pub(crate) const FIXED_PARENT: u32 = 1 << 4;
pub(crate) const SENSITIVE_DATA_ORIGIN: u32 = 1 << 5;
pub(crate) const USER_WITH_AUTH: u32 = 1 << 6;
pub(crate) const NO_DA: u32 = 1 << 10;
pub(crate) const RESTRICTED: u32 = 1 << 16;
pub(crate) const DECRYPT: u32 = 1 << 17;
pub(crate) const SIGN: u32 = 1 << 18;

pub(crate) const SESSION_HMAC: u8 = 0;
pub(crate) const SESSION_POLICY: u8 = 1;

/// A PCR was extended within the session.
pub(crate) const RC_PCR_CHANGED: u32 = 0x128;
/// The policy was not met.
pub(crate) const RC_POLICY_FAIL: u32 = 0x09d;
/// The private part belongs to another parent, or was changed.
pub(crate) const RC_INTEGRITY: u32 = 0x09f;
/// A signature is not one of its key.
pub(crate) const RC_SIGNATURE: u32 = 0x09b;

/// Without the number of the parameter, handle or session that a code complains of.
pub(crate) const fn plain(code: u32) -> u32 {
    const FORMAT_ONE: u32 = 1 << 7;
    if code & FORMAT_ONE != 0 { code & 0xbf } else { code }
}

/// A code, with the remedy where there is one.
pub(crate) struct Explained(pub(crate) u32);

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let meaning = match plain(self.0) {
            0x0a2 | 0x08e => "its owner hierarchy has a password: clear the TPM in the firmware's setup",
            0x085 => "the hierarchy of its owner is switched off in the firmware's setup",
            0x921 => "it is locked after wrong attempts: wait, or clear it in the firmware's setup",
            0x100 => "the firmware has not started it",
            0x101 => "it has failed, and needs the machine to be switched off",
            0x902 | 0x903 => "it has no memory left: other programs keep keys in it",
            RC_POLICY_FAIL => "the policy is not met",
            _ => "",
        };
        let code = self.0;
        if meaning.is_empty() { write!(f, "code {code:#05x}") } else { write!(f, "{meaning} (code {code:#05x})") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_told_with_their_meaning_whatever_part_they_complain_of() {
        assert_eq!(plain(0x99d), RC_POLICY_FAIL);
        assert_eq!(plain(0x1df), RC_INTEGRITY);
        assert_eq!(plain(0x921), 0x921);
        assert!(Explained(0x9a2).to_string().contains("clear the TPM"));
        assert_eq!(Explained(0x1d5).to_string(), "code 0x1d5");
    }
}
