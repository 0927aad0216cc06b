//! Installation, disks and their encryption.
//!
//! Only shapes: checks are in `validate`, defaults in the accessors.

use serde::{Deserialize, Serialize};

use crate::scalar::{DiskSize, SecretString, one_or_many};

/// Install
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Install {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub disk: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_selector: Option<InstallDiskSelector>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra_kernel_args: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub image: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extensions: Vec<InstallExtension>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wipe: Option<bool>,
    #[serde(rename = "legacyBIOSSupport", skip_serializing_if = "Option::is_none")]
    pub legacy_bios_support: Option<bool>,
}

/// InstallDiskSelector
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct InstallDiskSelector {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub size: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub model: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub serial: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub modalias: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uuid: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub wwid: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub r#type: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub bus_path: String,
}

/// InstallExtension
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct InstallExtension {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub image: String,
}

/// MachineDisk
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct MachineDisk {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub device: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub partitions: Vec<DiskPartition>,
}

/// DiskPartition
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct DiskPartition {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<DiskSize>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mountpoint: String,
}

/// SystemDiskEncryption
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct SystemDiskEncryption {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<Encryption>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ephemeral: Option<Encryption>,
}

/// Encryption
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Encryption {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub provider: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<EncryptionKey>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cipher: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_size: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block_size: Option<u64>,
    #[serde(deserialize_with = "one_or_many", skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

/// EncryptionKey
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct EncryptionKey {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r#static: Option<EncryptionKeyStatic>,
    #[serde(rename = "nodeID", skip_serializing_if = "Option::is_none")]
    pub node_id: Option<EncryptionKeyNodeId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kms: Option<EncryptionKeyKms>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slot: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tpm: Option<EncryptionKeyTpm>,
}

/// EncryptionKeyStatic
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct EncryptionKeyStatic {
    #[serde(skip_serializing_if = "SecretString::is_empty")]
    pub passphrase: SecretString,
}

/// EncryptionKeyNodeId
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct EncryptionKeyNodeId {}

/// EncryptionKeyKms
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct EncryptionKeyKms {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub endpoint: String,
}

/// EncryptionKeyTpm
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct EncryptionKeyTpm {}
