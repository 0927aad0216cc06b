//! Resources about resources: namespaces and definitions, which `get namespaces` and `get rd` list.
//!
//! The store creates them when a type is registered; no controller writes them.

use prost::Message;
use serde_json::{Value, json};
use wire::cosi::resource::meta as proto;

use crate::spec::{Column, Definition, Sensitivity, Spec};

/// The namespace of both types.
pub const NAMESPACE: &str = "meta";

/// A namespace that resources live in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    /// The purpose of the namespace.
    pub description: String,
}

impl Spec for Namespace {
    const DEFINITION: Definition = Definition {
        type_name: "Namespaces.meta.cosi.dev",
        namespace: NAMESPACE,
        aliases: &["ns"],
        columns: &[],
        sensitivity: Sensitivity::NonSensitive,
    };

    fn to_yaml(&self) -> Value {
        json!({ "description": self.description })
    }

    fn to_proto(&self) -> Vec<u8> {
        proto::NamespaceSpec { description: self.description.clone() }.encode_to_vec()
    }
}

/// Client-facing facts about a type: names, namespace, columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceDefinition(pub Definition);

impl ResourceDefinition {
    /// The id of the definition of `type_name`.
    #[must_use]
    pub fn id(type_name: &str) -> String {
        type_name.to_ascii_lowercase()
    }
}

impl Spec for ResourceDefinition {
    const DEFINITION: Definition = Definition {
        type_name: "ResourceDefinitions.meta.cosi.dev",
        namespace: NAMESPACE,
        aliases: &["api-resources"],
        columns: &[Column { name: "Aliases", json_path: "{.aliases[:]}" }],
        sensitivity: Sensitivity::NonSensitive,
    };

    fn to_yaml(&self) -> Value {
        let columns: Vec<Value> =
            self.0.columns.iter().map(|c| json!({ "name": c.name, "jsonPath": c.json_path })).collect();
        let mut tree = json!({
            "type": self.0.type_name,
            "displayType": self.0.display_type(),
            "aliases": self.0.all_aliases(),
            "allAliases": self.0.all_aliases(),
            "printColumns": columns,
            "defaultNamespace": self.0.namespace,
        });
        if self.0.sensitivity == Sensitivity::Sensitive {
            tree["sensitivity"] = "sensitive".into();
        }
        tree
    }

    fn to_proto(&self) -> Vec<u8> {
        proto::ResourceDefinitionSpec {
            resource_type: self.0.type_name.to_owned(),
            display_type: self.0.display_type(),
            default_namespace: self.0.namespace.to_owned(),
            aliases: self.0.all_aliases(),
            all_aliases: self.0.all_aliases(),
            print_columns: self
                .0
                .columns
                .iter()
                .map(|c| proto::resource_definition_spec::PrintColumn {
                    name: c.name.to_owned(),
                    json_path: c.json_path.to_owned(),
                })
                .collect(),
            sensitivity: match self.0.sensitivity {
                Sensitivity::NonSensitive => proto::resource_definition_spec::Sensitivity::NonSensitive,
                Sensitivity::Sensitive => proto::resource_definition_spec::Sensitivity::Sensitive,
            }
            .into(),
        }
        .encode_to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_describes_itself_on_the_wire() {
        let spec = ResourceDefinition(ResourceDefinition::DEFINITION);
        let decoded = proto::ResourceDefinitionSpec::decode(spec.to_proto().as_slice()).unwrap();
        assert_eq!(decoded.display_type, "ResourceDefinition");
        assert!(decoded.all_aliases.contains(&"rd".to_owned()), "{:?}", decoded.all_aliases);
        assert_eq!(decoded.default_namespace, "meta");
        assert_eq!(spec.to_yaml()["printColumns"][0]["jsonPath"], "{.aliases[:]}");
    }
}
