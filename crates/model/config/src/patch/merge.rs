//! The rules of strategic merges: mappings merge, lists append, single values are replaced, but for the fields below.

use serde_json::Value;

use crate::documents::Documents;

/// Exceptions to the usual merge of a field.
enum Rule {
    /// The patch replaces the value.
    Replace,
    /// Elements with the same value in one of these fields merge.
    ByField(&'static [&'static str]),
}

/// Paths of root documents; list steps are left out.
fn rule(path: &[&str]) -> Option<Rule> {
    match path {
        ["cluster", "network", "podSubnets" | "serviceSubnets"] | ["cluster", "apiServer", "auditPolicy"] => {
            Some(Rule::Replace)
        }
        ["machine", "network", "interfaces"] => Some(Rule::ByField(&["interface", "deviceSelector"])),
        ["machine", "network", "interfaces", "vlans"] => Some(Rule::ByField(&["vlanId"])),
        ["cluster", "apiServer", "admissionControl"] => Some(Rule::ByField(&["name"])),
        _ => None,
    }
}

/// Merges each document of a patch into the one of the same kind and name, or adds it.
pub(super) fn documents(base: &mut Vec<Value>, patch: &Documents) {
    for document in patch.documents() {
        let value = document.to_value();
        let identity = |value: &Value| {
            ["apiVersion", "kind", "name"].map(|key| value.get(key).and_then(Value::as_str).map(str::to_owned))
        };
        match base.iter_mut().find(|known| identity(known) == identity(&value)) {
            Some(known) => merge(known, value, &[]),
            None => base.push(value),
        }
    }
}

fn merge(base: &mut Value, patch: Value, path: &[&str]) {
    match (base, patch) {
        (base, patch) if matches!(rule(path), Some(Rule::Replace)) => *base = patch,
        (Value::Object(base), Value::Object(patch)) => {
            for (key, value) in patch {
                match base.get_mut(&key) {
                    Some(known) => {
                        let mut below = path.to_vec();
                        below.push(&key);
                        merge(known, value, &below);
                    }
                    None => drop(base.insert(key, value)),
                }
            }
        }
        (Value::Array(base), Value::Array(patch)) => match rule(path) {
            Some(Rule::ByField(fields)) => {
                for item in patch {
                    match base.iter_mut().find(|known| same(known, &item, fields)) {
                        Some(known) => merge(known, item, path),
                        None => base.push(item),
                    }
                }
            }
            _ => base.extend(patch),
        },
        (base, patch) => *base = patch,
    }
}

/// Whether two elements are the same by the first field that one of them has.
fn same(one: &Value, two: &Value, fields: &[&str]) -> bool {
    fields.iter().any(|field| match (one.get(field), two.get(field)) {
        (Some(one), Some(two)) => text(one) == text(two),
        _ => false,
    })
}

/// The base is as it was written, the patch as its type says: `"5"` and `5` are the same VLAN.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
