//! No secret of a configuration is in anything that a reader may read: resources of all types, logs, events.
//!
//! A configuration in which every secret field holds a marker goes through the real controllers, with fakes at the edge of
//! the machine. What the API then shows to a reader is searched for the markers, and for any private key.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ::state::{Kind, Query, ReadError, Reader, Store};
use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use controller::Controller;
use etcd_edge::{ClusterLock, LockError, Locked};
use futures::StreamExt;
use http_fetch::{Fetch, FetchError};
use kube_edge::{FakeConnect, FakeKube};
use netlink::FakeNetlink;
use parking_lot::Mutex;
use pki::{Algorithm, Authority, CaProfile, PemPair, PrivateKey};
use resources::config::MachineConfig;
use resources::k8s::{ExtraManifestsConfig, KubeletSpec, Manifest, StaticPod};
use resources::network::{HostnameStatus, NetworkStatus, NodeAddress};
use resources::runtime::MountStatus;
use resources::secrets::{ApiCertificate, EtcdSecrets, KubernetesDynamicCerts, KubernetesSecrets};
use resources::time::TimeStatus;
use resources::{Spec, StringMap};
use stdx::Clock;
use tempfile::TempDir;
use tonic::Code;
use trustd_client::{SignError, SignRequest, Signed, Signer};
use wire::machine as api;

use crate::machine::{apply, served_with};
use crate::remote::Remote;

/// Secrets of other kinds than keys of authorities: each is one field of a configuration.
const MARKERS: &[&str] = &[
    "markmachinetoken",
    "markclustertoken",
    "MARK-cluster-secret-0123456789ab",
    "MARK-secretbox-secret-0123456789",
    "MARK-aescbc-secret-0123456789abc",
    "MARK-pod-environment",
    "MARK-proxy-environment",
    "MARK-file-contents",
    "MARK-registry-password",
    "MARK-registry-auth",
    "MARK-registry-identity-token",
    "MARK-mirror-password",
    "MARK-wireguard-key-0123456789abc",
    "MARK-disk-passphrase",
    "MARK-credential-provider",
    "MARK-apiserver-environment",
    "MARK-controllermanager-environment",
    "MARK-scheduler-environment",
    "MARK-admission-configuration",
    "MARK-manifest-header",
    "MARK-manifest-url",
    "MARK-manifest-fetched",
    "MARK-manifest-inline",
    "MARK-extension-file",
    "MARK-extension-environment",
    "MARK-siderolink-token",
];

struct Authorities {
    os: PemPair,
    kubernetes: PemPair,
    aggregator: PemPair,
    etcd: PemPair,
    service_account: String,
    registry: PemPair,
}

impl Authorities {
    fn new() -> Self {
        let make = |profile| Authority::generate(profile, stdx::SystemClock.now()).unwrap().pair();
        Self {
            os: make(CaProfile::Os),
            kubernetes: make(CaProfile::Kubernetes),
            aggregator: make(CaProfile::Aggregator),
            etcd: make(CaProfile::Etcd),
            service_account: PrivateKey::generate(Algorithm::EcdsaP256).unwrap().to_pem(),
            registry: make(CaProfile::Os),
        }
    }

    /// A line from the middle of each private key: whoever has that has the key.
    fn key_lines(&self) -> Vec<String> {
        let keys = [&self.os.key, &self.kubernetes.key, &self.aggregator.key, &self.etcd.key, &self.registry.key];
        keys.into_iter().chain([&self.service_account]).map(|key| key.lines().nth(1).unwrap().to_owned()).collect()
    }

    fn configuration(&self) -> String {
        let base64 = |text: &str| STANDARD.encode(text);
        let pair = |pair: &PemPair| format!("{{crt: {}, key: {}}}", base64(&pair.crt), base64(&pair.key));
        format!(
            r##"version: v1alpha1
machine:
  type: controlplane
  token: abcdef.markmachinetoken
  ca: {os}
  env: {{http_proxy: "http://user:MARK-proxy-environment@proxy.example:3128"}}
  files:
    - {{content: MARK-file-contents, permissions: 0o600, path: /var/secret, op: create}}
    - {{content: "# MARK-file-contents", permissions: 0o600, path: /etc/cri/conf.d/20-customization.part, op: create}}
  pods:
    - apiVersion: v1
      kind: Pod
      metadata: {{name: p, namespace: default}}
      spec: {{containers: [{{name: c, image: i, env: [{{name: A, value: MARK-pod-environment}}]}}]}}
  kubelet:
    image: ghcr.io/siderolabs/kubelet:v1.30.14
    credentialProviderConfig:
      apiVersion: kubelet.config.k8s.io/v1
      kind: CredentialProviderConfig
      providers: [{{name: p, env: [{{name: A, value: MARK-credential-provider}}]}}]
  network:
    interfaces:
      - interface: wg0
        addresses: [10.9.0.1/24]
        wireguard: {{privateKey: {wireguard}}}
  systemDiskEncryption:
    state: {{provider: luks2, keys: [{{slot: 0, static: {{passphrase: MARK-disk-passphrase}}}}]}}
  registries:
    mirrors: {{docker.io: {{endpoints: ["https://user:MARK-mirror-password@mirror.example"]}}}}
    config:
      r.example:
        auth: {{username: u, password: MARK-registry-password}}
        tls: {{clientIdentity: {registry}}}
      s.example:
        auth: {{auth: MARK-registry-auth, identityToken: MARK-registry-identity-token}}
cluster:
  id: 0AQlI5s4Wx8c3IYRLzGu7u0SMSBFQvOMNZHvZNKPAqg=
  secret: {cluster_secret}
  clusterName: demo
  controlPlane: {{endpoint: "https://10.5.0.2:6443"}}
  token: abcdef.markclustertoken
  secretboxEncryptionSecret: {secretbox}
  aescbcEncryptionSecret: {aescbc}
  ca: {kubernetes}
  aggregatorCA: {aggregator}
  serviceAccount: {{key: {account}}}
  discovery: {{enabled: true, registries: {{service: {{disabled: true}}}}}}
  network: {{cni: {{name: none}}}}
  etcd: {{ca: {etcd}}}
  apiServer:
    image: registry.k8s.io/kube-apiserver:v1.30.14
    env: {{A: MARK-apiserver-environment}}
    admissionControl:
      - {{name: ImagePolicyWebhook, configuration: {{token: MARK-admission-configuration}}}}
  controllerManager: {{image: "registry.k8s.io/kube-controller-manager:v1.30.14", env: {{A: MARK-controllermanager-environment}}}}
  scheduler: {{image: "registry.k8s.io/kube-scheduler:v1.30.14", env: {{A: MARK-scheduler-environment}}}}
  proxy: {{image: "registry.k8s.io/kube-proxy:v1.30.14"}}
  extraManifestHeaders: {{Authorization: MARK-manifest-header}}
  extraManifests:
    - "https://user:MARK-manifest-url@manifests.example/good.yaml"
    - "https://user:MARK-manifest-url@manifests.example/bad.yaml"
  inlineManifests:
    - name: inline
      contents: |
        apiVersion: v1
        kind: Secret
        metadata: {{name: inline, namespace: default}}
        stringData: {{a: MARK-manifest-inline}}
---
apiVersion: v1alpha1
kind: ExtensionServiceConfig
name: extension
configFiles: [{{content: MARK-extension-file, mountPath: /etc/extension.conf}}]
environment: [A=MARK-extension-environment]
---
apiVersion: v1alpha1
kind: SideroLinkConfig
apiUrl: https://siderolink.example/?jointoken=MARK-siderolink-token
"##,
            os = pair(&self.os),
            kubernetes = pair(&self.kubernetes),
            aggregator = pair(&self.aggregator),
            etcd = pair(&self.etcd),
            registry = pair(&self.registry),
            account = base64(&self.service_account),
            cluster_secret = base64("MARK-cluster-secret-0123456789ab"),
            secretbox = base64("MARK-secretbox-secret-0123456789"),
            aescbc = base64("MARK-aescbc-secret-0123456789abc"),
            wireguard = base64("MARK-wireguard-key-0123456789abc"),
        )
    }
}

/// Serves one manifest, and refuses the other as the real one does.
#[derive(Debug)]
struct Manifests;

#[async_trait]
impl Fetch for Manifests {
    async fn fetch(&self, url: &str, _: &StringMap) -> Result<String, FetchError> {
        if url.ends_with("bad.yaml") {
            return Err(FetchError::TooLarge { url: http_fetch::without_credentials(url), limit: 0 });
        }
        let data = "stringData: {a: MARK-manifest-fetched}";
        Ok(format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: fetched, namespace: default}}\n{data}\n"))
    }
}

#[derive(Debug)]
struct Lock;

#[async_trait]
impl ClusterLock for Lock {
    async fn run_locked(&self, _: &str, _: Duration, work: Locked<'_>) -> Result<(), LockError> {
        work.await;
        Ok(())
    }
}

/// A control plane signs for itself.
#[derive(Debug)]
struct NoSigner;

#[async_trait]
impl Signer for NoSigner {
    async fn sign(&self, _: &SignRequest) -> Result<Signed, SignError> {
        Err(SignError::NoEndpoint)
    }
}

/// The controllers that turn a configuration into resources, with fakes at the edge of the machine.
fn controllers(directory: &TempDir) -> Vec<Box<dyn Controller>> {
    let at = |path: &str| -> PathBuf { directory.path().join(path) };
    let netlink = FakeNetlink::default();
    let kubernetes = FakeKube::new("v1.30.14");
    let network = domain_network::Edges {
        links: Arc::new(netlink.clone()),
        addresses: Arc::new(netlink.clone()),
        routes: Arc::new(netlink.clone()),
        dhcp: Arc::new(dhcp::FakeSockets::default()),
        set_hostname: Arc::new(|_: &str| Ok(())),
        arguments: domain_network::Arguments::default(),
    };
    let k8s = domain_k8s::Edges {
        root: domain_k8s::Root::new(directory.path()),
        connect: Arc::new(FakeConnect::new(kubernetes)),
        routes: Arc::new(netlink),
        lock: Arc::new(Lock),
        fetch: Arc::new(Manifests),
    };
    let limits = domain_runtime::cri_parts::ContainerdLimits { restrict_oom_score: false };
    let containerd = domain_runtime::cri_parts::ContainerdFile { rendered: at("etc"), limits };
    let paths = domain_cluster::Paths { ca_bundle: at("ca-certificates.crt") };
    let mut all: Vec<Box<dyn Controller>> = vec![
        Box::new(domain_runtime::config_type::MachineTypeController),
        Box::new(domain_runtime::cri_config::CriRegistryConfigController::new(at("etc"))),
        Box::new(domain_runtime::cri_parts::CriConfigPartsController::new(containerd)),
        Box::new(domain_runtime::etc_file::EtcFileController { rendered: at("etc"), bound_over: None }),
        Box::new(domain_runtime::kernel_param::KernelParamConfigController),
        Box::new(domain_etcd::ConfigController),
        Box::new(domain_etcd::SpecController::default()),
    ];
    all.extend(domain_runtime::document_config::controllers());
    all.extend(domain_network::controllers(&network));
    all.extend(domain_cluster::controllers(&paths));
    all.extend(domain_secrets::controllers(Arc::new(NoSigner)));
    all.extend(domain_k8s::controllers(&k8s));
    // What is told by the kernel is put there instead.
    let told = ["network.AddressStatusController", "network.NodeAddressController", "network.StatusController"];
    all.retain(|controller| {
        !told.contains(&controller.name()) && controller.name() != "network.HostnameSpecController"
    });
    all
}

fn put_what_the_kernel_tells(store: &Store, volumes: &TempDir) {
    for volume in [MountStatus::STATE, MountStatus::EPHEMERAL] {
        let target = volumes.path().join(volume);
        std::fs::create_dir_all(&target).unwrap();
        store.put(volume, MountStatus { target: target.display().to_string(), ..MountStatus::default() }, "").unwrap();
    }
    let addresses = NodeAddress { addresses: vec!["10.5.0.2/24".parse().unwrap()] };
    for id in ["default", "current", "accumulative", "routed", "current-no-k8s", "accumulative-no-k8s", "routed-no-k8s"]
    {
        store.put(id, addresses.clone(), "").unwrap();
    }
    let hostname = HostnameStatus { hostname: "cp-1".into(), domainname: String::new() };
    store.put(HostnameStatus::ID, hostname, "").unwrap();
    let ready =
        NetworkStatus { address_ready: true, connectivity_ready: true, hostname_ready: true, etc_files_ready: true };
    store.put(NetworkStatus::ID, ready, "").unwrap();
    store.put(TimeStatus::ID, TimeStatus { synced: true, ..TimeStatus::default() }, "").unwrap();
}

/// The log of this process.
#[derive(Debug, Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Every form in which a text can be found: as it is, and within base64 at each of its three positions.
fn forms(secret: &str) -> Vec<String> {
    let mut forms = vec![secret.to_owned()];
    for before in 0..3 {
        let encoded = STANDARD.encode([vec![b'x'; before], secret.as_bytes().to_vec()].concat());
        // What depends on the neighbours is cut off.
        let begin = (before * 4).div_ceil(3);
        forms.push(encoded[begin..encoded.len() - 4].to_owned());
    }
    forms
}

/// The secrets that are found in bytes.
fn found<'a>(bytes: &[u8], secrets: &'a [String]) -> Vec<&'a str> {
    let text = String::from_utf8_lossy(bytes);
    let is_in = |secret: &&String| forms(secret).iter().any(|form| text.contains(form));
    secrets.iter().filter(is_in).map(String::as_str).collect()
}

/// All that a role sees of a store, by type.
async fn seen(store: &Store, reader: &Remote) -> BTreeMap<String, Vec<u8>> {
    let namespaces: Vec<String> =
        store.list_as::<resources::meta::Namespace>().unwrap().iter().map(|one| one.id().to_owned()).collect();
    let types = resources::definitions().iter().map(|definition| definition.type_name.to_owned());
    let types: BTreeSet<String> = types.chain(store.kinds().into_iter().map(|kind| kind.type_name)).collect();
    let mut seen = BTreeMap::new();
    for type_name in types {
        for namespace in &namespaces {
            let kind = Kind::new(namespace, &type_name);
            let listed = match reader.list(&kind, &Query::default()).await {
                Ok(listed) => listed,
                Err(ReadError::Unavailable { source, .. }) => {
                    let status = source.downcast_ref::<tonic::Status>().unwrap();
                    assert_eq!(status.code(), Code::PermissionDenied, "{kind}: {status:?}");
                    continue;
                }
                // Not registered: nobody reads it.
                Err(ReadError::NotFound(_)) => continue,
                Err(other) => panic!("{kind}: {other}"),
            };
            let text: &mut Vec<u8> = seen.entry(type_name.clone()).or_default();
            for resource in listed {
                text.extend_from_slice(format!("{:?}\n{}\n", resource.metadata, resource.yaml).as_bytes());
                text.extend_from_slice(&resource.proto);
            }
        }
    }
    seen
}

/// Waits until the controllers have made what they make of a configuration and nothing changes any more.
async fn settled(store: &Store) {
    let is_there = || {
        let there = |kind: Kind| !store.list(&kind, &Query::default()).is_empty();
        let made = [
            Kind::of::<ApiCertificate>(),
            Kind::of::<EtcdSecrets>(),
            Kind::of::<ExtraManifestsConfig>(),
            Kind::of::<KubeletSpec>(),
            Kind::of::<KubernetesDynamicCerts>(),
            Kind::of::<KubernetesSecrets>(),
            Kind::of::<StaticPod>(),
        ];
        let manifests = store.list_as::<Manifest>().unwrap();
        let has = |name: &str| manifests.iter().any(|manifest| manifest.id().contains(name));
        made.into_iter().all(there) && has("inline") && has("good.yaml") && has("bootstrapping-token")
    };
    let waiting = async {
        while !is_there() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    if tokio::time::timeout(Duration::from_secs(60), waiting).await.is_err() {
        let mut kinds = String::new();
        for kind in store.kinds() {
            writeln!(kinds, "{kind}: {}", store.list(&kind, &Query::default()).len()).unwrap();
        }
        panic!("the controllers did not make everything:\n{kinds}");
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_of_a_configuration_is_in_anything_that_a_reader_may_read() {
    let log = Log::default();
    let writer = log.clone();
    // Another test of this program may have set one: then its log is not searched, and this test says so.
    let logged = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::INFO)
        .with_writer(move || writer.clone());
    logged.try_init().expect("nothing else in this program logs");

    let (authorities, directory) = (Authorities::new(), tempfile::tempdir().unwrap());
    let text = authorities.configuration();
    let it = served_with(|_| {});
    let store = it.machine.store.clone();
    for definition in resources::definitions() {
        store.register(definition);
    }
    for namespace in resources::NAMESPACES {
        store.register_namespace(namespace);
    }
    for controller in controllers(&directory) {
        it.machine.controllers.register_boxed(controller).unwrap();
    }
    put_what_the_kernel_tells(&store, &directory);
    it.machine.controllers.start();
    apply(&it, &text, api::apply_configuration_request::Mode::Auto, false).await.unwrap();
    settled(&store).await;

    let mut secrets: Vec<String> = MARKERS.iter().map(|marker| (*marker).to_owned()).collect();
    secrets.extend(authorities.key_lines());
    // The configuration itself has them all: the search finds what is there.
    let whole = seen(&store, &Remote { channel: it.channel.clone(), role: "os:admin" }).await;
    let expected: Vec<&str> =
        secrets.iter().map(String::as_str).filter(|secret| *secret != "MARK-manifest-fetched").collect();
    assert_eq!(found(&whole[MachineConfig::DEFINITION.type_name], &secrets), expected);
    assert_eq!(
        found(&whole[Manifest::DEFINITION.type_name], &secrets),
        ["markclustertoken", "MARK-manifest-fetched", "MARK-manifest-inline"]
    );
    let any_key = ["PRIVATE KEY".to_owned()];
    assert_eq!(found(&whole[ApiCertificate::DEFINITION.type_name], &any_key), any_key);

    for role in ["os:reader", "os:operator", "os:etcd:backup"] {
        let mut leaks = String::new();
        for (kind, text) in seen(&store, &Remote { channel: it.channel.clone(), role }).await {
            let secrets = [found(&text, &secrets), found(&text, &any_key)].concat();
            if !secrets.is_empty() {
                writeln!(leaks, "{kind}: {secrets:?}").unwrap();
            }
        }
        assert_eq!(leaks, "", "{role}");
    }
    assert_eq!(found(&log.0.lock(), &secrets), Vec::<&str>::new(), "in the log");
    let follow = api::EventsRequest { tail_events: -1, ..Default::default() };
    let mut events = it.client().events(follow).await.unwrap().into_inner();
    let mut told = Vec::new();
    while let Ok(Some(event)) = tokio::time::timeout(Duration::from_millis(300), events.next()).await {
        told.extend_from_slice(&event.unwrap().data.unwrap().value);
    }
    assert_eq!(found(&told, &secrets), Vec::<&str>::new(), "in events");
    it.machine.controllers.stop(Duration::from_secs(5)).await.unwrap();
}
