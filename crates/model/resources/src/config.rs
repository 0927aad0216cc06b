//! The configuration of the machine, and the type that follows from it.

use serde_json::Value;

pub use crate::enums::MachineType;
use crate::spec::{Column, Definition, Sensitivity, Spec};

/// Where both are.
pub const NAMESPACE: &str = "config";

/// The configuration: the YAML documents as they were applied.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct MachineConfig {
    /// The text, all documents.
    pub text: String,
}

impl MachineConfig {
    /// The configuration in force.
    pub const ACTIVE_ID: &'static str = "v1alpha1";
    /// What the maintenance mode was given.
    pub const MAINTENANCE_ID: &'static str = "maintenance";
}

impl std::fmt::Debug for MachineConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MachineConfig({} bytes)", self.text.len())
    }
}

impl Spec for MachineConfig {
    const DEFINITION: Definition = Definition {
        type_name: "MachineConfigs.config.talos.dev",
        namespace: NAMESPACE,
        aliases: &[],
        columns: &[],
        sensitivity: Sensitivity::Sensitive,
    };
    /// A string: the text itself.
    fn to_yaml(&self) -> Value {
        Value::from(self.text.as_str())
    }
    /// The text itself; the type has no message.
    fn to_proto(&self) -> Vec<u8> {
        self.text.clone().into_bytes()
    }
}

impl MachineType {
    /// The id of the only resource of this type.
    pub const ID: &'static str = "machine-type";
}

impl Spec for MachineType {
    const DEFINITION: Definition = Definition {
        type_name: "MachineTypes.config.talos.dev",
        namespace: NAMESPACE,
        aliases: &[],
        columns: &[Column { name: "Type", json_path: "{@}" }],
        sensitivity: Sensitivity::NonSensitive,
    };
    fn to_yaml(&self) -> Value {
        Value::from(self.as_str())
    }
    /// The word; the type has no message.
    fn to_proto(&self) -> Vec<u8> {
        self.as_str().into()
    }
}
