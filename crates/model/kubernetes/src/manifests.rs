//! Bootstrap manifests of a new cluster: bootstrap token RBAC, proxy, DNS, pod network, and user manifests.
//!
//! The order of names is the order of application.

mod access;
mod core_dns;
mod flannel;
mod proxy;
mod talos_api;

use serde_json::{Value, json};

pub use access::HEALTH_READERS;
pub use flannel::FlannelInput;
pub use proxy::{ProxyInput, args as proxy_args};

pub use crate::yaml::{YamlError, documents as parse};

/// The objects of one name, in order.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// Such as `10-kube-proxy`.
    pub name: String,
    pub objects: Vec<Value>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoreDnsInput {
    pub image: String,
    pub cluster_domain: String,
    /// The first is the cluster's DNS address.
    pub service_ips: Vec<String>,
}

/// Inputs of the bootstrap manifests; `None` and empty values are omitted.
#[derive(Clone, PartialEq, Eq)]
pub struct BootstrapInput {
    /// URL of the API server as pods on the host network reach it.
    pub server: String,
    pub token_id: String,
    pub token_secret: String,
    pub proxy: Option<ProxyInput>,
    pub core_dns: Option<CoreDnsInput>,
    pub flannel: Option<FlannelInput>,
    pub talos_api: bool,
    /// Address of the Service in front of the nodes' resolvers.
    pub host_dns_service_ip: String,
}

impl std::fmt::Debug for BootstrapInput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BootstrapInput").field("server", &self.server).finish_non_exhaustive()
    }
}

/// All bootstrap manifests, sorted by name.
#[must_use]
pub fn bootstrap(input: &BootstrapInput) -> Vec<Manifest> {
    let mut manifests = Vec::new();
    // Kubernetes takes a bootstrap token in no other form.
    if is_token_part(&input.token_id, 6) && is_token_part(&input.token_secret, 16) {
        let objects = access::bootstrap_token(&input.token_id, &input.token_secret);
        manifests.push(manifest("00-kubelet-bootstrapping-token", objects));
    }
    manifests.extend([
        manifest("01-csr-approver-role-binding", vec![access::approve_first_certificates()]),
        manifest("01-csr-node-bootstrap", vec![access::request_certificates()]),
        manifest("01-csr-renewal-role-binding", vec![access::approve_renewals()]),
        manifest("02-health-reader", access::health_readers()),
    ]);
    if let Some(flannel) = &input.flannel {
        manifests.push(manifest("05-flannel", flannel::objects(flannel)));
    }
    if let Some(proxy) = &input.proxy {
        manifests.push(manifest("10-kube-proxy", proxy::objects(proxy)));
    }
    if let Some(dns) = &input.core_dns {
        manifests.push(manifest("11-core-dns", core_dns::objects(dns)));
        manifests.push(manifest("11-core-dns-svc", vec![core_dns::service(dns)]));
    }
    manifests.push(manifest("11-kube-config-in-cluster", vec![access::in_cluster_kubeconfig(&input.server)]));
    if input.talos_api {
        manifests.push(manifest("12-talos-api-service", vec![talos_api::service()]));
        manifests.push(manifest("13-talos-service-account-crd", vec![talos_api::service_account_crd()]));
    }
    if !input.host_dns_service_ip.is_empty() {
        manifests.push(manifest("15-host-dns-service", vec![core_dns::host_dns_service(&input.host_dns_service_ip)]));
    }
    manifests
}

fn manifest(name: &str, objects: Vec<Value>) -> Manifest {
    Manifest { name: name.to_owned(), objects }
}

fn service_account(namespace: &str, name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": name, "namespace": namespace } })
}

/// A cluster-wide binding of a role to one subject.
fn cluster_role_binding(name: &str, role: &str, subject: &Value) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": { "name": name },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role },
        "subjects": [subject],
    })
}

fn account_subject(namespace: &str, name: &str) -> Value {
    json!({ "kind": "ServiceAccount", "name": name, "namespace": namespace })
}

fn group_subject(name: &str) -> Value {
    json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": name })
}

fn is_token_part(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::bootstrap_input;

    #[test]
    fn manifests_come_in_the_order_of_their_names() {
        let names: Vec<String> = bootstrap(&bootstrap_input()).into_iter().map(|manifest| manifest.name).collect();
        let mut sorted = names.clone();
        sorted.sort();
        assert_eq!(names, sorted);
        assert_eq!(names.first().map(String::as_str), Some("00-kubelet-bootstrapping-token"));
    }

    #[test]
    fn a_token_that_is_no_bootstrap_token_is_left_out() {
        for (id, secret) in [("", "my-token"), ("abcde", "0123456789abcdef"), ("ABCDEF", "0123456789abcdef")] {
            let input =
                BootstrapInput { token_id: id.to_owned(), token_secret: secret.to_owned(), ..bootstrap_input() };
            let names = bootstrap(&input).into_iter().map(|manifest| manifest.name).collect::<Vec<_>>();
            assert!(!names.contains(&"00-kubelet-bootstrapping-token".to_owned()), "{names:?}");
        }
    }

    #[test]
    fn what_is_turned_off_is_left_out() {
        let input = BootstrapInput {
            proxy: None,
            core_dns: None,
            flannel: None,
            talos_api: false,
            host_dns_service_ip: String::new(),
            ..bootstrap_input()
        };
        let names: Vec<String> = bootstrap(&input).into_iter().map(|manifest| manifest.name).collect();
        assert_eq!(
            names,
            [
                "00-kubelet-bootstrapping-token",
                "01-csr-approver-role-binding",
                "01-csr-node-bootstrap",
                "01-csr-renewal-role-binding",
                "02-health-reader",
                "11-kube-config-in-cluster",
            ]
        );
    }

    #[test]
    fn every_object_says_what_and_which_it_is() {
        for manifest in bootstrap(&bootstrap_input()) {
            for object in manifest.objects {
                for pointer in ["/apiVersion", "/kind", "/metadata/name"] {
                    assert!(object.pointer(pointer).is_some_and(Value::is_string), "{}: {pointer}", manifest.name);
                }
            }
        }
    }
}
