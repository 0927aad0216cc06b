//! Differences between two configurations: as text, and as the fields that need a reboot.

use serde_json::Value;
use similar::TextDiff;

use crate::documents::Documents;
use crate::v1alpha1::Config;

/// Unified difference of all documents, written without comments; empty when nothing changes.
#[must_use]
pub fn diff(old: &Documents, new: &Documents) -> String {
    diff_texts(&old.to_yaml(), &new.to_yaml())
}

/// Unified difference of two texts, three lines of context; empty when they are equal.
#[must_use]
pub fn diff_texts(old: &str, new: &str) -> String {
    if old == new {
        return String::new();
    }
    TextDiff::from_lines(old, new).unified_diff().context_radius(3).header("a", "b").to_string()
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
/// Fields of `machine.features` that take effect without a reboot.
const LIVE_FEATURES: &[&str] = &["kubernetesTalosAPIAccess", "kubePrism", "hostDNS"];

/// The fields whose change needs a reboot, such as `machine.type`; empty when the change can be applied to a running
/// machine. `debug` and everything of `cluster` can, and so can all documents beside the root document.
#[must_use]
pub fn needs_reboot(old: &Config, new: &Config) -> Vec<String> {
    let machine = |config: &Config| serde_json::to_value(config.machine()).unwrap_or_default();
    let (old_machine, new_machine) = (machine(old), machine(new));
    let mut changed = Vec::new();
    if old.persist != new.persist {
        changed.push("persist".to_owned());
    }
    for field in changed_fields(&old_machine, &new_machine) {
        if field == "features" {
            let below = changed_fields(&old_machine["features"], &new_machine["features"]);
            let fixed = below.into_iter().filter(|name| !LIVE_FEATURES.contains(&name.as_str()));
            changed.extend(fixed.map(|name| format!("machine.features.{name}")));
        } else if !LIVE.contains(&field.as_str()) {
            changed.push(format!("machine.{field}"));
        }
    }
    changed
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
}
