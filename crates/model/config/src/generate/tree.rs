//! The values of a generated document, in the order of the file.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pki::PemPair;
use serde_json::{Map, Value, json};

use super::Input;
use super::contract::Feature;
use crate::images::KubernetesImages;
use crate::scalar::MachineType;

/// PEM text as configurations hold it.
#[must_use]
pub fn base64(text: &str) -> String {
    STANDARD.encode(text)
}

pub(super) fn document(input: &Input, kind: MachineType) -> Value {
    let mut root = Map::new();
    put(&mut root, "version", "v1alpha1");
    put(&mut root, "debug", false);
    put(&mut root, "persist", input.persist);
    put(&mut root, "machine", machine(input, kind));
    put(&mut root, "cluster", cluster(input, kind));
    Value::Object(root)
}

fn put(map: &mut Map<String, Value>, key: &str, value: impl Into<Value>) {
    map.insert(key.to_owned(), value.into());
}

fn pair(pair: &PemPair) -> Value {
    json!({ "crt": base64(&pair.crt), "key": base64(&pair.key) })
}

fn authority(pair_: &PemPair, kind: MachineType) -> Value {
    if kind.is_control_plane() { pair(pair_) } else { pair(&pair_.certificate_only()) }
}

fn machine(input: &Input, kind: MachineType) -> Value {
    let mut map = Map::new();
    put(&mut map, "type", kind.as_str());
    put(&mut map, "token", input.secrets.trustd.token.as_str());
    put(&mut map, "ca", authority(&input.secrets.certs.os, kind));
    put(&mut map, "certSANs", input.additional_sans.clone());
    put(&mut map, "kubelet", kubelet(input));
    put(&mut map, "network", network(input));
    put(&mut map, "install", json!({ "disk": input.install_disk, "image": input.install_image, "wipe": false }));
    put(&mut map, "registries", registries(input));
    let features = features(input);
    if !features.is_empty() {
        put(&mut map, "features", features);
    }
    Value::Object(map)
}

fn kubelet(input: &Input) -> Value {
    let mut map = Map::new();
    put(&mut map, "image", KubernetesImages::for_version(&input.kubernetes_version).kubelet);
    if input.contract.has(Feature::DefaultSeccompProfile) {
        put(&mut map, "defaultRuntimeSeccompProfileEnabled", true);
    }
    if input.contract.has(Feature::NoManifestsDirectory) {
        put(&mut map, "disableManifestsDirectory", true);
    }
    Value::Object(map)
}

fn network(input: &Input) -> Value {
    let mut map = Map::new();
    if !input.nameservers.is_empty() {
        put(&mut map, "nameservers", input.nameservers.clone());
    }
    if input.kubespan {
        put(&mut map, "kubespan", json!({ "enabled": true }));
    }
    Value::Object(map)
}

/// The former registry of Kubernetes, and what to try in its place.
const OLD_REGISTRY: &str = "k8s.gcr.io";
const OLD_REGISTRY_MIRRORS: [&str; 2] = ["https://registry.k8s.io", "https://k8s.gcr.io"];

fn registries(input: &Input) -> Value {
    let mut map = Map::new();
    let mut mirrors = Map::new();
    for (host, endpoints) in &input.registry_mirrors {
        put(&mut mirrors, host, json!({ "endpoints": endpoints }));
    }
    if !input.contract.has(Feature::NewKubernetesRegistry) && !mirrors.contains_key(OLD_REGISTRY) {
        put(&mut mirrors, OLD_REGISTRY, json!({ "endpoints": OLD_REGISTRY_MIRRORS }));
    }
    if !mirrors.is_empty() {
        put(&mut map, "mirrors", mirrors);
    }
    if !input.insecure_registries.is_empty() {
        let config = input
            .insecure_registries
            .iter()
            .map(|host| (host.clone(), json!({ "tls": { "insecureSkipVerify": true } })));
        put(&mut map, "config", Value::Object(config.collect()));
    }
    Value::Object(map)
}

fn features(input: &Input) -> Map<String, Value> {
    let mut map = Map::new();
    for (feature, name) in [
        (Feature::Rbac, "rbac"),
        (Feature::StableHostname, "stableHostname"),
        (Feature::CheckExtKeyUsage, "apidCheckExtKeyUsage"),
        (Feature::DiskQuota, "diskQuotaSupport"),
    ] {
        if input.contract.has(feature) {
            put(&mut map, name, true);
        }
    }
    if let Some(port) = input.kubeprism_port.filter(|_| input.contract.has(Feature::KubePrism)) {
        put(&mut map, "kubePrism", json!({ "enabled": true, "port": port }));
    }
    if input.contract.has(Feature::HostDns) {
        put(&mut map, "hostDNS", json!({ "enabled": true }));
    }
    map
}

fn cluster(input: &Input, kind: MachineType) -> Value {
    let secrets = &input.secrets;
    let control_plane = kind.is_control_plane();
    let mut map = Map::new();
    put(&mut map, "id", secrets.cluster.id.as_str());
    put(&mut map, "secret", secrets.cluster.secret.as_str());
    put(&mut map, "controlPlane", endpoint(input));
    if control_plane {
        put(&mut map, "clusterName", input.cluster_name.as_str());
    }
    put(&mut map, "network", cluster_network(input));
    put(&mut map, "token", secrets.secrets.bootstrap_token.as_str());
    if control_plane {
        for (key, text) in [
            ("aescbcEncryptionSecret", &secrets.secrets.aescbc_encryption_secret),
            ("secretboxEncryptionSecret", &secrets.secrets.secretbox_encryption_secret),
        ] {
            if !text.is_empty() {
                put(&mut map, key, text.as_str());
            }
        }
    }
    put(&mut map, "ca", authority(&secrets.certs.k8s, kind));
    if control_plane {
        components(&mut map, input);
    }
    if input.contract.has(Feature::Discovery) {
        put(&mut map, "discovery", discovery(input));
    }
    if control_plane {
        put(&mut map, "etcd", json!({ "ca": pair(&secrets.certs.etcd) }));
        put(&mut map, "extraManifests", json!([]));
        put(&mut map, "inlineManifests", json!([]));
        if input.allow_scheduling_on_control_planes {
            let new = input.contract.has(Feature::SchedulingOnControlPlanes);
            put(&mut map, if new { "allowSchedulingOnControlPlanes" } else { "allowSchedulingOnMasters" }, true);
        }
    }
    Value::Object(map)
}

fn endpoint(input: &Input) -> Value {
    let mut map = Map::new();
    put(&mut map, "endpoint", input.endpoint.as_str());
    if let Some(port) = input.local_api_server_port {
        put(&mut map, "localAPIServerPort", port);
    }
    Value::Object(map)
}

fn cluster_network(input: &Input) -> Value {
    let mut map = Map::new();
    if let Some(cni) = &input.cni {
        let mut section = Map::new();
        put(&mut section, "name", cni.as_str());
        if !input.cni_urls.is_empty() {
            put(&mut section, "urls", input.cni_urls.clone());
        }
        put(&mut map, "cni", section);
    }
    put(&mut map, "dnsDomain", input.dns_domain.as_str());
    put(&mut map, "podSubnets", input.pod_subnets.clone());
    put(&mut map, "serviceSubnets", input.service_subnets.clone());
    Value::Object(map)
}

fn components(map: &mut Map<String, Value>, input: &Input) {
    let secrets = &input.secrets;
    let images = KubernetesImages::for_version(&input.kubernetes_version);
    put(map, "aggregatorCA", pair(&secrets.certs.k8s_aggregator));
    put(map, "serviceAccount", json!({ "key": base64(&secrets.certs.k8s_service_account.key) }));
    put(map, "apiServer", api_server(input, &images));
    put(map, "controllerManager", json!({ "image": images.controller_manager }));
    put(map, "proxy", json!({ "image": images.proxy }));
    put(map, "scheduler", json!({ "image": images.scheduler }));
}

fn api_server(input: &Input, images: &KubernetesImages) -> Value {
    let mut map = Map::new();
    put(&mut map, "image", images.api_server.as_str());
    let mut sans = Vec::new();
    let host = url::Url::parse(&input.endpoint).ok().and_then(|url| url.host_str().map(str::to_owned));
    for name in
        host.iter().map(|host| host.trim_matches(['[', ']'])).chain(input.additional_sans.iter().map(|s| s.as_str()))
    {
        if !sans.iter().any(|known| known == name) {
            sans.push(name.to_owned());
        }
    }
    put(&mut map, "certSANs", sans);
    if input.contract.has(Feature::NoPodSecurityPolicy) {
        put(&mut map, "disablePodSecurityPolicy", true);
    }
    if input.contract.has(Feature::PodSecurityAdmission) {
        put(&mut map, "admissionControl", json!([admission()]));
    }
    if input.contract.has(Feature::AuditPolicy) {
        let policy = json!({ "apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [{ "level": "Metadata" }] });
        put(&mut map, "auditPolicy", policy);
    }
    Value::Object(map)
}

fn admission() -> Value {
    json!({
        "name": "PodSecurity",
        "configuration": {
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
        },
    })
}

fn discovery(input: &Input) -> Value {
    let mut service = Map::new();
    if let Some(endpoint) = &input.discovery_endpoint {
        put(&mut service, "endpoint", endpoint.as_str());
    }
    let kubernetes =
        if input.contract.has(Feature::NoKubernetesDiscovery) { json!({ "disabled": true }) } else { json!({}) };
    json!({
        "enabled": input.discovery,
        "registries": { "kubernetes": kubernetes, "service": service },
    })
}

#[cfg(test)]
#[test]
fn the_images_are_those_of_the_version() {
    assert_eq!(crate::images::version_of(&KubernetesImages::for_version("1.25.4").proxy), Some("1.25.4"));
}
