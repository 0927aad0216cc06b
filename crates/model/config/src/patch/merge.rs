//! Strategic merges: mappings merge, lists append, single values are replaced, but for the fields of one table.
//!
//! A value that says nothing (null, an empty text or list, zero) does not undo one that is there. The entries of a
//! mapping whose keys the user chooses always count: an empty label is a label.

use std::collections::HashMap;

use serde_json::{Map, Value};

use crate::documents::Documents;
use crate::shape::{self, Shape};

/// Exceptions to the usual merge of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// The patch replaces the value.
    Replace,
    /// Elements with the same value in one of these fields merge.
    ByField(&'static [&'static str]),
}

/// Kind, path with `[]` for the elements of a list, and rule.
const RULES: &[(&str, &str, Rule)] = &[
    (shape::ROOT, "machine.network.interfaces", Rule::ByField(&["interface", "deviceSelector"])),
    (shape::ROOT, "machine.network.interfaces[].vlans", Rule::ByField(&["vlanId"])),
    (shape::ROOT, "cluster.network.podSubnets", Rule::Replace),
    (shape::ROOT, "cluster.network.serviceSubnets", Rule::Replace),
    (shape::ROOT, "cluster.apiServer.auditPolicy", Rule::Replace),
    (shape::ROOT, "cluster.apiServer.admissionControl", Rule::ByField(&["name"])),
    ("NetworkRuleConfig", "portSelector.ports", Rule::Replace),
    ("NetworkRuleConfig", "ingress", Rule::Replace),
    ("ExtensionServiceConfig", "configFiles", Rule::ByField(&["mountPath"])),
];

/// A place in a document of a kind.
#[derive(Clone, Copy)]
struct At<'a> {
    kind: &'a str,
    path: &'a str,
    shape: Option<&'a Shape>,
}

impl At<'_> {
    fn rule(self) -> Option<Rule> {
        RULES.iter().find(|(kind, path, _)| *kind == self.kind && *path == self.path).map(|(_, _, rule)| *rule)
    }

    /// Whether entries of a mapping here are the user's own.
    fn has_own_names(self) -> bool {
        matches!(self.shape, Some(Shape::Names(_) | Shape::Any) | None)
    }
}

/// Merges each document of a patch into the one of the same kind and name, or adds it.
pub(super) fn documents(base: &mut Vec<Value>, patch: &Documents) {
    let identity = |value: &Value| {
        let text = |key| value.get(key).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned);
        ["apiVersion", "kind", "name"].map(text)
    };
    let mut known: HashMap<_, usize> =
        base.iter().enumerate().rev().map(|(index, value)| (identity(value), index)).collect();
    for (document, value) in patch.documents().iter().zip(patch.values()) {
        let at = At { kind: document.kind(), path: "", shape: shape::of(document.kind()) };
        let index = *known.entry(identity(&value)).or_insert_with(|| {
            base.push(Value::Object(Map::new()));
            base.len() - 1
        });
        merge(&mut base[index], value, at);
    }
}

fn merge(base: &mut Value, patch: Value, at: At<'_>) {
    match patch {
        patch if at.rule() == Some(Rule::Replace) => *base = patch,
        Value::Object(patch) => {
            if !base.is_object() {
                *base = Value::Object(Map::new());
            }
            if let Value::Object(base) = base {
                members(base, patch, at);
            }
        }
        Value::Array(patch) => {
            if !base.is_array() {
                *base = Value::Array(Vec::new());
            }
            if let Value::Array(base) = base {
                elements(base, patch, at);
            }
        }
        patch => *base = patch,
    }
}

fn members(base: &mut Map<String, Value>, patch: Map<String, Value>, at: At<'_>) {
    for (key, value) in patch {
        if !at.has_own_names() && says_nothing(&value) {
            continue;
        }
        let path = if at.path.is_empty() { key.clone() } else { format!("{}.{key}", at.path) };
        let below = At { kind: at.kind, path: &path, shape: at.shape.and_then(|shape| shape.at(&key)) };
        merge(base.entry(key).or_insert(Value::Null), value, below);
    }
}

/// Elements of a patch meet those of the same patch, too.
fn elements(base: &mut Vec<Value>, patch: Vec<Value>, at: At<'_>) {
    let Some(Rule::ByField(fields)) = at.rule() else { return base.extend(patch) };
    let path = format!("{}[]", at.path);
    let below = At { kind: at.kind, path: &path, shape: at.shape.and_then(Shape::element) };
    let mut known = HashMap::new();
    for (index, item) in base.iter().enumerate() {
        if let Some(key) = key(item, fields) {
            known.entry(key).or_insert(index);
        }
    }
    for item in patch {
        let index = key(&item, fields).map(|key| *known.entry(key).or_insert(base.len()));
        let index = index.unwrap_or(base.len());
        if index == base.len() {
            base.push(Value::Null);
        }
        merge(&mut base[index], item, below);
    }
}

/// Zero values: they are what an absent field means. `false` says something.
fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Number(number) => number.as_u64() == Some(0),
        Value::Array(items) => items.is_empty(),
        Value::Bool(_) | Value::Object(_) => false,
    }
}

/// What an element is known by: the first field that it has, and its value.
fn key(element: &Value, fields: &[&'static str]) -> Option<(&'static str, String)> {
    fields.iter().find_map(|field| Some((*field, pruned(element.get(field)?)?.to_string())))
}

/// A value without what says nothing in it, and with its keys sorted; `None` where nothing is left.
fn pruned(value: &Value) -> Option<Value> {
    match value {
        Value::Object(map) => {
            let mut map: Map<_, _> =
                map.iter().filter_map(|(key, value)| Some((key.clone(), pruned(value)?))).collect();
            map.sort_keys();
            (!map.is_empty()).then_some(Value::Object(map))
        }
        value => (!says_nothing(value)).then(|| value.clone()),
    }
}
