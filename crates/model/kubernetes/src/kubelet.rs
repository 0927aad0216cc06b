//! The kubelet's command line and `KubeletConfiguration`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Map, Value, json};

use crate::args::{Args, DeniedArgument, Policies, Policy};
use crate::paths;
use crate::version::{Feature, Version};

/// All inputs of the kubelet's configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct KubeletInput {
    pub version: Version,
    pub nodename: String,
    pub node_ips: Vec<IpAddr>,
    pub cluster_dns: Vec<String>,
    pub cluster_domain: String,
    pub extra_args: BTreeMap<String, String>,
    /// Merged over our configuration, mapping by mapping.
    pub extra_config: Map<String, Value>,
    pub cloud_provider_external: bool,
    pub default_runtime_seccomp: bool,
    /// Runs without an API server, for static pods only.
    pub skip_node_registration: bool,
    /// URL of static pods; empty for none.
    pub static_pod_list_url: String,
    pub manifests_directory: bool,
    pub fs_quota_monitoring: bool,
    pub credential_provider: bool,
    /// Fail if kernel parameters differ from the kubelet's expectation, instead of setting them.
    pub protect_kernel_defaults: bool,
    /// Resolver file for pods; empty for the node's own.
    pub resolv_conf: String,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KubeletError {
    #[error(transparent)]
    Argument(#[from] DeniedArgument),
    #[error("extra configuration field {name:?} of kubelet cannot be set: the system sets it")]
    DeniedField { name: String },
}

const ARG_POLICIES: Policies = &[
    ("bootstrap-kubeconfig", Policy::Deny),
    ("kubeconfig", Policy::Deny),
    ("container-runtime", Policy::Deny),
    ("container-runtime-endpoint", Policy::Deny),
    ("config", Policy::Deny),
    ("cert-dir", Policy::Deny),
];

/// Fields of `KubeletConfiguration` that the system sets itself, since the node could not work with other values. The
/// other ones that are rendered are defaults, which extra configuration overrides.
pub const SYSTEM_FIELDS: &[&str] = &[
    "apiVersion",
    "kind",
    "authentication",
    "authorization",
    "cgroupDriver",
    "cgroupRoot",
    "containerRuntimeEndpoint",
    "port",
    "protectKernelDefaults",
    "resolvConf",
    "rotateCertificates",
    "staticPodPath",
    "staticPodURL",
];

/// Flags, sorted, without the program's name.
///
/// # Errors
/// An extra argument that the system sets itself.
pub fn args(input: &KubeletInput) -> Result<Vec<String>, KubeletError> {
    let mut args = Args::default();
    args.set("config", paths::KUBELET_CONFIG);
    args.set("cert-dir", paths::KUBELET_PKI_DIR);
    args.set("hostname-override", &input.nodename);
    if !input.skip_node_registration {
        args.set("bootstrap-kubeconfig", paths::KUBELET_BOOTSTRAP_KUBECONFIG);
        args.set("kubeconfig", paths::KUBELET_KUBECONFIG);
    }
    if input.version.has(Feature::RuntimeEndpointFlag) {
        args.set("container-runtime-endpoint", paths::CRI_SOCKET);
    }
    if input.cloud_provider_external {
        args.set("cloud-provider", "external");
    }
    if !input.node_ips.is_empty() {
        let ips: Vec<String> = input.node_ips.iter().map(ToString::to_string).collect();
        args.set("node-ip", ips.join(","));
    }
    if input.credential_provider {
        args.set("image-credential-provider-config", paths::KUBELET_CREDENTIAL_PROVIDER_CONFIG);
        args.set("image-credential-provider-bin-dir", paths::KUBELET_CREDENTIAL_PROVIDER_BIN);
    }
    args.merge("kubelet", &input.extra_args, ARG_POLICIES)?;
    Ok(args.to_vec())
}

/// The `KubeletConfiguration` document.
///
/// # Errors
/// An extra field that the system sets itself.
pub fn configuration(input: &KubeletInput) -> Result<Value, KubeletError> {
    if let Some(name) = input.extra_config.keys().find(|name| SYSTEM_FIELDS.contains(&name.as_str())) {
        return Err(KubeletError::DeniedField { name: name.clone() });
    }
    let mut config = base(input);
    let gates = feature_gates(input);
    if !gates.is_empty() {
        config["featureGates"] = Value::Object(gates);
    }
    merge(&mut config, &Value::Object(input.extra_config.clone()));
    Ok(config)
}

fn base(input: &KubeletInput) -> Value {
    let version = input.version;
    let ipv6_only = !input.node_ips.is_empty() && input.node_ips.iter().all(IpAddr::is_ipv6);
    let mut config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": if ipv6_only { "::" } else { "0.0.0.0" },
        "port": 10250,
        "authentication": authentication(input),
        "authorization": { "mode": if input.skip_node_registration { "AlwaysAllow" } else { "Webhook" } },
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": "/",
        "clusterDNS": input.cluster_dns,
        "clusterDomain": input.cluster_domain,
        "failSwapOn": false,
        // The pause between two questions for static pods. The answer is held until there is something new, so that few
        // are polled often, so that changes are seen soon.
        "httpCheckFrequency": "100ms",
        // Computed often, so that a node is ready soon after its network is; reported only when something changed.
        "nodeStatusUpdateFrequency": "2s",
        "nodeStatusReportFrequency": "5m0s",
        "oomScoreAdj": -450,
        "protectKernelDefaults": input.protect_kernel_defaults,
        "rotateCertificates": true,
        "serializeImagePulls": false,
        "shutdownGracePeriod": "30s",
        "shutdownGracePeriodCriticalPods": "10s",
        "streamingConnectionIdleTimeout": "5m0s",
        "systemReserved": { "cpu": "50m", "memory": "192Mi", "pid": "100", "ephemeral-storage": "256Mi" },
        "tlsMinVersion": "VersionTLS13",
    });
    if !input.resolv_conf.is_empty() {
        config["resolvConf"] = json!(input.resolv_conf);
    }
    if input.manifests_directory {
        config["staticPodPath"] = json!(paths::MANIFESTS_DIR);
    }
    if !input.static_pod_list_url.is_empty() {
        config["staticPodURL"] = json!(input.static_pod_list_url);
    }
    if version.has(Feature::RuntimeEndpointField) {
        config["containerRuntimeEndpoint"] = json!(paths::CRI_SOCKET);
    }
    if input.default_runtime_seccomp {
        config["seccompDefault"] = json!(true);
    }
    config
}

fn authentication(input: &KubeletInput) -> Value {
    if input.skip_node_registration {
        return json!({
            "anonymous": { "enabled": false },
            "webhook": { "enabled": false },
            "x509": { "clientCAFile": paths::KUBERNETES_CA },
        });
    }
    json!({
        "anonymous": { "enabled": false },
        "webhook": { "enabled": true },
        "x509": { "clientCAFile": paths::KUBERNETES_CA },
    })
}

fn feature_gates(input: &KubeletInput) -> Map<String, Value> {
    let mut gates = Map::new();
    if input.fs_quota_monitoring {
        gates.insert("LocalStorageCapacityIsolationFSQuotaMonitoring".to_owned(), json!(true));
    }
    gates
}

/// Mappings are merged key by key; anything else is replaced.
fn merge(base: &mut Value, over: &Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                merge(base.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::kubelet_input;

    #[test]
    fn runtime_is_told_the_way_that_each_release_understands() {
        let flags = |minor| args(&kubelet_input(Version::new(1, minor, 0))).unwrap().join(" ");
        assert!(!flags(25).contains("--container-runtime="));
        assert!(flags(25).contains("--container-runtime-endpoint=unix://"));
        assert!(flags(26).contains("--container-runtime-endpoint="));
        assert!(!flags(27).contains("container-runtime"));
        let config = configuration(&kubelet_input(Version::new(1, 27, 0))).unwrap();
        assert_eq!(config["containerRuntimeEndpoint"], paths::CRI_SOCKET);
    }

    #[test]
    fn extra_configuration_is_merged_and_ours_is_denied() {
        let mut input = kubelet_input(Version::new(1, 30, 0));
        input.extra_config = json!({"systemReserved": {"cpu": "1"}, "maxPods": 250, "clusterDNS": ["10.0.0.1"]})
            .as_object()
            .unwrap()
            .clone();
        let config = configuration(&input).unwrap();
        assert_eq!(config["systemReserved"]["cpu"], "1");
        assert_eq!(config["systemReserved"]["memory"], "192Mi");
        assert_eq!(config["maxPods"], 250);
        assert_eq!(config["clusterDNS"], json!(["10.0.0.1"]));

        input.extra_config = json!({"staticPodPath": "/tmp"}).as_object().unwrap().clone();
        assert_eq!(configuration(&input), Err(KubeletError::DeniedField { name: "staticPodPath".to_owned() }));
    }

    /// Rendered fields that extra configuration may set.
    const DEFAULTS: &[&str] = &[
        "address",
        "clusterDNS",
        "clusterDomain",
        "failSwapOn",
        "featureGates",
        "httpCheckFrequency",
        "nodeStatusReportFrequency",
        "nodeStatusUpdateFrequency",
        "oomScoreAdj",
        "seccompDefault",
        "serializeImagePulls",
        "shutdownGracePeriod",
        "shutdownGracePeriodCriticalPods",
        "streamingConnectionIdleTimeout",
        "systemReserved",
        "tlsMinVersion",
    ];

    #[test]
    fn every_rendered_field_is_the_systems_or_a_default() {
        for minor in crate::version::SUPPORTED_MINORS {
            let mut input = kubelet_input(Version::new(1, *minor, 0));
            input.resolv_conf = "/etc/resolv.conf".to_owned();
            input.manifests_directory = true;
            input.static_pod_list_url = "http://127.0.0.1/".to_owned();
            input.fs_quota_monitoring = true;
            for field in configuration(&input).unwrap().as_object().unwrap().keys() {
                let known = [SYSTEM_FIELDS, DEFAULTS].iter().filter(|list| list.contains(&field.as_str())).count();
                assert_eq!(known, 1, "{field}");
            }
        }
    }

    #[test]
    fn extra_argument_that_is_ours_is_denied() {
        let mut input = kubelet_input(Version::new(1, 30, 0));
        input.extra_args.insert("kubeconfig".to_owned(), "/tmp/x".to_owned());
        assert!(matches!(args(&input), Err(KubeletError::Argument(denied)) if denied.name == "kubeconfig"));
    }

    #[test]
    fn without_an_api_server_no_kubeconfig_is_named() {
        let mut input = kubelet_input(Version::new(1, 30, 0));
        input.skip_node_registration = true;
        assert!(!args(&input).unwrap().join(" ").contains("kubeconfig"));
        assert_eq!(configuration(&input).unwrap()["authentication"]["webhook"]["enabled"], false);
    }
}
