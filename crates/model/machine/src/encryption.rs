//! Encrypted volumes: what is configured, how keys become passphrases, and which slots of a LUKS2 header have to change.
//!
//! Formats are those of Talos 1.7: either system opens what the other one made.

mod meta;
mod plan;

use std::collections::BTreeSet;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use stdx::Secret;

pub use meta::MetaError;
pub use plan::{Check, Plan, Step, plan};

/// LUKS2 has slots below this.
pub const SLOTS: u32 = 32;
/// The label of a LUKS2 that is being made: nothing was kept on it yet, and it may be made anew.
pub const UNFINISHED: &str = "unfinished";
/// The type of tokens of keys that a key service seals.
pub const KMS_TOKEN: &str = "sideroKMS";
/// The type of tokens of keys that a TPM seals.
pub const TPM_TOKEN: &str = "talos-tpm2";
/// The type of tokens of recovery keys. Ours: a slot with such a token is nobody's but the administrator's.
pub const RECOVERY_TOKEN: &str = "recovery-key";
/// The bank of registers that keys of a TPM are bound to.
const TPM_HASH: &str = "sha256";
/// The provider of all encrypted volumes.
pub const PROVIDER: &str = "luks2";
/// The cipher where none is configured.
const CIPHER: &str = "aes-xts-plain64";

/// An encrypted volume as it is configured. Keys are in the order of their slots.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Encryption {
    /// Empty for the default.
    pub cipher: String,
    /// In bits; 0 for the cipher's default.
    pub key_size: u32,
    /// Size of a sector; 0 for the tool's choice.
    pub block_size: u64,
    pub options: Vec<String>,
    keys: Vec<Key>,
}

/// A key of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    pub slot: u32,
    pub source: KeySource,
}

/// Where a passphrase comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    Static(Secret<String>),
    /// The machine's UUID.
    NodeId,
    /// A key service at this address seals it.
    Kms(String),
    /// The TPM seals it.
    Tpm,
}

impl KeySource {
    /// The name that the configuration has for it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Static(_) => "static",
            Self::NodeId => "nodeID",
            Self::Kms(_) => "kms",
            Self::Tpm => "tpm",
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slot {} ({})", self.slot, self.source.name())
    }
}

impl Encryption {
    /// The same with these keys; of several for a slot, the first counts.
    #[must_use]
    pub fn with_keys(mut self, mut keys: Vec<Key>) -> Self {
        keys.sort_by_key(|key| key.slot);
        keys.dedup_by_key(|key| key.slot);
        self.keys = keys;
        self
    }

    /// In the order of their slots.
    #[must_use]
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    #[must_use]
    pub fn cipher(&self) -> &str {
        if self.cipher.is_empty() { CIPHER } else { &self.cipher }
    }

    /// In bits.
    #[must_use]
    pub fn key_size(&self) -> u32 {
        match self.key_size {
            0 if self.cipher.starts_with("xchacha") => 256,
            0 => 512,
            size => size,
        }
    }

    /// Names of the keys' kinds, each once.
    #[must_use]
    pub fn providers(&self) -> Vec<String> {
        let names: BTreeSet<&str> = self.keys.iter().map(|key| key.source.name()).collect();
        names.into_iter().map(str::to_owned).collect()
    }
}

/// A UUID that is no secret to anybody, as firmware with nothing to say has it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the machine's UUID {0:?} is too regular for a key: one character makes more than half of it")]
pub struct WeakUuid(String);

/// The passphrase of a `nodeID` key of the volume `label`.
///
/// # Errors
/// [`WeakUuid`], also without a UUID.
pub fn node_passphrase(uuid: &str, label: &str) -> Result<Secret<String>, WeakUuid> {
    let length = uuid.chars().count();
    let most = uuid.chars().map(|one| uuid.chars().filter(|other| *other == one).count()).max();
    if most.is_none_or(|most| most * 2 > length) {
        return Err(WeakUuid(uuid.to_owned()));
    }
    Ok(Secret::new(format!("{uuid}{label}")))
}

/// The passphrase of a key that a service or a TPM seals.
#[must_use]
pub fn sealed_passphrase(key: &[u8]) -> Secret<String> {
    Secret::new(STANDARD.encode(key))
}

/// The token of a slot whose key a key service has sealed.
fn kms_token(sealed: &[u8]) -> String {
    json!({"type": KMS_TOKEN, "keyslots": [], "UserData": {"sealedData": STANDARD.encode(sealed)}}).to_string()
}

/// A key as a TPM has sealed it. Parts are as the TPM has them, each with its length in front (`TPM2B`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TpmSealed {
    pub private: Vec<u8>,
    pub public: Vec<u8>,
    /// `[11]` where signed measurements of a system have to hold beside PCR 7; `[7]` for that alone (ours).
    pub pcrs: Vec<u32>,
    /// The digest of the policy.
    pub policy: Vec<u8>,
    /// The name of the storage root key: of another TPM, or of a cleared one, it is another.
    pub key_name: Vec<u8>,
}

/// The token of a slot whose key a TPM has sealed.
fn tpm_token(slot: u32, sealed: &TpmSealed) -> String {
    let text = |bytes: &[u8]| STANDARD.encode(bytes);
    let data = json!({
        "keyslots": [slot],
        "sealed_blob_private": text(&sealed.private),
        "sealed_blob_public": text(&sealed.public),
        "pcrs": sealed.pcrs,
        "alg": TPM_HASH,
        "policy_hash": text(&sealed.policy),
        "key_name": text(&sealed.key_name),
    });
    json!({"type": TPM_TOKEN, "keyslots": [], "UserData": data}).to_string()
}

/// The token of a slot with a recovery key.
fn recovery_token(slot: u32) -> String {
    json!({"type": RECOVERY_TOKEN, "keyslots": [slot.to_string()]}).to_string()
}

/// A slot of a header, with what its token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Token {
    /// What the key service gave.
    Kms(Vec<u8>),
    Tpm(TpmSealed),
    Recovery,
    /// Somebody else's.
    Other,
}

/// The parts of a LUKS2 header that decisions need.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Header {
    /// Slots with a key.
    pub slots: BTreeSet<u32>,
    /// Tokens by their id, which is that of their slot.
    pub tokens: std::collections::BTreeMap<u32, Token>,
}

/// A header that makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    #[error("the metadata of the header cannot be read")]
    Json(#[from] serde_json::Error),
    #[error("{0:?} is no number of a slot or a token")]
    Number(String),
}

impl Header {
    /// From the JSON of the header.
    ///
    /// # Errors
    /// [`HeaderError`].
    pub fn parse(text: &str) -> Result<Self, HeaderError> {
        let root: Value = serde_json::from_str(text)?;
        let number = |text: &String| text.parse::<u32>().map_err(|_| HeaderError::Number(text.clone()));
        let members = |name: &str| root.get(name).and_then(Value::as_object);
        let slots = members("keyslots").into_iter().flatten().map(|(id, _)| number(id)).collect::<Result<_, _>>()?;
        let token = |(id, value): (&String, &Value)| Ok::<_, HeaderError>((number(id)?, Token::parse(value)));
        let tokens = members("tokens").into_iter().flatten().map(token).collect::<Result<_, _>>()?;
        Ok(Self { slots, tokens })
    }

    /// Whether a slot is an administrator's.
    #[must_use]
    pub fn is_recovery(&self, slot: u32) -> bool {
        self.tokens.get(&slot) == Some(&Token::Recovery)
    }

    /// What a key service has sealed, that of this slot first.
    pub fn sealed(&self, slot: u32) -> impl Iterator<Item = &[u8]> {
        self.own_first(slot)
            .filter_map(|token| if let Token::Kms(sealed) = token { Some(sealed.as_slice()) } else { None })
    }

    /// What a TPM has sealed, that of this slot first.
    pub fn sealed_by_tpm(&self, slot: u32) -> impl Iterator<Item = &TpmSealed> {
        self.own_first(slot).filter_map(|token| if let Token::Tpm(sealed) = token { Some(sealed) } else { None })
    }

    fn own_first(&self, slot: u32) -> impl Iterator<Item = &Token> {
        let own = self.tokens.get(&slot).into_iter();
        own.chain(self.tokens.iter().filter(move |(id, _)| **id != slot).map(|(_, token)| token))
    }
}

impl Token {
    /// The token for a slot; `None` for one of somebody else.
    #[must_use]
    pub fn to_json(&self, slot: u32) -> Option<String> {
        match self {
            Self::Kms(sealed) => Some(kms_token(sealed)),
            Self::Tpm(sealed) => Some(tpm_token(slot, sealed)),
            Self::Recovery => Some(recovery_token(slot)),
            Self::Other => None,
        }
    }

    fn parse(value: &Value) -> Self {
        match value.get("type").and_then(Value::as_str) {
            Some(KMS_TOKEN) => {
                let sealed = value.get("UserData").and_then(|data| data.get("sealedData")).and_then(Value::as_str);
                sealed.and_then(|text| STANDARD.decode(text).ok()).map_or(Self::Other, Self::Kms)
            }
            Some(TPM_TOKEN) => value.get("UserData").and_then(TpmSealed::parse).map_or(Self::Other, Self::Tpm),
            Some(RECOVERY_TOKEN) => Self::Recovery,
            _ => Self::Other,
        }
    }
}

impl TpmSealed {
    fn parse(data: &Value) -> Option<Self> {
        let bytes = |name: &str| STANDARD.decode(data.get(name)?.as_str()?).ok();
        let pcr = |value: &Value| value.as_u64().and_then(|pcr| u32::try_from(pcr).ok());
        if data.get("alg")?.as_str()? != TPM_HASH {
            return None;
        }
        Some(Self {
            private: bytes("sealed_blob_private")?,
            public: bytes("sealed_blob_public")?,
            pcrs: data.get("pcrs")?.as_array()?.iter().map(pcr).collect::<Option<_>>()?,
            policy: bytes("policy_hash")?,
            key_name: bytes("key_name")?,
        })
    }
}

#[cfg(test)]
mod tests;
