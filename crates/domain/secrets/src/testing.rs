//! A control plane's inputs, for the tests of this crate.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use controller::testing::Harness;
use pki::{Algorithm, Authority, CaProfile, PemPair, PrivateKey};
use resources::{
    config::MachineConfig,
    network::{HostnameStatus, NetworkStatus, NodeAddress},
    time::TimeStatus,
    values::{CertificateAndKey, Pem},
};
use stdx::Clock;

pub(crate) fn pem(pem: &Pem) -> String {
    String::from_utf8(pem.0.clone()).unwrap()
}

pub(crate) fn certificate(pair: &Option<CertificateAndKey>) -> pki::Certificate {
    pki::Certificate::from_pem(&pem(&pair.as_ref().unwrap().crt)).unwrap()
}

/// Whether the key belongs to the certificate.
pub(crate) fn is_pair(pair: &Option<CertificateAndKey>) -> bool {
    let key = PrivateKey::from_pem(&pem(&pair.as_ref().unwrap().key)).unwrap();
    key.spki_der() == certificate(pair).spki_der()
}

fn flow(pair: &PemPair, with_key: bool) -> String {
    let base64 = |text: &str| STANDARD.encode(text);
    let key = if with_key { base64(&pair.key) } else { String::new() };
    format!("{{ crt: {}, key: \"{key}\" }}", base64(&pair.crt))
}

/// The authorities of a cluster and configurations made from them.
pub(crate) struct Cluster {
    pub(crate) os: Authority,
    etcd: Authority,
    kubernetes: Authority,
    aggregator: Authority,
}

impl Cluster {
    pub(crate) fn new(harness: &Harness) -> Self {
        let make = |profile| Authority::generate(profile, harness.clock.now()).unwrap();
        Self {
            os: make(CaProfile::Os),
            etcd: make(CaProfile::Etcd),
            kubernetes: make(CaProfile::Kubernetes),
            aggregator: make(CaProfile::Aggregator),
        }
    }

    pub(crate) fn control_plane(&self) -> String {
        let service_account = PrivateKey::generate(Algorithm::EcdsaP256).unwrap();
        let account = STANDARD.encode(service_account.to_pem());
        format!(
            "version: v1alpha1\nmachine:\n  type: controlplane\n  token: abcdef.0123456789abcdef\n  ca: {os}\n  \
             certSANs: [api.example.org, 192.0.2.7]\n  features:\n    kubePrism: {{ enabled: true, port: 7445 }}\n\
             cluster:\n  clusterName: demo\n  controlPlane:\n    endpoint: https://k8s.example.org:6443\n  \
             token: 012345.0123456789abcdef\n  ca: {k8s}\n  aggregatorCA: {aggregator}\n  serviceAccount: {{ key: {account} }}\n  \
             etcd:\n    ca: {etcd}\n  apiServer:\n    certSANs: [extra.example.org]\n",
            os = flow(&self.os.pair(), true),
            k8s = flow(&self.kubernetes.pair(), true),
            aggregator = flow(&self.aggregator.pair(), true),
            etcd = flow(&self.etcd.pair(), true),
        )
    }

    pub(crate) fn worker(&self) -> String {
        format!(
            "version: v1alpha1\nmachine:\n  type: worker\n  token: abcdef.0123456789abcdef\n  ca: {os}\n\
             cluster:\n  controlPlane:\n    endpoint: https://k8s.example.org:6443\n  \
             token: 012345.0123456789abcdef\n  ca: {k8s}\n",
            os = flow(&self.os.pair(), false),
            k8s = flow(&self.kubernetes.pair(), false),
        )
    }
}

pub(crate) fn configure(harness: &Harness, text: String) {
    harness.put(MachineConfig::ACTIVE_ID, MachineConfig::new(text));
}

/// The node's own addresses.
pub(crate) fn address(harness: &Harness, addresses: &[&str]) {
    put_addresses(harness, &["accumulative", "routed", "accumulative-no-k8s", "routed-no-k8s"], addresses);
}

/// The node's first pod runs: a bridge with an address of the pod subnet appears.
pub(crate) fn first_pod(harness: &Harness) {
    put_addresses(harness, &["accumulative", "routed"], &["10.5.0.2/24", "10.244.0.1/24"]);
}

fn put_addresses(harness: &Harness, ids: &[&str], addresses: &[&str]) {
    let addresses: Vec<_> = addresses.iter().map(|a| a.parse().unwrap()).collect();
    for id in ids {
        harness.put(id, NodeAddress { addresses: addresses.clone() });
    }
}

/// Network and time are as they will be.
pub(crate) fn ready(harness: &Harness) {
    address(harness, &["10.5.0.2/24"]);
    let hostname = HostnameStatus { hostname: "cp-1".into(), domainname: "example.org".into() };
    harness.put(HostnameStatus::ID, hostname);
    harness.put(
        NetworkStatus::ID,
        NetworkStatus { address_ready: true, connectivity_ready: true, hostname_ready: true, etc_files_ready: true },
    );
    harness.put(TimeStatus::ID, TimeStatus { synced: true, ..TimeStatus::default() });
}
