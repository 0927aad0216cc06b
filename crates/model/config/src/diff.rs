//! Differences between two configurations: as text, and as the fields that need a reboot.

use std::collections::HashMap;

use serde_json::Value;
use similar::TextDiff;

use crate::document::Document;
use crate::documents::Documents;
use crate::v1alpha1::Config;

/// Unified difference of the documents, each compared with the one of its kind and name, three lines of context; empty
/// when nothing changes. Comments, old spellings, the order of documents and that of the keys in a mapping are no
/// difference. Of documents beside the root document the headers say kind and name.
#[must_use]
pub fn diff(old: &Documents, new: &Documents) -> String {
    let (before, after) = (by_identity(old), by_identity(new));
    let mut text = String::new();
    for document in old.documents() {
        let now = document.to_value();
        let then = after.get(&(document.kind(), document.name())).map(|then| then.to_value());
        // in the order of the old one, so that only real differences show
        let then = then.map(|then| in_order_of(then, &now));
        text.push_str(&unified(document, Some(&now), then.as_ref()));
    }
    for document in new.documents().iter().filter(|one| !before.contains_key(&(one.kind(), one.name()))) {
        text.push_str(&unified(document, None, Some(&document.to_value())));
    }
    text
}

fn by_identity(documents: &Documents) -> HashMap<(&str, Option<&str>), &Document> {
    documents.documents().iter().map(|document| ((document.kind(), document.name()), document)).collect()
}

fn unified(document: &Document, old: Option<&Value>, new: Option<&Value>) -> String {
    if old == new {
        return String::new();
    }
    let text = |value: Option<&Value>| value.map(yaml::to_text).unwrap_or_default();
    let place = match (document, document.name()) {
        (Document::V1alpha1(_), _) => String::new(),
        (other, None) => format!("/{}", other.kind()),
        (other, Some(name)) => format!("/{}/{name}", other.kind()),
    };
    let header = |side: &str, value: Option<&Value>| match value {
        Some(_) => format!("{side}{place}"),
        None => "/dev/null".to_owned(),
    };
    let (from, to) = (header("a", old), header("b", new));
    TextDiff::from_lines(&text(old), &text(new)).unified_diff().context_radius(3).header(&from, &to).to_string()
}

/// The value with its mappings' keys in the order of the other's, new ones last.
fn in_order_of(value: Value, other: &Value) -> Value {
    match (value, other) {
        (Value::Object(mut map), Value::Object(other)) => {
            let mut ordered = serde_json::Map::new();
            for (key, other) in other {
                if let Some(value) = map.shift_remove(key) {
                    ordered.insert(key.clone(), in_order_of(value, other));
                }
            }
            ordered.extend(map);
            Value::Object(ordered)
        }
        (Value::Array(items), Value::Array(others)) => {
            let mut others = others.iter();
            items
                .into_iter()
                .map(|item| match others.next() {
                    Some(other) => in_order_of(item, other),
                    None => item,
                })
                .collect()
        }
        (value, _) => value,
    }
}

/// Fields of `machine` that take effect without a reboot.
const LIVE: &[&str] = &[
    "time",
    "ca",
    "acceptedCAs",
    "certSANs",
    "install",
    "network",
    "nodeLabels",
    "nodeTaints",
    "sysfs",
    "sysctls",
    "logging",
    "controlPlane",
    "kubelet",
    "kernel",
    "registries",
    "pods",
    "seccompProfiles",
];
/// The encryption of volumes, of which keys alone take effect without a reboot (ours; Talos 1.7 reboots).
const ENCRYPTION: &str = "systemDiskEncryption";
/// Fields of `machine.features` that take effect without a reboot.
const LIVE_FEATURES: &[&str] = &["kubernetesTalosAPIAccess", "kubePrism", "hostDNS"];

/// The fields whose change needs a reboot, such as `machine.type`; empty when the change can be applied to a running
/// machine. `debug` and everything of `cluster` can, and so can all documents beside the root document.
#[must_use]
pub fn needs_reboot(old: &Config, new: &Config) -> Vec<String> {
    let machine = |config: &Config| serde_json::to_value(config.machine()).unwrap_or_default();
    let (old_machine, new_machine) = (machine(old), machine(new));
    let mut changed = Vec::new();
    for field in changed_fields(&old_machine, &new_machine) {
        if field == "features" {
            let below = changed_fields(&old_machine["features"], &new_machine["features"]);
            let fixed = below.into_iter().filter(|name| !LIVE_FEATURES.contains(&name.as_str()));
            changed.extend(fixed.map(|name| format!("machine.features.{name}")));
        } else if field == ENCRYPTION {
            let (old, new) = (&old_machine[ENCRYPTION], &new_machine[ENCRYPTION]);
            let fixed = changed_fields(old, new).into_iter().filter(|volume| !only_keys(&old[volume], &new[volume]));
            changed.extend(fixed.map(|volume| format!("machine.{ENCRYPTION}.{volume}")));
        } else if !LIVE.contains(&field.as_str()) {
            changed.push(format!("machine.{field}"));
        }
    }
    changed
}

/// Whether only the keys of an encrypted volume differ: they change while it is in use.
fn only_keys(old: &Value, new: &Value) -> bool {
    !old.is_null() && !new.is_null() && changed_fields(old, new) == ["keys"]
}

fn changed_fields(old: &Value, new: &Value) -> Vec<String> {
    let keys = |value: &Value| value.as_object().map(|map| map.keys().cloned().collect::<Vec<_>>()).unwrap_or_default();
    let mut fields = keys(old);
    fields.extend(keys(new));
    fields.sort();
    fields.dedup();
    fields.retain(|field| old.get(field) != new.get(field));
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    fn documents(text: &str) -> Documents {
        Documents::from_yaml(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_difference_shows_lines_and_ignores_comments() {
        let old = documents("machine:\n    type: worker # c\n    sysctls: {a: b}\n");
        let new = documents("machine:\n    type: worker\n    sysctls: {a: c}\n");
        assert_eq!(
            diff(&old, &new),
            "--- a\n+++ b\n@@ -1,4 +1,4 @@\n machine:\n     type: worker\n     sysctls:\n-        a: b\n+        a: c\n"
        );
        assert_eq!(diff(&old, &documents("machine: {sysctls: {a: b}, type: worker}\n")), "");
    }

    const LOG: &str = "apiVersion: v1alpha1\nkind: KmsgLogConfig\nname: a\nurl: tcp://10.0.0.1:514/\n";

    #[test]
    fn order_of_documents_and_of_keys_is_no_difference() {
        let old = documents(&format!("machine:\n  sysctls: {{a: b, c: d}}\n  env: {{X: y}}\n---\n{LOG}"));
        let new = documents(&format!("{LOG}---\nmachine:\n  env: {{X: y}}\n  sysctls: {{c: d, a: b}}\n"));
        assert_eq!(diff(&old, &new), "");
        assert_eq!(diff(&documents("machine: {type: join}\n"), &documents("machine: {type: worker}\n")), "");
        let more = documents(&format!("{LOG}---\nmachine:\n  env: {{X: y}}\n  sysctls: {{c: e, a: b}}\n"));
        let lines: Vec<_> =
            diff(&old, &more).lines().filter(|line| line.starts_with(['-', '+'])).map(String::from).collect();
        assert_eq!(lines, ["--- a", "+++ b", "-        c: d", "+        c: e"]);
    }

    #[test]
    fn documents_are_compared_with_those_of_their_kind_and_name() {
        let root = "machine:\n  type: worker\n";
        let other = LOG.replace("name: a", "name: b");
        let old = documents(&format!("{root}---\n{LOG}"));
        let new = documents(&format!("{root}---\n{other}---\n{}", LOG.replace(":514", ":515")));
        let text = diff(&old, &new);
        let headers: Vec<_> = text.lines().filter(|line| line.starts_with("---") || line.starts_with("+++")).collect();
        let changed = ["--- a/KmsgLogConfig/a", "+++ b/KmsgLogConfig/a"];
        assert_eq!(headers, [changed[0], changed[1], "--- /dev/null", "+++ b/KmsgLogConfig/b"]);
        assert!(text.contains("-url: tcp://10.0.0.1:514/\n+url: tcp://10.0.0.1:515/\n"), "{text}");
        let gone = diff(&old, &documents(root));
        assert!(gone.starts_with("--- a/KmsgLogConfig/a\n+++ /dev/null\n"), "{gone}");
    }

    #[test]
    fn only_some_fields_need_a_reboot() {
        let changed =
            |old: &str, new: &str| needs_reboot(documents(old).v1alpha1().unwrap(), documents(new).v1alpha1().unwrap());
        let old = "machine:\n  type: worker\n  features: {rbac: true}\n";
        let live = "debug: true\nmachine:\n  type: worker\n  sysctls: {a: b}\n  features: {rbac: true, kubePrism: {enabled: true}}\ncluster: {clusterName: x}\n";
        assert!(changed(old, live).is_empty());
        let fixed = "machine:\n  type: controlplane\n  files: [{path: /var/a}]\n  features: {rbac: false}\n";
        assert_eq!(changed(old, fixed), ["machine.features.rbac", "machine.files", "machine.type"]);
    }

    const BASE: &str = "version: v1alpha1\nmachine:\n  type: worker\n  token: a\n  kubelet: {}\n  features:\n    \
                        rbac: true\n    kubePrism: {enabled: true}\ncluster: {id: x}\n";

    fn fixed(old: &str, new: &str) -> Vec<String> {
        needs_reboot(documents(old).v1alpha1().unwrap(), documents(new).v1alpha1().unwrap())
    }

    #[test]
    fn live_fields_and_other_documents_need_no_reboot() {
        let new = BASE.replace("kubelet: {}", "kubelet: {image: y}").replace("enabled: true", "enabled: false");
        let other = "---\napiVersion: v1alpha1\nkind: KmsgLogConfig\nname: a\nurl: tcp://10.0.0.1:514/\n";
        let new = format!("{}debug: true\n{other}", new.replace("id: x", "id: z"));
        assert_eq!(fixed(BASE, &new), Vec::<String>::new());
    }

    #[test]
    fn fixed_fields_are_named_by_path() {
        let new = BASE.replace("type: worker", "type: controlplane").replace("rbac: true", "rbac: false");
        let new = new.replace("  token: a\n", "  env: {A: b}\n");
        assert_eq!(fixed(BASE, &new), ["machine.env", "machine.features.rbac", "machine.token", "machine.type"]);
    }

    #[test]
    fn order_and_layout_are_no_difference() {
        let new = "cluster: {id: x}\nmachine: {features: {kubePrism: {enabled: true}, rbac: true}, kubelet: {}, \
                   token: a, type: worker}\nversion: v1alpha1\n";
        assert_eq!(fixed(BASE, new), Vec::<String>::new());
    }

    #[test]
    fn keys_of_encrypted_volumes_change_without_a_reboot_and_nothing_else_of_them() {
        let volume = |name: &str, more: &str, key: &str| {
            format!(
                "machine: {{systemDiskEncryption: {{{name}: {{provider: luks2, {more}keys: [{{static: {{passphrase: {key}}}}}]}}}}}}"
            )
        };
        let changed =
            |old: &str, new: &str| needs_reboot(documents(old).v1alpha1().unwrap(), documents(new).v1alpha1().unwrap());
        let old = volume("state", "", "one");
        assert!(changed(&old, &volume("state", "", "two")).is_empty());
        for new in [volume("state", "keySize: 256, ", "two"), "machine: {type: worker}".to_owned()] {
            assert!(changed(&old, &new).contains(&"machine.systemDiskEncryption.state".to_owned()), "{new}");
        }
        let both = ["machine.systemDiskEncryption.ephemeral", "machine.systemDiskEncryption.state"];
        assert_eq!(changed(&old, &volume("ephemeral", "", "one")), both);
    }
}
