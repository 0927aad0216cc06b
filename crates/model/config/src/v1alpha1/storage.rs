//! Installation, disks and their encryption.
//!
//! Only shapes: checks are in `validate`, defaults in the accessors.

use machine::encryption::{self, Key, KeySource};
use machine::selector::Selector;
use machine::size::SizeError;
use serde::{Deserialize, Serialize};

use crate::scalar::{DiskSize, SecretString, one_or_many};

/// How the system is installed on a disk.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Install {
    /// Disk to install to.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub disk: String,
    /// Selects the disk by its properties instead of its path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_selector: Option<InstallDiskSelector>,
    /// More arguments for the kernel; one that starts with - is taken away.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra_kernel_args: Vec<String>,
    /// Image that installs the system.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// Extensions to install; deprecated, build them into the image.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extensions: Vec<InstallExtension>,
    /// Wipes the disk before the installation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wipe: Option<bool>,
    /// Marks the partition as bootable for old firmware.
    #[serde(rename = "legacyBIOSSupport", skip_serializing_if = "Option::is_none")]
    pub legacy_bios_support: Option<bool>,
}

/// Selects the disk by its properties instead of its path.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct InstallDiskSelector {
    /// Size with a comparison, for example >= 1TB.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub size: String,
    /// Name of the disk in the kernel.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Model, with * as wildcard.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub model: String,
    /// Serial number.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub serial: String,
    /// Kernel's alias for the hardware.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub modalias: String,
    /// UUID of the disk.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uuid: String,
    /// World-wide id of the disk.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub wwid: String,
    /// ssd, hdd, nvme or sd.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub r#type: String,
    /// Place on the bus, with * as wildcard.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub bus_path: String,
}

impl InstallDiskSelector {
    /// The selector that it describes.
    ///
    /// # Errors
    /// The size cannot be read; validation refuses such a configuration.
    pub fn selector(&self) -> Result<Selector, SizeError> {
        let size = if self.size.is_empty() { None } else { Some(self.size.parse()?) };
        Ok(Selector {
            size,
            name: self.name.clone(),
            model: self.model.clone(),
            serial: self.serial.clone(),
            modalias: self.modalias.clone(),
            uuid: self.uuid.clone(),
            wwid: self.wwid.clone(),
            kind: self.r#type.clone(),
            bus_path: self.bus_path.clone(),
        })
    }
}

/// Extensions to install; deprecated, build them into the image.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct InstallExtension {
    /// Image of the extension.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub image: String,
}

/// Disks beside the system disk: they are partitioned, formatted and mounted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct MachineDisk {
    /// Path of the disk.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub device: String,
    /// Its partitions, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub partitions: Vec<DiskPartition>,
}

/// Its partitions, in order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct DiskPartition {
    /// Size, for example 100 GB; the last partition may take the rest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<DiskSize>,
    /// Where it is mounted, below /var.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mountpoint: String,
}

/// Encryption of the system's own partitions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct SystemDiskEncryption {
    /// The partition that holds this configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<Encryption>,
    /// The partition that holds /var.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ephemeral: Option<Encryption>,
}

/// The partition that holds this configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Encryption {
    /// luks2.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub provider: String,
    /// Keys, any of which opens the partition.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<EncryptionKey>,
    /// Cipher; default aes-xts-plain64.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cipher: String,
    /// Size of the key in bits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_size: Option<u32>,
    /// Size of a sector in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block_size: Option<u64>,
    /// Options for speed: no_read_workqueue, no_write_workqueue, same_cpu_crypt.
    #[serde(deserialize_with = "one_or_many", skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

impl Encryption {
    /// The encrypted volume that it describes. A key without a kind, which validation refuses, is left out.
    #[must_use]
    pub fn volume(&self) -> encryption::Encryption {
        let source = |key: &EncryptionKey| {
            if let Some(text) = &key.r#static {
                return Some(KeySource::Static(text.passphrase.expose().to_owned().into()));
            }
            let kms = key.kms.as_ref().map(|kms| KeySource::Kms(kms.endpoint.clone()));
            let node = key.node_id.as_ref().map(|_| KeySource::NodeId);
            node.or(kms).or_else(|| key.tpm.as_ref().map(|_| KeySource::Tpm))
        };
        let key = |key: &EncryptionKey| Some(Key { slot: key.slot.unwrap_or(0), source: source(key)? });
        let keys = self.keys.iter().filter_map(key).collect();
        let mut volume = encryption::Encryption::default().with_keys(keys);
        volume.cipher.clone_from(&self.cipher);
        volume.key_size = self.key_size.unwrap_or_default();
        volume.block_size = self.block_size.unwrap_or_default();
        volume.options.clone_from(&self.options);
        volume
    }
}

/// Keys, any of which opens the partition.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct EncryptionKey {
    /// A passphrase.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r#static: Option<EncryptionKeyStatic>,
    /// A key derived from the machine's UUID.
    #[serde(rename = "nodeID", skip_serializing_if = "Option::is_none")]
    pub node_id: Option<EncryptionKeyNodeId>,
    /// A key that a network service seals.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kms: Option<EncryptionKeyKms>,
    /// Slot of the key, 0 to 31.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slot: Option<u32>,
    /// A key that the machine's TPM seals.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tpm: Option<EncryptionKeyTpm>,
}

/// A passphrase.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct EncryptionKeyStatic {
    /// The passphrase.
    #[serde(skip_serializing_if = "SecretString::is_empty")]
    pub passphrase: SecretString,
}

/// A key derived from the machine's UUID.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct EncryptionKeyNodeId {}

/// A key that a network service seals.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct EncryptionKeyKms {
    /// Address of the service.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub endpoint: String,
}

/// A key that the machine's TPM seals.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct EncryptionKeyTpm {}
