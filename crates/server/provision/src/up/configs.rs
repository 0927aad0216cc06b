//! The machine configurations of a local cluster and its talosconfig.
//!
//! What every cluster has alike comes from `config`; this module says what a local one differs in: the version and images
//! of the bundle, mirrors, discovery on the gateway, the native pod network, and the operator's patches.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddrV4;

use client::talosconfig::SecretText;
use client::{ConfigContext, TalosConfig};
use config::generate::{CLIENT_LIFETIME, CommentStyle, Input, client_context, generate};
use config::{ConfigError, Documents, MachineType, Mode, Patch, images, validate};
use pki::{RoleSet, SecretsBundle, SecretsOptions};
use serde_json::json;
use stdx::{Clock as _, SystemClock};

use super::failure::UpError;
use super::offline::Offline;
use crate::plan::{Plan, PlannedNode, Role};

/// Registries whose images a bundle may have.
const MIRRORED: [&str; 5] = ["docker.io", "gcr.io", "ghcr.io", "quay.io", "registry.k8s.io"];

/// The operator's choices.
#[derive(Debug, Clone)]
pub struct ConfigRequest {
    /// With or without `v`; defaults to the bundle's version, else to ours.
    pub kubernetes_version: Option<String>,
    pub dns_domain: String,
    pub nameservers: Vec<String>,
    pub control_plane_port: u16,
    /// None switches KubePrism off.
    pub kubeprism_port: Option<u16>,
    /// Registry host and URL of its mirror; these win over the bundle's.
    pub mirrors: Vec<(String, String)>,
    /// Registries whose certificates are not checked.
    pub insecure_registries: Vec<String>,
    pub discovery: bool,
    /// Manifests of another pod network; empty takes the native one.
    pub custom_cni: Vec<String>,
    pub patches: Patches,
}

/// Patches of the generated configurations, applied in this order: those of all, of the role, of the node.
#[derive(Debug, Clone, Default)]
pub struct Patches {
    pub all: Vec<Patch>,
    pub control_plane: Vec<Patch>,
    pub worker: Vec<Patch>,
    /// For single nodes, by name.
    pub nodes: BTreeMap<String, Vec<Patch>>,
}

impl Patches {
    fn of<'a>(&'a self, node: &PlannedNode) -> impl Iterator<Item = &'a Patch> + use<'a> {
        let role = match node.role {
            Role::ControlPlane => &self.control_plane,
            Role::Worker => &self.worker,
        };
        self.all.iter().chain(role).chain(self.nodes.get(&node.name).into_iter().flatten())
    }
}

/// The documents of a cluster.
#[derive(Debug)]
pub(super) struct Rendered {
    pub(super) kubernetes_version: String,
    pub(super) endpoint: String,
    /// By name of the node.
    nodes: BTreeMap<String, Vec<u8>>,
    /// Warnings about the operator's patches, each once for all nodes.
    pub(super) warnings: BTreeSet<String>,
    pub(super) talosconfig: TalosConfig,
    /// Whether the nodes will run the cluster's DNS.
    pub(super) dns: ClusterDns,
}

/// The resolver of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClusterDns {
    CoreDns,
    /// None, or one that the operator deploys.
    Foreign,
}

impl Rendered {
    /// The configuration of a node of the plan.
    pub(super) fn of(&self, node: &PlannedNode) -> &[u8] {
        self.nodes.get(&node.name).map(Vec::as_slice).unwrap_or_default()
    }

    /// Addresses and ports of all URLs in the configurations: mirrors of registries, manifests, time and log servers. Some of them
    /// may be on this host, whose firewall lets nodes reach nothing but what is listed.
    pub(super) fn addresses(&self) -> BTreeSet<SocketAddrV4> {
        let texts = self.nodes.values().map(|document| String::from_utf8_lossy(document));
        let separates = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ',' | '[' | ']' | '{' | '}');
        texts.flat_map(|text| text.split(separates).filter_map(address_of).collect::<Vec<_>>()).collect()
    }
}

/// Makes new secrets, which takes most of the time that configurations cost.
pub(super) fn secrets() -> Result<SecretsBundle, UpError> {
    SecretsBundle::generate(SystemClock.now(), SecretsOptions::default()).map_err(generating("secrets"))
}

/// Makes the documents around the secrets.
pub(super) fn render(
    request: &ConfigRequest,
    plan: &Plan,
    secrets: SecretsBundle,
    offline: Option<&Offline>,
    registry: Option<&str>,
) -> Result<Rendered, UpError> {
    let version = request.version(offline)?;
    let first = plan.first_control_plane().map_or(plan.gateway, |node| node.address);
    let endpoint = format!("https://{first}:{}", request.control_plane_port);
    let now = SystemClock.now();

    let of_role = |role| plan.nodes.iter().filter(move |node| node.role == role).map(|node| node.address.to_string());
    let endpoints: Vec<String> = of_role(Role::ControlPlane).collect();
    let subject = "talosconfig";
    let context =
        client_context(&plan.name, endpoints.clone(), &secrets, &RoleSet::parse(["os:admin"]), now, CLIENT_LIFETIME)
            .map_err(generating(subject))?;
    let context = ConfigContext {
        nodes: endpoints.iter().take(1).cloned().collect(),
        endpoints,
        ca: context.ca,
        crt: context.crt,
        key: SecretText(context.key),
        ..ConfigContext::default()
    };
    let contexts = [(plan.name.clone(), context)].into_iter().collect();

    let cni = if request.custom_cni.is_empty() { "native" } else { "custom" };
    let input = Input {
        kubernetes_version: version.clone(),
        dns_domain: request.dns_domain.clone(),
        cni: Some(cni.to_owned()),
        cni_urls: request.custom_cni.clone(),
        registry_mirrors: request.mirrors(registry),
        insecure_registries: request.insecure_registries.clone(),
        discovery: request.discovery,
        discovery_endpoint: Some(plan.discovery_endpoint()),
        kubeprism_port: request.kubeprism_port,
        local_api_server_port: Some(request.control_plane_port),
        nameservers: request.nameservers.clone(),
        ..Input::new(&plan.name, &endpoint, secrets)
    };
    let own = control_plane_patch(offline);
    let own = Patch::parse(&own.to_string()).map_err(generating("control plane configuration"))?;
    let shared = Patch::parse(&kubelet_patch().to_string()).map_err(generating("node configuration"))?;
    if let Some(name) = request.patches.nodes.keys().find(|name| plan.nodes.iter().all(|node| node.name != **name)) {
        return Err(UpError::NoSuchNode(name.clone()));
    }
    let (mut nodes, mut warnings) = (BTreeMap::new(), BTreeSet::new());
    for node in &plan.nodes {
        let (kind, own) = match node.role {
            Role::ControlPlane => (MachineType::ControlPlane, vec![own.clone(), shared.clone()]),
            Role::Worker => (MachineType::Worker, vec![shared.clone()]),
        };
        let wanted: Vec<Patch> = request.patches.of(node).cloned().collect();
        let (text, noticed) = document(&input, kind, &own, &wanted)?;
        warnings.extend(noticed);
        nodes.insert(node.name.clone(), text);
    }
    let first = plan.first_control_plane().and_then(|node| nodes.get(&node.name));
    Ok(Rendered {
        dns: first.map_or(Ok(ClusterDns::Foreign), |document| cluster_dns(document))?,
        nodes,
        warnings,
        talosconfig: TalosConfig { context: plan.name.clone(), contexts },
        kubernetes_version: version,
        endpoint,
    })
}

/// A control plane's configuration, with patches.
fn cluster_dns(document: &[u8]) -> Result<ClusterDns, UpError> {
    let documents = Documents::from_yaml(document).map_err(generating("control plane configuration"))?;
    let disabled = |value: serde_json::Value| value.pointer("/cluster/coreDNS/disabled") == Some(&json!(true));
    let disabled = documents.documents().iter().any(|document| disabled(document.to_value()));
    Ok(if disabled { ClusterDns::Foreign } else { ClusterDns::CoreDns })
}

impl ConfigRequest {
    /// The version without `v`.
    fn version(&self, offline: Option<&Offline>) -> Result<String, UpError> {
        let wanted = self.kubernetes_version.as_deref();
        offline.map_or(Ok(()), |offline| offline.check_version(wanted))?;
        let version = wanted.or_else(|| offline.and_then(Offline::kubernetes_version));
        Ok(version.unwrap_or(images::DEFAULT_KUBERNETES_VERSION).trim_start_matches('v').to_owned())
    }

    fn mirrors(&self, registry: Option<&str>) -> Vec<(String, Vec<String>)> {
        let mut mirrors: Vec<(String, Vec<String>)> = Vec::new();
        for (host, url) in &self.mirrors {
            match mirrors.iter_mut().find(|(known, _)| known == host) {
                Some((_, urls)) => urls.push(url.clone()),
                None => mirrors.push((host.clone(), vec![url.clone()])),
            }
        }
        if let Some(registry) = registry {
            let free = MIRRORED.into_iter().filter(|host| !self.mirrors.iter().any(|(taken, _)| taken == host));
            mirrors.extend(free.map(|host| (host.to_owned(), vec![registry.to_owned()])));
        }
        mirrors
    }
}

/// Address and port of a URL like `http://10.5.0.1:5001/path`.
fn address_of(url: &str) -> Option<SocketAddrV4> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split('/').next()?.rsplit('@').next()?;
    let port = if scheme == "https" { 443 } else { 80 };
    authority.parse().ok().or_else(|| Some(SocketAddrV4::new(authority.parse().ok()?, port)))
}

/// Images of a control plane from the bundle.
fn control_plane_patch(offline: Option<&Offline>) -> serde_json::Value {
    let mut cluster = json!({});
    if let Some(etcd) = offline.and_then(Offline::etcd) {
        cluster["etcd"] = json!({ "image": etcd });
    }
    if offline.is_some_and(|offline| !offline.has_coredns()) {
        cluster["coreDNS"] = json!({ "disabled": true });
    }
    json!({ "version": "v1alpha1", "cluster": cluster })
}

/// Nodes share the host's disk, which the kubelet takes for its own: at its usual thresholds (10 and 15 % free) it would
/// evict pods because of other data on the host.
///
/// The kubelet shows static pods to the API when it next looks at them after its node was registered, a minute or more
/// later as a rule (`syncFrequency`, 1 m by default); a cluster that is made to be used at once does not wait that long.
fn kubelet_patch() -> serde_json::Value {
    let eviction = json!({
        "imagefs.available": "1%",
        "memory.available": "100Mi",
        "nodefs.available": "1%",
        "nodefs.inodesFree": "1%",
    });
    let config = json!({
        "evictionHard": eviction,
        "imageGCHighThresholdPercent": 99,
        "imageGCLowThresholdPercent": 98,
        "syncFrequency": "10s",
    });
    json!({ "version": "v1alpha1", "machine": { "kubelet": { "extraConfig": config } } })
}

/// Validates the operator's choices here instead of on a node. Returns the text, and warnings about what the operator's patches
/// brought in; those about defaults say nothing that the operator could change.
fn document(
    input: &Input,
    kind: MachineType,
    own: &[Patch],
    wanted: &[Patch],
) -> Result<(Vec<u8>, Vec<String>), UpError> {
    let subject = match kind {
        MachineType::Worker => "worker configuration",
        _ => "control plane configuration",
    };
    let text = generate(input, kind, CommentStyle::NONE).map_err(generating(subject))?;
    let documents = Documents::from_yaml(text.as_bytes()).map_err(generating(subject))?;
    let documents = config::patch::apply(&documents, own).map_err(generating(subject))?;
    let field = |warning: &ConfigError| (warning.kind.clone(), warning.path.clone());
    let known: BTreeSet<_> = validate(&documents, Mode::Container).warnings().map(field).collect();
    let documents = config::patch::apply(&documents, wanted).map_err(generating(subject))?;
    let warnings = validate(&documents, Mode::Container).into_result().map_err(generating(subject))?;
    let new = warnings.into_iter().filter(|warning| !known.contains(&field(warning)));
    let texts = new.map(|warning| format!("{} {}: {}", warning.kind, warning.path, warning.message));
    Ok((documents.to_yaml().into_bytes(), texts.collect()))
}

fn generating<E: std::error::Error + Send + Sync + 'static>(subject: &'static str) -> impl Fn(E) -> UpError {
    move |source| UpError::Generate { subject, source: Box::new(source) }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::plan::NodeSpec;

    fn plan() -> Plan {
        Plan::new("one", "10.6.0.0/24", 1500, &NodeSpec { controlplanes: 1, workers: 2 }).unwrap()
    }

    fn tree(rendered: &Rendered, role: Role) -> Value {
        let node = plan().nodes.into_iter().find(|node| node.role == role).unwrap();
        tree_of(rendered, &node)
    }

    fn tree_of(rendered: &Rendered, node: &PlannedNode) -> Value {
        let documents = Documents::from_yaml(rendered.of(node)).unwrap();
        documents.documents()[0].to_value()
    }

    fn request() -> ConfigRequest {
        ConfigRequest {
            kubernetes_version: Some("v1.30.14".to_owned()),
            dns_domain: "cluster.local".to_owned(),
            nameservers: vec!["1.1.1.1".to_owned()],
            control_plane_port: 6443,
            kubeprism_port: Some(7445),
            mirrors: vec![("quay.io".to_owned(), "http://mirror:1".to_owned())],
            discovery: true,
            insecure_registries: vec![],
            custom_cni: vec![],
            patches: Patches::default(),
        }
    }

    fn rendered(request: &ConfigRequest) -> Result<Rendered, UpError> {
        render(request, &plan(), secrets().unwrap(), None, Some("http://10.6.0.1:5000"))
    }

    #[test]
    fn the_nodes_are_told_where_images_discovery_and_the_first_control_plane_are() {
        let rendered = rendered(&request()).unwrap();
        for role in [Role::ControlPlane, Role::Worker] {
            let config = tree(&rendered, role);
            assert_eq!(config["machine"]["type"], role.as_str());
            let mirrors = &config["machine"]["registries"]["mirrors"];
            assert_eq!(mirrors["registry.k8s.io"]["endpoints"], json!(["http://10.6.0.1:5000"]));
            assert_eq!(mirrors["quay.io"]["endpoints"], json!(["http://mirror:1"]), "the operator's mirror wins");
            let cluster = &config["cluster"];
            assert_eq!(cluster["controlPlane"]["endpoint"], "https://10.6.0.2:6443");
            assert_eq!(cluster["discovery"]["registries"]["service"]["endpoint"], "http://10.6.0.1:3000/");
            assert_eq!(cluster["network"]["cni"]["name"], "native");
        }
        assert_eq!(rendered.kubernetes_version, "1.30.14");
        let context = &rendered.talosconfig.contexts["one"];
        assert_eq!(
            (context.endpoints.as_slice(), context.nodes.as_slice()),
            (["10.6.0.2".to_owned()].as_slice(), ["10.6.0.2".to_owned()].as_slice())
        );
        context.credentials().unwrap();
    }

    #[test]
    fn a_worker_gets_no_key_of_an_authority() {
        let rendered = rendered(&request()).unwrap();
        let config = tree(&rendered, Role::Worker);
        for authority in [&config["machine"]["ca"], &config["cluster"]["ca"]] {
            assert!(authority["crt"].as_str().is_some_and(|crt| !crt.is_empty()));
            assert_eq!(authority["key"].as_str().unwrap_or_default(), "");
        }
        for secret in ["etcd", "aggregatorCA", "serviceAccount", "secretboxEncryptionSecret"] {
            assert_eq!(config["cluster"].get(secret), None, "{secret}");
        }
    }

    #[test]
    fn patches_of_the_operator_win_and_reach_their_role() {
        let patch = |text: &str| vec![Patch::parse(text).unwrap()];
        let patches = Patches {
            all: patch("cluster: { network: { cni: { name: none } } }"),
            control_plane: vec![],
            worker: patch(r#"[{ "op": "add", "path": "/machine/sysctls", "value": { "a.b": "1" } }]"#),
            nodes: BTreeMap::new(),
        };
        let rendered = rendered(&ConfigRequest { patches, ..request() }).unwrap();
        let (control, worker) = (tree(&rendered, Role::ControlPlane), tree(&rendered, Role::Worker));
        assert_eq!(control["cluster"]["network"]["cni"]["name"], "none");
        assert_eq!(worker["cluster"]["network"]["cni"]["name"], "none");
        assert_eq!((&control["machine"]["sysctls"], &worker["machine"]["sysctls"]["a.b"]), (&Value::Null, &json!("1")));
    }

    #[test]
    fn dns_is_expected_unless_the_bundle_or_a_patch_leaves_it_out() {
        let dns = |patches: Patches| rendered(&ConfigRequest { patches, ..request() }).unwrap().dns;
        assert_eq!(dns(Patches::default()), ClusterDns::CoreDns);
        let all = vec![Patch::parse("cluster: { coreDNS: { disabled: true } }").unwrap()];
        assert_eq!(dns(Patches { all, ..Patches::default() }), ClusterDns::Foreign);
    }

    #[test]
    fn a_patch_for_one_node_reaches_that_node_alone() {
        let patch = || vec![Patch::parse("machine: { nodeLabels: { rack: a } }").unwrap()];
        let patches = |name: &str| Patches { nodes: [(name.to_owned(), patch())].into(), ..Patches::default() };
        let rendered_for = |name| rendered(&ConfigRequest { patches: patches(name), ..request() });
        let got = rendered_for("one-worker-2").unwrap();
        let plan = plan();
        let labels = plan.nodes.iter().map(|node| tree_of(&got, node)["machine"]["nodeLabels"]["rack"].clone());
        assert_eq!(labels.collect::<Vec<_>>(), [Value::Null, Value::Null, json!("a")]);
        let refused = rendered_for("one-worker-3").unwrap_err();
        assert!(matches!(&refused, UpError::NoSuchNode(name) if name == "one-worker-3"), "{refused}");
    }

    #[test]
    fn mirrors_on_addresses_are_known_with_their_ports() {
        let addresses =
            ["http://a:b@10.5.0.1:5001/v2", "https://192.0.2.1", "http://mirror:5000", "10.5.0.1:5000"].map(address_of);
        let address = |text: &str| Some(text.parse().unwrap());
        assert_eq!(addresses, [address("10.5.0.1:5001"), address("192.0.2.1:443"), None, None]);
    }

    #[test]
    fn a_patch_without_effect_is_told_once_and_defaults_are_not() {
        assert_eq!(rendered(&request()).unwrap().warnings, BTreeSet::new());
        let patch = r#"{"machine": {"files": [{"path": "/var/etc/a", "op": "create", "content": "a"}]}}"#;
        let patches = Patches { all: vec![Patch::parse(patch).unwrap()], ..Patches::default() };
        let warnings = rendered(&ConfigRequest { patches, ..request() }).unwrap().warnings;
        let [warning] = &warnings.iter().collect::<Vec<_>>()[..] else { panic!("{warnings:?}") };
        assert!(warning.starts_with("v1alpha1 machine.files: has no effect yet"), "{warning}");
    }

    #[test]
    fn every_url_of_the_configurations_is_reachable_from_the_nodes_also_that_of_a_patch() {
        let patch = r#"{"machine": {"registries": {"mirrors": {"ghcr.io": {"endpoints": ["http://10.6.0.1:5002"]}}}}}"#;
        let rendered = rendered(&ConfigRequest {
            custom_cni: vec!["http://10.6.0.1:8099/network.json".to_owned()],
            mirrors: vec![("quay.io".to_owned(), "http://10.6.0.1:5001".to_owned())],
            patches: Patches { all: vec![Patch::parse(patch).unwrap()], ..Patches::default() },
            ..request()
        })
        .unwrap();
        let addresses = rendered.addresses();
        for expected in ["10.6.0.1:8099", "10.6.0.1:5001", "10.6.0.1:5002"] {
            assert!(addresses.contains(&expected.parse().unwrap()), "{expected} is not in {addresses:?}");
        }
    }

    #[test]
    fn a_choice_that_no_node_accepts_is_refused() {
        let refused = rendered(&ConfigRequest { nameservers: vec!["not an address".to_owned()], ..request() });
        assert!(matches!(&refused, Err(UpError::Generate { .. })), "{refused:?}");
    }

    #[test]
    fn nodes_do_not_evict_pods_because_the_hosts_disk_is_nearly_full() {
        let rendered = rendered(&request()).unwrap();
        for role in [Role::ControlPlane, Role::Worker] {
            let eviction = &tree(&rendered, role)["machine"]["kubelet"]["extraConfig"]["evictionHard"];
            assert_eq!(eviction["nodefs.available"], "1%");
            assert_eq!(eviction["imagefs.available"], "1%");
        }
    }
}
