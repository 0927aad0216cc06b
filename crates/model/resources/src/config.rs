//! The configuration of the machine, and the type that follows from it.

use std::sync::OnceLock;

use ::config::v1alpha1::Config;
use ::config::{ConfigErrors, Documents};
use serde_json::Value;

pub use crate::enums::MachineType;
use crate::spec::{Column, Definition, Sensitivity, Spec};

/// Where both are.
pub const NAMESPACE: &str = "config";

/// The configuration: the YAML documents as they were applied. Two are equal when their texts are.
#[derive(Clone)]
pub struct MachineConfig {
    /// The text, all documents.
    pub text: String,
    /// The decoded documents, computed on first use and shared by all readers of the resource.
    decoded: OnceLock<Result<Documents, ConfigErrors>>,
}

impl MachineConfig {
    /// The configuration in force.
    pub const ACTIVE_ID: &'static str = "v1alpha1";
    /// The configuration received in maintenance mode.
    pub const MAINTENANCE_ID: &'static str = "maintenance";

    /// A configuration of this text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), decoded: OnceLock::new() }
    }

    /// The documents, decoded once.
    ///
    /// # Errors
    /// The text is no configuration. One that is put in force was checked before.
    pub fn documents(&self) -> Result<&Documents, ConfigErrors> {
        self.decoded.get_or_init(|| Documents::from_yaml(self.text.as_bytes())).as_ref().map_err(Clone::clone)
    }

    /// The root document of a configuration that may not be there yet; `None` without either.
    ///
    /// # Errors
    /// Those of [`documents`](Self::documents).
    pub fn root_of(config: Option<&Self>) -> Result<Option<&Config>, ConfigErrors> {
        Ok(config.map(Self::documents).transpose()?.and_then(Documents::v1alpha1))
    }
}

impl PartialEq for MachineConfig {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for MachineConfig {}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_decoded_once_and_clones_share_the_result() {
        let config = MachineConfig::new("version: v1alpha1\nmachine:\n  type: worker\n");
        let first: *const Config = MachineConfig::root_of(Some(&config)).unwrap().unwrap();
        let again: *const Config = MachineConfig::root_of(Some(&config)).unwrap().unwrap();
        let clone = config.clone();
        let cloned: *const Config = MachineConfig::root_of(Some(&clone)).unwrap().unwrap();
        assert_eq!((first, first), (again, cloned));
        assert_eq!(config, MachineConfig::new(clone.text), "decoded documents do not affect equality");
        assert!(MachineConfig::root_of(None).unwrap().is_none());
    }

    #[test]
    fn a_text_that_is_no_configuration_says_so_each_time() {
        let config = MachineConfig::new("machine: [broken");
        let error = config.documents().err().unwrap();
        assert_eq!(config.documents().err().unwrap(), error);
        assert_eq!(MachineConfig::root_of(Some(&config)).err().unwrap(), error);
    }
}
