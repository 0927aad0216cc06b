//! The value of META that says how STATE is encrypted, where the configuration itself is on STATE.

use serde::{Deserialize, Serialize};
use stdx::Secret;

use super::{Encryption, Key, KeySource, PROVIDER};

/// A value that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MetaError {
    #[error("the encryption of STATE in META cannot be read")]
    Json(#[from] serde_json::Error),
    #[error("the encryption of STATE in META is {0:?}, not luks2")]
    Provider(String),
    #[error("key {0} of STATE in META is of no kind that is known")]
    Key(u32),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Form {
    encryption_provider: String,
    encryption_keys: Option<Vec<KeyForm>>,
    #[serde(default)]
    encryption_cipher: String,
    #[serde(default)]
    encryption_key_size: u32,
    #[serde(default)]
    encryption_block_size: u64,
    #[serde(default)]
    encryption_perf_options: Option<Vec<String>>,
}

#[derive(Serialize, Deserialize)]
struct KeyForm {
    #[serde(rename = "KeyStatic", default)]
    text: Option<StaticForm>,
    #[serde(rename = "KeyNodeID", default)]
    node_id: Option<Nothing>,
    #[serde(rename = "KeyKMS", default)]
    kms: Option<KmsForm>,
    #[serde(rename = "KeySlot", default)]
    slot: u32,
    #[serde(rename = "KeyTPM", default)]
    tpm: Option<Nothing>,
}

#[derive(Serialize, Deserialize)]
struct StaticForm {
    #[serde(rename = "KeyData", with = "stdx::secret::exposed")]
    passphrase: Secret<String>,
}

#[derive(Serialize, Deserialize)]
struct KmsForm {
    #[serde(rename = "KMSEndpoint")]
    endpoint: String,
}

#[derive(Serialize, Deserialize)]
struct Nothing {}

impl Encryption {
    /// The value of META.
    ///
    /// # Errors
    /// None that are known: texts and numbers have a form in JSON.
    pub fn to_meta(&self) -> Result<Secret<String>, MetaError> {
        let keys = self.keys.iter().map(|key| {
            let mut form = KeyForm { text: None, node_id: None, kms: None, slot: key.slot, tpm: None };
            match &key.source {
                KeySource::Static(passphrase) => form.text = Some(StaticForm { passphrase: passphrase.clone() }),
                KeySource::NodeId => form.node_id = Some(Nothing {}),
                KeySource::Kms(endpoint) => form.kms = Some(KmsForm { endpoint: endpoint.clone() }),
                KeySource::Tpm => form.tpm = Some(Nothing {}),
            }
            form
        });
        let form = Form {
            encryption_provider: PROVIDER.to_owned(),
            encryption_keys: Some(keys.collect()),
            encryption_cipher: self.cipher.clone(),
            encryption_key_size: self.key_size,
            encryption_block_size: self.block_size,
            encryption_perf_options: Some(self.options.clone()).filter(|options| !options.is_empty()),
        };
        Ok(Secret::new(serde_json::to_string(&form)?))
    }

    /// Reads the value of META.
    ///
    /// # Errors
    /// [`MetaError`].
    pub fn from_meta(text: &str) -> Result<Self, MetaError> {
        let form: Form = serde_json::from_str(text)?;
        if form.encryption_provider != PROVIDER {
            return Err(MetaError::Provider(form.encryption_provider));
        }
        let key = |form: KeyForm| {
            let source = match form {
                KeyForm { text: Some(text), .. } => KeySource::Static(text.passphrase),
                KeyForm { node_id: Some(_), .. } => KeySource::NodeId,
                KeyForm { kms: Some(kms), .. } => KeySource::Kms(kms.endpoint),
                KeyForm { tpm: Some(_), .. } => KeySource::Tpm,
                KeyForm { slot, .. } => return Err(MetaError::Key(slot)),
            };
            Ok(Key { slot: form.slot, source })
        };
        let keys = form.encryption_keys.unwrap_or_default().into_iter().map(key).collect::<Result<_, _>>()?;
        let encryption = Self {
            cipher: form.encryption_cipher,
            key_size: form.encryption_key_size,
            block_size: form.encryption_block_size,
            options: form.encryption_perf_options.unwrap_or_default(),
            keys: Vec::new(),
        };
        Ok(encryption.with_keys(keys))
    }
}
