//! The persistent state of a cluster: one JSON file in its folder.
//!
//! The file is written before anything is made and replaced as a whole, so a killed command leaves a readable one. It has a
//! version: an older one is brought up to date when it is read, a newer one is refused. Nothing keeps a copy of it for long:
//! whoever decides something reads it anew.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{HostError, ProvisionError};
use crate::exposed::ExposedPort;
use crate::folder::{Folder, write_private};
use crate::plan::Plan;
use crate::spec::{DriverSettings, Limits};

/// The version that this program writes.
///
/// 1 (which had no number) listed nodes without slots and limits by role; 2 has slots for good, and settings by node; 3 has
/// the driver's settings where there was its name, and the image among them.
pub(crate) const VERSION: u64 = 3;

/// Progress of a cluster's creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    Creating,
    Created,
    Destroying,
}

/// The persistent state of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    pub(crate) version: u64,
    pub driver: DriverSettings,
    pub phase: Phase,
    pub plan: Plan,
    /// The OCI layout that the registry serves.
    pub bundle: Option<PathBuf>,
    /// The discovery server's program.
    pub discoveryd: Option<PathBuf>,
    /// The key service's program.
    #[serde(default)]
    pub kmsd: Option<PathBuf>,
    /// Ports of the host that lead to the first control plane.
    #[serde(default)]
    pub exposed: Vec<ExposedPort>,
    pub kubernetes_version: Option<String>,
    pub kubernetes_endpoint: Option<String>,
    /// Settings and desired power state of nodes, by name; a missing node has the defaults.
    #[serde(default)]
    pub nodes: BTreeMap<String, NodeSettings>,
    /// The contexts written to the operator's files.
    #[serde(default)]
    pub contexts: Contexts,
}

/// The persistent state of one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeSettings {
    pub limits: Limits,
    #[serde(default)]
    pub power: Power,
}

/// Whether a node shall run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Power {
    /// It is powered on again when it ends.
    #[default]
    On,
    /// It powered itself off, and stays off until it is powered on by command.
    Off,
}

/// The entries of the operator's files that belong to the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Contexts {
    pub talosconfig: Option<WrittenContext>,
    pub kubeconfig: Option<WrittenContext>,
}

/// A context that was put into a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WrittenContext {
    pub file: PathBuf,
    /// Under this name, which another context may have had before.
    pub name: String,
    /// The certificate authority of the context, in base64: one of the same name with another is somebody else's.
    pub authority: String,
    /// Current before; empty where none was.
    pub previous: String,
}

impl State {
    /// The state of a cluster whose creation begins.
    pub(crate) fn new(plan: Plan, driver: DriverSettings) -> Self {
        Self {
            version: VERSION,
            driver,
            phase: Phase::Creating,
            plan,
            bundle: None,
            discoveryd: None,
            kmsd: None,
            exposed: Vec::new(),
            kubernetes_version: None,
            kubernetes_endpoint: None,
            nodes: BTreeMap::new(),
            contexts: Contexts::default(),
        }
    }

    /// The persistent state of a node.
    #[must_use]
    pub fn settings(&self, node: &str) -> NodeSettings {
        self.nodes.get(node).copied().unwrap_or_default()
    }

    /// Reads the state of a cluster; none when its folder has no state yet.
    ///
    /// # Errors
    /// [`ProvisionError::NewerState`] for one that a newer program wrote.
    pub(crate) fn read(folder: &Folder) -> Result<Option<Self>, ProvisionError> {
        let path = folder.state_file();
        match std::fs::read(&path) {
            Ok(bytes) => Self::decode(folder.path(), &bytes).map(Some),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(HostError::io("reading", &path)(error).into()),
        }
    }

    fn decode(folder: &Path, bytes: &[u8]) -> Result<Self, ProvisionError> {
        let decoding = |source| ProvisionError::Decode { path: folder.to_path_buf(), source };
        let mut value: Value = serde_json::from_slice(bytes).map_err(decoding)?;
        match value.get("version").map(Value::as_u64) {
            None => {
                migrate_from_1(&mut value);
                migrate_from_2(&mut value);
            }
            Some(Some(2)) => migrate_from_2(&mut value),
            Some(Some(version)) if version > VERSION => {
                return Err(ProvisionError::NewerState { path: folder.to_path_buf(), version, known: VERSION });
            }
            Some(_) => {}
        }
        serde_json::from_value(value).map_err(decoding)
    }

    /// Replaces the state of a cluster.
    pub(crate) fn write(&self, folder: &Folder) -> Result<(), HostError> {
        let encode = |source| HostError::Encode { subject: "cluster state", source };
        let bytes = serde_json::to_vec_pretty(self).map_err(encode)?;
        write_private(&folder.state_file(), &bytes)
    }
}

/// Adds to version 1 the new fields of version 2: slots, which follow from the order of the nodes there, and settings by node.
/// Missing and malformed fields are reported by the decoder.
fn migrate_from_1(value: &mut Value) {
    let limits = value.as_object_mut().and_then(|state| state.remove("limits")).unwrap_or_default();
    let mut settings = serde_json::Map::new();
    let mut named: BTreeMap<String, u64> = BTreeMap::new();
    let mut slots = 0u64;
    for node in value.pointer_mut("/plan/nodes").and_then(Value::as_array_mut).into_iter().flatten() {
        slots += 1;
        let text = |key: &str| node.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (name, role) = (text("name"), text("role"));
        *named.entry(role.clone()).or_default() += 1;
        if let Some(limits) = limits.get(&role) {
            settings.insert(name, serde_json::json!({ "limits": limits }));
        }
        if let Some(node) = node.as_object_mut() {
            node.insert("slot".to_owned(), slots.into());
        }
    }
    if let Some(plan) = value.get_mut("plan").and_then(Value::as_object_mut) {
        plan.insert("lastSlot".to_owned(), slots.into());
        plan.insert("lastNumbers".to_owned(), serde_json::json!(named));
    }
    if let Some(state) = value.as_object_mut() {
        state.insert("nodes".to_owned(), settings.into());
    }
}

/// Puts the image of version 2, whose driver was always `runc`, among the driver's settings of version 3.
fn migrate_from_2(value: &mut Value) {
    let Some(state) = value.as_object_mut() else { return };
    let image = state.remove("image").unwrap_or_default();
    state.insert("version".to_owned(), VERSION.into());
    state.insert("driver".to_owned(), serde_json::json!({ "runc": { "image": image } }));
}

/// Every cluster below `root` whose state can be read; those that cannot are somebody's broken folders, by name.
pub(crate) fn siblings(root: &Path) -> Vec<(String, Option<State>)> {
    let Ok(entries) = std::fs::read_dir(root) else { return Vec::new() };
    entries
        .filter_map(Result::ok)
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let folder = Folder::new(root, &name).ok()?;
            Some((name, State::read(&folder).ok().flatten()))
        })
        .collect()
}

#[cfg(test)]
pub(crate) mod tests;
