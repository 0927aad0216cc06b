//! The JSON schema of configurations, for editors: shapes of the types, forms of values, and the documentation of fields.
//!
//! It describes; what is accepted is decided by decoding and validating. Old spellings are in it as deprecated fields.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use crate::formats::{self, Hint};
use crate::generate::documentation;
use crate::legacy::{Becomes, LEGACY};
use crate::shape::{self, Shape};

const DURATION: &str = r"^[-+]?(((\d+(\.\d*)?|\d*(\.\d+)+)([nuµm]?s|m|h))|0)+$";

/// The schema (draft 2020-12) of any document of a configuration.
#[must_use]
pub fn json_schema() -> Value {
    let mut definitions = Map::new();
    let mut any = Vec::new();
    for (kind, shape) in shape::all() {
        definitions.insert((*kind).to_owned(), document(kind, shape));
        any.push(json!({ "$ref": format!("#/$defs/{kind}") }));
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "machine configuration",
        "oneOf": any,
        "$defs": definitions,
    })
}

/// The explanation of a field of a type that stands at several places and is explained at one of them.
static BY_TYPE: LazyLock<HashMap<(&'static str, &'static str), &'static str>> = LazyLock::new(|| {
    let mut known = HashMap::new();
    for (kind, shape) in shape::all() {
        collect(kind, shape, &mut Vec::new(), &mut known);
    }
    known
});

fn collect(
    kind: &str,
    shape: &'static Shape,
    path: &mut Vec<&'static str>,
    known: &mut HashMap<(&'static str, &'static str), &'static str>,
) {
    let (step, inner): (&str, &'static Shape) = match shape {
        Shape::List(inner) | Shape::OneOrMany(inner) => ("[]", inner),
        Shape::Names(inner) => ("*", inner),
        Shape::Fields(of, fields) => {
            for (name, shape) in fields {
                path.push(name);
                if let Some(text) = documentation(kind, path) {
                    known.entry((*of, *name)).or_insert(text);
                }
                collect(kind, shape, path, known);
                path.pop();
            }
            return;
        }
        _ => return,
    };
    path.push(step);
    collect(kind, inner, path, known);
    path.pop();
}

fn document(kind: &str, shape: &Shape) -> Value {
    let mut path = Vec::new();
    let mut schema = describe(kind, shape, &mut path);
    if kind == shape::ROOT {
        schema["properties"]["version"]["enum"] = json!([shape::ROOT]);
        return schema;
    }
    schema["properties"]["apiVersion"]["enum"] = json!([shape::ROOT]);
    schema["properties"]["kind"]["enum"] = json!([kind]);
    schema["required"] = match shape.at("name") {
        Some(_) => json!(["apiVersion", "kind", "name"]),
        None => json!(["apiVersion", "kind"]),
    };
    schema
}

/// `path` is generic: `[]` after the key of a list, `*` for a key that users choose.
fn describe<'s>(kind: &str, shape: &'s Shape, path: &mut Vec<&'s str>) -> Value {
    let mut schema = match shape {
        Shape::Boolean => json!({ "type": "boolean" }),
        Shape::Number => json!({ "type": "integer" }),
        Shape::Text => json!({ "type": "string" }),
        Shape::Words(words) => json!({ "enum": words }),
        Shape::Size | Shape::Port => json!({ "type": ["integer", "string"] }),
        Shape::Any => json!({}),
        Shape::List(inner) => {
            path.push("[]");
            let items = describe(kind, inner, path);
            path.pop();
            json!({ "type": "array", "items": items })
        }
        Shape::OneOrMany(inner) => {
            path.push("[]");
            let item = describe(kind, inner, path);
            path.pop();
            json!({ "oneOf": [item, { "type": "array", "items": item }] })
        }
        Shape::Names(inner) if **inner == Shape::Any => json!({ "type": "object" }),
        Shape::Names(inner) => {
            path.push("*");
            let values = describe(kind, inner, path);
            path.pop();
            json!({ "type": "object", "additionalProperties": values })
        }
        Shape::Fields(of, fields) => {
            let mut properties = Map::new();
            for (name, shape) in fields {
                path.push(name);
                let mut field = describe(kind, shape, path);
                if let Some(text) = BY_TYPE.get(&(*of, *name)).filter(|_| field.get("description").is_none()) {
                    field["description"] = json!(text);
                }
                properties.insert((*name).to_owned(), field);
                path.pop();
            }
            properties.extend(old_names(kind, fields, path));
            json!({ "type": "object", "properties": properties, "additionalProperties": false })
        }
    };
    hint(kind, path, &mut schema);
    if let Some(text) = documentation(kind, path) {
        schema["description"] = json!(text);
    }
    schema
}

fn hint(kind: &str, path: &[&str], schema: &mut Value) {
    match formats::hint(kind, path) {
        Some(Hint::Words(words)) => *schema = json!({ "enum": words }),
        Some(Hint::Schemes(schemes)) => schema["pattern"] = json!(format!("^({})://", schemes.join("|"))),
        Some(Hint::Duration) => schema["pattern"] = json!(DURATION),
        Some(Hint::Range(low, high)) => {
            schema["minimum"] = json!(low);
            schema["maximum"] = json!(high);
        }
        None => {}
    }
}

/// Fields of earlier versions beside these.
fn old_names(kind: &str, fields: &[(&'static str, Shape)], path: &[&str]) -> Map<String, Value> {
    let mut names = Map::new();
    let here = dotted(path);
    for legacy in LEGACY.iter().filter(|_| kind == shape::ROOT) {
        let Some((parent, name)) = legacy.path.rsplit_once('.') else { continue };
        if parent != here {
            continue;
        }
        let shape = |new: &str| fields.iter().find(|(name, _)| *name == new).map(|(_, shape)| shape);
        let of = match legacy.becomes {
            Becomes::Field(new) => shape(new),
            Becomes::ElementOf(new) => shape(new).and_then(Shape::element),
            Becomes::Always(_) => Some(&Shape::Boolean),
            Becomes::Word(..) => None,
        };
        if let Some(of) = of {
            let mut schema = describe(kind, of, &mut Vec::new());
            schema["deprecated"] = json!(true);
            schema.as_object_mut().map(|schema| schema.shift_remove("description"));
            names.insert(name.to_owned(), schema);
        }
    }
    names
}

/// `machine.network.interfaces[]`
fn dotted(path: &[&str]) -> String {
    let mut text = String::new();
    for part in path {
        if *part != "[]" && !text.is_empty() {
            text.push('.');
        }
        text.push_str(part);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published() -> std::path::PathBuf {
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../docs/config.schema.json")
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test is renewed by a variable of its environment")]
    fn the_published_schema_is_current() {
        let text = format!("{:#}\n", json_schema());
        if std::env::var("UPDATE_GOLDEN").is_ok() {
            std::fs::write(published(), &text).unwrap();
        }
        let known = std::fs::read_to_string(published()).unwrap();
        assert!(known == text, "docs/config.schema.json differs; renew with UPDATE_GOLDEN=1");
    }

    /// Paths of fields without an explanation.
    fn unexplained(schema: &Value, path: &str, found: &mut Vec<String>) {
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            let says_itself = ["apiVersion", "kind"].contains(&name.as_str()) || field.get("deprecated").is_some();
            if field.get("description").is_none() && !says_itself {
                found.push(path.clone());
            }
            for below in [field, &field["items"], &field["oneOf"][0], &field["additionalProperties"]] {
                unexplained(below, &path, found);
            }
        }
    }

    #[test]
    fn every_field_is_explained() {
        let mut found = Vec::new();
        for (kind, schema) in json_schema()["$defs"].as_object().unwrap() {
            unexplained(schema, kind, &mut found);
        }
        assert_eq!(found, Vec::<String>::new());
    }

    #[test]
    fn values_are_described_as_they_are_checked() {
        let schema = json_schema();
        let at =
            |path: &str| schema.pointer(&format!("/$defs/v1alpha1/properties/{path}")).cloned().unwrap_or_default();
        let machine = |path: &str| at(&format!("machine/properties/{}", path.replace('.', "/properties/")));
        assert_eq!(machine("install.diskSelector.type")["enum"], json!(["ssd", "hdd", "nvme", "sd"]));
        assert_eq!(machine("features.kubePrism.port")["maximum"], 65_535);
        assert_eq!(machine("time.bootTimeout")["pattern"], DURATION);
        assert_eq!(machine("install.bootloader"), json!({"type": "boolean", "deprecated": true}));
        assert_eq!(machine("kubelet.extraConfig")["type"], "object");
        let device = machine("network.interfaces")["items"]["properties"].clone();
        assert_eq!(device["cidr"], json!({"type": "string", "deprecated": true}));
        assert!(machine("kubelet")["description"].as_str().unwrap().starts_with("The kubelet"));
        let rule = &schema["$defs"]["NetworkRuleConfig"];
        assert_eq!(rule["required"], json!(["apiVersion", "kind", "name"]));
        assert_eq!(
            rule["properties"]["portSelector"]["properties"]["ports"]["items"]["type"],
            json!(["integer", "string"])
        );
    }
}
