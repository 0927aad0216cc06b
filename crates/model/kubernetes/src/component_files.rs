//! Configuration files of the control plane's components: admission, audit, encryption at rest, scheduler.

use serde_json::{Map, Value, json};

use crate::paths;

pub const ADMISSION_CONFIG_FILE: &str = "admission-control-config.yaml";
pub const AUDIT_POLICY_FILE: &str = "auditpolicy.yaml";
pub const SCHEDULER_CONFIG_FILE: &str = "scheduler-config.yaml";
pub const ENCRYPTION_CONFIG_FILE: &str = "encryptionconfig.yaml";

const POD_SECURITY: &str = "PodSecurity";

/// A plug-in and its configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct AdmissionPlugin {
    pub name: String,
    pub configuration: Map<String, Value>,
}

/// `AdmissionConfiguration`; moves the configuration of `PodSecurity` to the API version that every supported release has.
#[must_use]
pub fn admission(plugins: &[AdmissionPlugin]) -> Value {
    let plugins: Vec<Value> = plugins
        .iter()
        .map(|plugin| {
            let mut configuration = plugin.configuration.clone();
            if plugin.name == POD_SECURITY && configuration.contains_key("apiVersion") {
                configuration.insert("apiVersion".to_owned(), json!("pod-security.admission.config.k8s.io/v1"));
            }
            json!({ "name": plugin.name, "configuration": configuration })
        })
        .collect();
    json!({
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "AdmissionConfiguration",
        "plugins": plugins,
    })
}

/// Default configuration of `PodSecurity`: baseline enforced, restricted warned about and audited, the system's own
/// namespace exempt.
#[must_use]
pub fn default_pod_security() -> AdmissionPlugin {
    let configuration = json!({
        "apiVersion": "pod-security.admission.config.k8s.io/v1alpha1",
        "kind": "PodSecurityConfiguration",
        "defaults": {
            "enforce": "baseline",
            "enforce-version": "latest",
            "audit": "restricted",
            "audit-version": "latest",
            "warn": "restricted",
            "warn-version": "latest",
        },
        "exemptions": { "usernames": [], "runtimeClasses": [], "namespaces": ["kube-system"] },
    });
    AdmissionPlugin {
        name: POD_SECURITY.to_owned(),
        configuration: configuration.as_object().cloned().unwrap_or_default(),
    }
}

/// Everything at level `Metadata`.
#[must_use]
pub fn default_audit_policy() -> Value {
    json!({ "apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [{ "level": "Metadata" }] })
}

/// `EncryptionConfiguration` for secrets: the first key encrypts, all keys decrypt, plain text can still be read.
/// Keys are base64; an empty key is absent.
#[must_use]
pub fn encryption(secretbox_key: &str, aescbc_key: &str) -> Value {
    let mut providers = Vec::new();
    if !secretbox_key.is_empty() {
        providers.push(json!({ "secretbox": { "keys": [{ "name": "key2", "secret": secretbox_key }] } }));
    }
    if !aescbc_key.is_empty() {
        providers.push(json!({ "aescbc": { "keys": [{ "name": "key1", "secret": aescbc_key }] } }));
    }
    providers.push(json!({ "identity": {} }));
    json!({
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "EncryptionConfiguration",
        "resources": [{ "resources": ["secrets"], "providers": providers }],
    })
}

/// `KubeSchedulerConfiguration`: the user's, with our client connection.
#[must_use]
pub fn scheduler(user: &Map<String, Value>) -> Value {
    let mut config = user.clone();
    config.entry("apiVersion").or_insert_with(|| json!("kubescheduler.config.k8s.io/v1"));
    config.entry("kind").or_insert_with(|| json!("KubeSchedulerConfiguration"));
    let kubeconfig = format!("{}/kube-scheduler/kubeconfig", paths::SECRETS_DIR);
    let connection = config.entry("clientConnection").or_insert_with(|| json!({}));
    if let Value::Object(connection) = connection {
        connection.insert("kubeconfig".to_owned(), json!(kubeconfig));
    } else {
        *connection = json!({ "kubeconfig": kubeconfig });
    }
    Value::Object(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pod_security_is_configured_in_the_version_that_releases_have() {
        let new = admission(&[default_pod_security()]);
        assert_eq!(new["plugins"][0]["configuration"]["apiVersion"], "pod-security.admission.config.k8s.io/v1");
        assert_eq!(new["plugins"][0]["configuration"]["exemptions"]["namespaces"], json!(["kube-system"]));
    }

    #[test]
    fn first_encryption_provider_is_secretbox_and_last_is_plain() {
        let providers = encryption("c2VjcmV0", "b2xk")["resources"][0]["providers"].clone();
        assert_eq!(providers[0]["secretbox"]["keys"][0]["secret"], "c2VjcmV0");
        assert_eq!(providers[1]["aescbc"]["keys"][0]["secret"], "b2xk");
        assert_eq!(providers[2], json!({ "identity": {} }));
        assert_eq!(encryption("", "")["resources"][0]["providers"], json!([{ "identity": {} }]));
    }

    #[test]
    fn scheduler_keeps_what_the_user_configures_but_not_the_kubeconfig() {
        let user = json!({"profiles": [{"schedulerName": "x"}], "clientConnection": {"qps": 5, "kubeconfig": "/no"}});
        let config = scheduler(user.as_object().unwrap());
        assert_eq!(config["profiles"][0]["schedulerName"], "x");
        assert_eq!(config["clientConnection"]["qps"], 5);
        assert_eq!(config["clientConnection"]["kubeconfig"], "/system/secrets/kubernetes/kube-scheduler/kubeconfig");
    }
}
