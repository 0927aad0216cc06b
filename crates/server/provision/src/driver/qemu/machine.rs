//! One machine as it was seeded: what every start of it uses.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::HostError;
use crate::folder::{Folder, write_private};
use crate::machines::MachineSettings;

/// One machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Machine {
    pub(super) cluster: String,
    pub(super) node: String,
    /// Of its SMBIOS; random.
    pub(super) uuid: String,
    /// Its network cards.
    pub(super) cards: Vec<Card>,
    pub(super) cpus: u64,
    /// In bytes.
    pub(super) memory: u64,
    pub(super) settings: MachineSettings,
    /// The firmware's code; none with BIOS.
    pub(super) firmware: Option<PathBuf>,
    /// Where it fetches its configuration; none where it waits for one.
    pub(super) configuration: Option<String>,
}

/// A network card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Card {
    pub(super) mac: String,
    /// The host's end.
    pub(super) link: String,
}

/// The files of one machine; names are relative to its folder, where its programs run: the paths of sockets are short.
pub(super) const VARIABLES: &str = "variables.fd";
pub(super) const CONTROL: &str = "qmp.sock";
pub(super) const TPM: &str = "tpm";
pub(super) const TPM_SOCKET: &str = "tpm.sock";

/// Name of the disk of this number; 0 is that of the system.
pub(super) fn disk(number: usize) -> String {
    format!("{number}.disk")
}

fn path(folder: &Folder, node: &str) -> PathBuf {
    folder.node(node).join("machine.json")
}

/// Whether the node is a machine.
pub(in crate::driver) fn exists(folder: &Folder, node: &str) -> bool {
    path(folder, node).exists()
}

/// What the emulator says on its control socket, all of it.
pub(super) fn events(folder: &Folder, node: &str) -> PathBuf {
    folder.log(&format!("{node}.events"))
}

/// The process of the machine's TPM.
pub(super) fn tpm(folder: &Folder, node: &str) -> PathBuf {
    folder.node(node).join("tpm.json")
}

impl Machine {
    pub(super) fn read(folder: &Folder, node: &str) -> Result<Self, HostError> {
        let path = path(folder, node);
        let bytes = std::fs::read(&path).map_err(HostError::io("reading", &path))?;
        serde_json::from_slice(&bytes).map_err(|error| HostError::io("decoding", &path)(error.into()))
    }

    pub(super) fn write(&self, folder: &Folder) -> Result<(), HostError> {
        let encode = |source| HostError::Encode { subject: "machine", source };
        write_private(&path(folder, &self.node), &serde_json::to_vec_pretty(self).map_err(encode)?)
    }

    /// The name that the emulator's process carries in its arguments.
    pub(super) fn process_name(&self) -> String {
        format!("{}{}", process_prefix(&self.cluster), self.node)
    }
}

/// What the names of a cluster's machines begin with. No cluster's name has a colon.
pub(super) fn process_prefix(cluster: &str) -> String {
    format!("talos:{cluster}:")
}

/// A path inside of an option of the emulator, where commas separate.
pub(super) fn escaped(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}
