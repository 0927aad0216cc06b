//! kube-apiserver.

use serde_json::Value;

use super::pod::{self, Component};
use super::{API_SERVER, API_SERVER_UID, Customization, Revisions};
use crate::args::{Args, DeniedArgument, Policies, Policy};
use crate::component_files;
use crate::paths;
use crate::version::{Feature, Version};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiServerInput {
    pub image: String,
    /// `external`, or empty.
    pub cloud_provider: String,
    /// URL of the cluster's endpoint; issuer of service account tokens.
    pub endpoint: String,
    pub etcd_servers: Vec<String>,
    pub local_port: u16,
    pub service_cidrs: Vec<String>,
    /// Left to the server when empty.
    pub advertised_address: String,
    pub custom: Customization,
    pub revisions: Revisions,
}

const POLICIES: Policies = &[
    ("authorization-mode", Policy::Append),
    ("client-ca-file", Policy::Deny),
    ("enable-admission-plugins", Policy::Append),
    ("etcd-cafile", Policy::Deny),
    ("etcd-certfile", Policy::Deny),
    ("etcd-keyfile", Policy::Deny),
    ("etcd-servers", Policy::Deny),
    ("feature-gates", Policy::Append),
    ("kubelet-client-certificate", Policy::Deny),
    ("kubelet-client-key", Policy::Deny),
    ("proxy-client-cert-file", Policy::Deny),
    ("proxy-client-key-file", Policy::Deny),
    ("requestheader-client-ca-file", Policy::Deny),
    ("secure-port", Policy::Deny),
    ("service-account-key-file", Policy::Deny),
    ("service-account-signing-key-file", Policy::Deny),
    ("tls-cert-file", Policy::Deny),
    ("tls-private-key-file", Policy::Deny),
];

const CIPHER_SUITES: &str = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,\
    TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,\
    TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,\
    TLS_AES_128_GCM_SHA256,TLS_AES_256_GCM_SHA384,TLS_CHACHA20_POLY1305_SHA256";

/// The pod.
///
/// # Errors
/// An extra argument that the system sets itself.
pub fn api_server(input: &ApiServerInput) -> Result<Value, DeniedArgument> {
    let version = Version::of_image_or_newest(&input.image);
    let mut args = Args::default();
    set_serving(&mut args, input);
    set_identity(&mut args, input);
    set_policy(&mut args, input, version);
    args.merge(API_SERVER, &input.custom.extra_args, POLICIES)?;
    Ok(pod::render(Component {
        name: API_SERVER,
        image: &input.image,
        uid: API_SERVER_UID,
        args: args.to_vec(),
        custom: &input.custom,
        revisions: &input.revisions,
        default_cpu: "200m",
        default_memory: "512Mi",
        // The image's file capability requires it; without it the kernel refuses to run the program.
        capabilities: &["NET_BIND_SERVICE"],
        config_files: true,
        volumes: vec![pod::host_path("audit", paths::AUDIT_LOG_DIR, paths::AUDIT_LOG_DIR, "DirectoryOrCreate", false)],
        probe_port: None,
    }))
}

fn secret(file: &str) -> String {
    format!("{}/{API_SERVER}/{file}", paths::SECRETS_DIR)
}

fn config(file: &str) -> String {
    format!("{}/{API_SERVER}/{file}", paths::CONFIG_DIR)
}

fn set_serving(args: &mut Args, input: &ApiServerInput) {
    let ipv6_only = !input.service_cidrs.is_empty() && input.service_cidrs.iter().all(|cidr| cidr.contains(':'));
    args.set("bind-address", if ipv6_only { "::" } else { "0.0.0.0" });
    args.set("secure-port", input.local_port.to_string());
    if !input.advertised_address.is_empty() {
        args.set("advertise-address", &input.advertised_address);
    }
    args.set("service-cluster-ip-range", input.service_cidrs.join(","));
    args.set("tls-cert-file", secret("apiserver.crt"));
    args.set("tls-private-key-file", secret("apiserver.key"));
    args.set("tls-min-version", "VersionTLS12");
    args.set("tls-cipher-suites", CIPHER_SUITES);
    args.set("profiling", "false");
    args.set("etcd-servers", input.etcd_servers.join(","));
    args.set("etcd-cafile", secret("etcd-client-ca.crt"));
    args.set("etcd-certfile", secret("etcd-client.crt"));
    args.set("etcd-keyfile", secret("etcd-client.key"));
    args.set("kubelet-client-certificate", secret("apiserver-kubelet-client.crt"));
    args.set("kubelet-client-key", secret("apiserver-kubelet-client.key"));
    args.set("kubelet-preferred-address-types", "InternalIP,ExternalIP,Hostname");
    args.set("encryption-provider-config", secret(component_files::ENCRYPTION_CONFIG_FILE));
}

fn set_identity(args: &mut Args, input: &ApiServerInput) {
    args.set("anonymous-auth", "false");
    args.set("client-ca-file", secret("ca.crt"));
    args.set("enable-bootstrap-token-auth", "true");
    args.set("requestheader-client-ca-file", secret("aggregator-ca.crt"));
    args.set("requestheader-allowed-names", "front-proxy-client");
    args.set("requestheader-extra-headers-prefix", "X-Remote-Extra-");
    args.set("requestheader-group-headers", "X-Remote-Group");
    args.set("requestheader-username-headers", "X-Remote-User");
    args.set("proxy-client-cert-file", secret("front-proxy-client.crt"));
    args.set("proxy-client-key-file", secret("front-proxy-client.key"));
    args.set("api-audiences", &input.endpoint);
    args.set("service-account-issuer", &input.endpoint);
    args.set("service-account-key-file", secret("service-account.pub"));
    args.set("service-account-signing-key-file", secret("service-account.key"));
}

fn set_policy(args: &mut Args, input: &ApiServerInput, version: Version) {
    args.set("allow-privileged", "true");
    args.set("authorization-mode", "Node,RBAC");
    args.set("enable-admission-plugins", "NodeRestriction");
    args.set("admission-control-config-file", config(component_files::ADMISSION_CONFIG_FILE));
    args.set("audit-policy-file", config(component_files::AUDIT_POLICY_FILE));
    args.set("audit-log-path", format!("{}/kube-apiserver.log", paths::AUDIT_LOG_DIR));
    args.set("audit-log-maxage", "30");
    args.set("audit-log-maxbackup", "10");
    args.set("audit-log-maxsize", "100");
    if !input.cloud_provider.is_empty() && version.has(Feature::ApiServerCloudProvider) {
        args.set("cloud-provider", &input.cloud_provider);
    }
}
