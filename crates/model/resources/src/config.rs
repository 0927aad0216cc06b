//! The configuration of the machine, and the type that follows from it.

use std::sync::OnceLock;

use ::config::v1alpha1::Config;
use ::config::{ConfigErrors, Documents};
use prost::Message as _;
use serde_json::Value;
use wire::resource::config as proto;

pub use crate::enums::MachineType;
use crate::field::Field;
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
        self.decoded.get_or_init(|| Documents::unjudged(self.text.as_bytes())).as_ref().map_err(Clone::clone)
    }

    /// The root document of a configuration that may not be there yet; `None` without either.
    ///
    /// # Errors
    /// Those of [`documents`](Self::documents).
    pub fn root_of(config: Option<&Self>) -> Result<Option<&Config>, ConfigErrors> {
        Ok(config.map(Self::documents).transpose()?.and_then(Documents::v1alpha1))
    }
}

/// The document that a configuration shows as its YAML form: a form is one document, and a configuration may be several.
struct Shown {
    text: String,
    root: yaml::Node,
}

/// `None` for a text that is no YAML, or nothing.
fn shown(text: &str) -> Option<Shown> {
    let parsed = |text: String| Some((yaml::parse(&text).ok()?.into_iter().next()?, text));
    let mut documents = yaml::split(text).into_iter().map(parsed).collect::<Option<Vec<_>>>()?;
    let root = documents.iter().position(|(node, _)| node.get("kind").is_none()).unwrap_or_default();
    if documents.is_empty() {
        return None;
    }
    let (root, mut text) = documents.remove(root);
    for (other, _) in &documents {
        let part = |key| other.get(key).and_then(yaml::Node::as_str).unwrap_or_default().escape_debug().to_string();
        let name = format!("{} {}", part("kind"), part("name"));
        text.push_str(&format!("# one more document: {}\n", name.trim_end()));
    }
    Some(Shown { text, root })
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
    /// The root document, or the first one where there is no root yet; a text that is no YAML is a string.
    fn to_yaml(&self) -> Value {
        shown(&self.text).map_or_else(|| Value::from(self.text.as_str()), |shown| shown.root.to_value())
    }
    /// The same as it was written, with its comments, and a comment that names the other documents.
    fn to_yaml_text(&self) -> String {
        shown(&self.text).map_or_else(|| crate::spec::yaml_text(&Value::from(self.text.as_str())), |shown| shown.text)
    }
    /// All documents.
    fn to_proto(&self) -> Vec<u8> {
        proto::MachineConfigSpec { yaml_marshalled: self.text.clone().into() }.encode_to_vec()
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
    fn to_proto(&self) -> Vec<u8> {
        let mut out = Vec::new();
        Field::encode(self, 1, &mut out);
        out
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

    /// A string in place of the document: scripts that read `.spec.machine` found nothing.
    #[test]
    fn the_yaml_form_is_the_root_document_with_its_comments() {
        let root = "version: v1alpha1 # the schema\nmachine:\n  # who it is\n  type: worker\n";
        let config = MachineConfig::new(root);
        assert_eq!(config.to_yaml_text(), root);
        assert_eq!(config.to_yaml()["machine"]["type"], "worker");

        let sink = "apiVersion: v1alpha1\nkind: EventSinkConfig\nendpoint: 10.0.0.1:80\n";
        let kmsg = "apiVersion: v1alpha1\nkind: KmsgLogConfig\nname: remote\nurl: udp://10.0.0.1:9\n";
        let several = MachineConfig::new(format!("{sink}---\n{root}---\n{kmsg}"));
        let named = "# one more document: EventSinkConfig\n# one more document: KmsgLogConfig remote\n";
        assert_eq!(several.to_yaml_text(), format!("{root}{named}"));
        assert_eq!(several.to_yaml(), config.to_yaml());
        let message = proto::MachineConfigSpec::decode(several.to_proto().as_slice()).unwrap();
        assert_eq!(message.yaml_marshalled, several.text);

        assert_eq!(MachineConfig::new(sink).to_yaml()["kind"], "EventSinkConfig", "a part that waits for the rest");
        assert_eq!(MachineConfig::new("machine: [broken").to_yaml(), "machine: [broken");
    }

    #[test]
    fn a_text_that_is_no_configuration_says_so_each_time() {
        let config = MachineConfig::new("machine: [broken");
        let error = config.documents().err().unwrap();
        assert_eq!(config.documents().err().unwrap(), error);
        assert_eq!(MachineConfig::root_of(Some(&config)).err().unwrap(), error);
    }
}
