//! Kubeconfig files as trees: entries are merged by name, everything else stays unchanged.

use serde_json::{Map, Value, json};

use super::Removed;
use crate::output::yaml_of;

#[cfg(test)]
mod tests;

/// A kubeconfig.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct KubeconfigFile {
    tree: Map<String, Value>,
}

/// Policy for an entry whose name is already taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Conflict {
    Rename,
    Overwrite,
}

/// Kind of entry, old name, new name.
pub(super) type Renamed = (&'static str, String, String);

/// List in the file, field of its entries, and its display name.
type Section = (&'static str, &'static str, &'static str);

const CLUSTERS: Section = ("clusters", "cluster", "cluster");
const USERS: Section = ("users", "user", "user");
const CONTEXTS: Section = ("contexts", "context", "context");

impl Conflict {
    pub(super) fn forced(force: bool) -> Self {
        if force { Self::Overwrite } else { Self::Rename }
    }
}

impl KubeconfigFile {
    /// Empty text is an empty kubeconfig.
    pub(super) fn parse(text: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        if text.trim().is_empty() {
            return Ok(Self { tree: empty() });
        }
        match yaml::from_str(text)? {
            Value::Object(tree) => Ok(Self { tree }),
            Value::Null => Ok(Self { tree: empty() }),
            _ => Err("not a map".into()),
        }
    }

    pub(super) fn to_yaml(&self) -> String {
        yaml_of(&Value::Object(self.tree.clone()))
    }

    fn entries(&self, section: Section) -> &[Value] {
        self.tree.get(section.0).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
    }

    fn find(&self, section: Section, name: &str) -> Option<&Value> {
        self.entries(section).iter().find(|entry| entry["name"] == name).map(|entry| &entry[section.1])
    }

    /// The certificate authority of a context's cluster, in base64.
    pub(super) fn authority(&self, context: &str) -> Option<&str> {
        let cluster = self.find(CONTEXTS, context)?["cluster"].as_str()?;
        self.find(CLUSTERS, cluster)?["certificate-authority-data"].as_str()
    }

    /// Takes a context out, with its cluster and its user unless others have them, if it is one of that authority. If it was
    /// current, `previous` is again, where it is still there.
    pub(super) fn remove(&mut self, name: &str, authority: &str, previous: &str) -> Removed {
        if self.authority(name) != Some(authority) {
            return Removed::Nothing;
        }
        let Some(context) = self.find(CONTEXTS, name).cloned() else { return Removed::Nothing };
        self.drop_entry(CONTEXTS, name);
        for (section, field) in [(CLUSTERS, "cluster"), (USERS, "user")] {
            let used = self.entries(CONTEXTS).iter().any(|entry| entry["context"][field] == context[field]);
            if let (Some(name), false) = (context[field].as_str(), used) {
                self.drop_entry(section, name);
            }
        }
        if self.current() == name {
            let current = if self.find(CONTEXTS, previous).is_some() { previous } else { "" };
            self.tree.insert("current-context".to_owned(), json!(current));
        }
        Removed::Context
    }

    fn drop_entry(&mut self, section: Section, name: &str) {
        if let Some(list) = self.tree.get_mut(section.0).and_then(Value::as_array_mut) {
            list.retain(|entry| entry["name"] != name);
        }
    }

    pub(super) fn current(&self) -> &str {
        self.tree.get("current-context").and_then(Value::as_str).unwrap_or_default()
    }

    /// Renames the current context.
    pub(super) fn rename_context(&mut self, name: &str) {
        let old = self.current().to_owned();
        if let Some(list) = self.tree.get_mut(CONTEXTS.0).and_then(Value::as_array_mut) {
            for entry in list.iter_mut().filter(|entry| entry["name"] == old.as_str()) {
                entry["name"] = json!(name);
            }
        }
        self.tree.insert("current-context".to_owned(), json!(name));
    }

    /// Merges the clusters, users and contexts of another file and adopts its current context.
    pub(super) fn merge(&mut self, other: &Self, conflict: Conflict) -> Vec<Renamed> {
        let mut renamed = Vec::new();
        let mut clusters = Map::new();
        let mut users = Map::new();
        for (section, names) in [(CLUSTERS, &mut clusters), (USERS, &mut users)] {
            for entry in other.entries(section) {
                let name = entry["name"].as_str().unwrap_or_default();
                let target = self.put(section, name, &entry[section.1], conflict, &mut renamed);
                names.insert(name.to_owned(), json!(target));
            }
        }
        for entry in other.entries(CONTEXTS) {
            let name = entry["name"].as_str().unwrap_or_default();
            let mut context = entry["context"].clone();
            for (field, names) in [("cluster", &clusters), ("user", &users)] {
                if let Some(target) = context[field].as_str().and_then(|old| names.get(old)).cloned() {
                    context[field] = target;
                }
            }
            let target = self.put(CONTEXTS, name, &context, conflict, &mut renamed);
            if name == other.current() {
                self.tree.insert("current-context".to_owned(), json!(target));
            }
        }
        renamed
    }

    /// Adds an entry under its name or, if a different entry has it, as `conflict` says; returns the name.
    fn put(
        &mut self,
        section: Section,
        name: &str,
        content: &Value,
        conflict: Conflict,
        renamed: &mut Vec<Renamed>,
    ) -> String {
        let fits = |candidate: &str| self.find(section, candidate).is_none_or(|taken| taken == content);
        let target = if conflict == Conflict::Overwrite || fits(name) {
            name.to_owned()
        } else {
            (1u64..).map(|n| format!("{name}-{n}")).find(|candidate| fits(candidate)).unwrap_or_default()
        };
        if target != name {
            renamed.push((section.2, name.to_owned(), target.clone()));
        }
        let entry = json!({ "name": target, section.1: content });
        let list = self.tree.entry(section.0).or_insert_with(|| json!([]));
        if !list.is_array() {
            *list = json!([]);
        }
        if let Some(list) = list.as_array_mut() {
            match list.iter_mut().find(|taken| taken["name"] == target.as_str()) {
                Some(taken) => *taken = entry,
                None => list.push(entry),
            }
        }
        target
    }
}

fn empty() -> Map<String, Value> {
    let mut tree = Map::new();
    tree.insert("apiVersion".to_owned(), json!("v1"));
    tree.insert("kind".to_owned(), json!("Config"));
    tree
}
