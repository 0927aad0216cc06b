//! Which object of the Kubernetes API a manifest's item is.

use std::fmt;

use serde_json::Value;

/// Which object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectRef {
    pub api_version: String,
    pub kind: String,
    /// Empty for what is not in a namespace.
    pub namespace: String,
    pub name: String,
}

impl ObjectRef {
    /// What a manifest names; missing parts are empty.
    #[must_use]
    pub fn of(object: &Value) -> Self {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        Self {
            api_version: text("/apiVersion"),
            kind: text("/kind"),
            namespace: text("/metadata/namespace"),
            name: text("/metadata/name"),
        }
    }

    /// The objects that a manifest's item stands for: itself, or the items of a list.
    #[must_use]
    pub fn all_of(item: &Value) -> Vec<Self> {
        let mut flat = Vec::new();
        flatten(item, &mut flat);
        flat.iter().map(Self::of).collect()
    }

    /// API group; empty for the core group.
    #[must_use]
    pub fn group(&self) -> &str {
        self.api_version.split_once('/').map_or("", |(group, _version)| group)
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.api_version, self.kind)?;
        if !self.namespace.is_empty() {
            write!(f, " {}", self.namespace)?;
        }
        write!(f, " {}", self.name)
    }
}

/// Takes lists apart.
pub(crate) fn flatten(object: &Value, flat: &mut Vec<Value>) {
    let is_list = object["kind"].as_str().is_some_and(|kind| kind.ends_with("List"));
    match object["items"].as_array() {
        Some(items) if is_list => {
            for item in items {
                flatten(item, flat);
            }
        }
        _ => flat.push(object.clone()),
    }
}
