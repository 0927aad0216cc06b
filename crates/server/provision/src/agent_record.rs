//! What the agent of a cluster writes down of itself, for those that need its services.

use serde::{Deserialize, Serialize};

use crate::error::HostError;
use crate::folder::{Folder, write_private};
use crate::process::Identity;

/// The agent's self-description.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AgentRecord {
    pub(crate) process: Identity,
    pub(crate) registry_port: u16,
}

impl AgentRecord {
    /// Of the last agent, which may have ended.
    pub(crate) fn read(folder: &Folder) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(folder.agent()).ok()?).ok()
    }

    pub(crate) fn write(&self, folder: &Folder) -> Result<(), HostError> {
        let encode = |source| HostError::Encode { subject: "agent", source };
        write_private(&folder.agent(), &serde_json::to_vec(self).map_err(encode)?)
    }
}
