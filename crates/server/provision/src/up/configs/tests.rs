use serde_json::Value;

use super::local::address_of;
use super::*;
use crate::machines::UserPartition;
use crate::plan::NodeSpec;
use crate::up::offline::tests::layout;
use crate::up::offline::{Installer, Offline};

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

pub(in crate::up) fn request() -> ConfigRequest {
    ConfigRequest {
        existing: None,
        contract: Contract::default(),
        secrets: SecretsOptions { service_account: pki::Algorithm::EcdsaP256, ..SecretsOptions::default() },
        install_image: None,
        endpoint: None,
        debug: false,
        init_node: false,
        disable_ipv6: false,
        kubernetes_version: Some("v1.30.14".to_owned()),
        dns_domain: "cluster.local".to_owned(),
        nameservers: vec!["1.1.1.1".to_owned()],
        control_plane_port: 6443,
        install: None,
        kubeprism_port: Some(7445),
        mirrors: vec![("quay.io".to_owned(), "http://mirror:1".to_owned())],
        discovery: true,
        insecure_registries: vec![],
        custom_cni: vec![],
        patches: Patches::default(),
    }
}

/// As [`rendered`], for another plan.
pub(in crate::up) fn rendered_for(request: &ConfigRequest, plan: &Plan) -> Rendered {
    render(request, plan, material(request).unwrap(), &Images::default(), None).unwrap()
}

fn rendered(request: &ConfigRequest) -> Result<Rendered, UpError> {
    render_with(request, &bundle())
}

const REGISTRY: &str = "http://10.6.0.1:5000";

fn render_with(request: &ConfigRequest, images: &Images) -> Result<Rendered, UpError> {
    render(request, &plan(), material(request)?, images, Some(REGISTRY))
}

/// A bundle with all that a cluster needs.
fn bundle() -> Images {
    let references = [
        "ghcr.io/siderolabs/kubelet:v1.30.14",
        "gcr.io/etcd-development/etcd:v3.5.13",
        "registry.k8s.io/coredns/coredns:v1.11.1",
    ];
    Images { offline: Some(Offline::read(layout(&references).path()).unwrap()), installer: None }
}

/// An installer of that reference.
fn installer(reference: &str) -> Images {
    Images { installer: Some(Installer::read(layout(&[reference]).path()).unwrap()), ..Images::default() }
}

#[test]
fn an_installer_is_mirrored_without_a_bundle_and_no_other_host_is() {
    let images = installer(&config::images::installer());
    for (own, endpoints) in [(None, json!([REGISTRY])), (Some("http://mirror:1"), json!([REGISTRY, "http://mirror:1"]))]
    {
        let mirrors = own.map(|url| ("ghcr.io".to_owned(), url.to_owned())).into_iter().collect();
        let rendered = render_with(&ConfigRequest { mirrors, ..request() }, &images).unwrap();
        for role in [Role::ControlPlane, Role::Worker] {
            let mirrors = &tree(&rendered, role)["machine"]["registries"]["mirrors"];
            assert_eq!(mirrors, &json!({ "ghcr.io": { "endpoints": endpoints } }));
        }
        assert_eq!(rendered.unused_installer(&images, Some(REGISTRY)).unwrap(), BTreeSet::new());
    }
    let existing = ConfigRequest { existing: Some(existing()), ..request() };
    let rendered = render_with(&existing, &images).unwrap();
    let mirrors = &tree(&rendered, Role::Worker)["machine"]["registries"]["mirrors"];
    assert_eq!(mirrors["ghcr.io"]["endpoints"], json!([REGISTRY]));
    assert_eq!(mirrors.get("registry.k8s.io"), None);
}

#[test]
fn an_installer_that_a_node_does_not_install_is_told() {
    let images = installer("ghcr.io/siderolabs/installer:v9");
    let notices = render_with(&request(), &images).unwrap().unused_installer(&images, Some(REGISTRY)).unwrap();
    assert_eq!(notices.len(), plan().nodes.len());
    assert!(notices.iter().all(|notice| notice.ends_with(&config::images::installer())), "{notices:?}");

    let images = installer(&config::images::installer());
    let patch =
        r#"[{"op": "replace", "path": "/machine/registries/mirrors/ghcr.io/endpoints", "value": ["http://mirror:1"]}]"#;
    let patches = Patches { worker: vec![Patch::parse(patch).unwrap()], ..Patches::default() };
    let rendered = render_with(&ConfigRequest { patches, ..request() }, &images).unwrap();
    let notices = rendered.unused_installer(&images, Some(REGISTRY)).unwrap();
    assert_eq!(notices.len(), 2, "{notices:?}");
    assert!(notices.iter().all(|notice| notice.contains("another mirror of ghcr.io first")), "{notices:?}");
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
    let patch = r#"{"machine": {"network": {"kubespan": {"mtu": 1400}}}}"#;
    let patches = Patches { all: vec![Patch::parse(patch).unwrap()], ..Patches::default() };
    let warnings = rendered(&ConfigRequest { patches, ..request() }).unwrap().warnings;
    let [warning] = &warnings.iter().collect::<Vec<_>>()[..] else { panic!("{warnings:?}") };
    assert!(warning.starts_with("v1alpha1 machine.network.kubespan"), "{warning}");
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

#[test]
fn choices_are_in_the_configurations_and_old_ones_are_told() {
    let request = ConfigRequest {
        install_image: Some("example.org/installer:v1".to_owned()),
        contract: "v1.2".parse().unwrap(),
        endpoint: Some("cluster.example.org:50001".to_owned()),
        debug: true,
        init_node: true,
        disable_ipv6: true,
        ..request()
    };
    let rendered = rendered(&request).unwrap();
    let (control, worker) = (tree(&rendered, Role::ControlPlane), tree(&rendered, Role::Worker));
    assert_eq!((&control["machine"]["type"], &worker["machine"]["type"]), (&json!("init"), &json!("worker")));
    assert_eq!(control["machine"]["kubelet"].get("disableManifestsDirectory"), None, "1.2 does not have it");
    for config in [&control, &worker] {
        assert_eq!(
            (&config["debug"], &config["machine"]["install"]["image"]),
            (&json!(true), &json!("example.org/installer:v1"))
        );
        assert_eq!(config["machine"]["certSANs"], json!(["cluster.example.org"]));
        assert_eq!(config["machine"]["sysctls"]["net.ipv6.conf.all.disable_ipv6"], "1");
    }
    let sans = control["cluster"]["apiServer"]["certSANs"].as_array().unwrap();
    assert!(sans.contains(&json!("cluster.example.org")), "{sans:?}");
    assert_eq!(rendered.talosconfig.contexts["one"].endpoints, ["cluster.example.org:50001"]);
    assert_eq!(rendered.talosconfig.contexts["one"].nodes, ["10.6.0.2"]);
    let [warning] = &rendered.warnings.iter().collect::<Vec<_>>()[..] else { panic!("{:?}", rendered.warnings) };
    assert!(warning.starts_with("v1alpha1 machine.type: init is an old type"), "{warning}");
}

/// The configurations of a cluster, as somebody else made them.
fn existing() -> Existing {
    let made = rendered(&ConfigRequest { mirrors: Vec::new(), ..request() }).unwrap();
    let documents = |role: Role| {
        let mut value = tree(&made, role);
        let machine = value["machine"].as_object_mut().unwrap();
        machine
            .insert("registries".to_owned(), json!({ "mirrors": { "quay.io": { "endpoints": ["http://mirror:1"] } } }));
        machine["kubelet"]["extraConfig"] = json!({ "syncFrequency": "30s" });
        value["cluster"]["discovery"] = json!({ "enabled": true, "registries": { "service": {} } });
        Documents::from_yaml(value.to_string().as_bytes()).unwrap()
    };
    Existing {
        control_plane: documents(Role::ControlPlane),
        worker: Some(documents(Role::Worker)),
        talosconfig: Some(made.talosconfig),
    }
}

#[test]
fn existing_configurations_keep_their_values_and_get_those_of_a_local_cluster() {
    let from = existing();
    let patches =
        Patches { worker: vec![Patch::parse("machine: { nodeLabels: { rack: a } }").unwrap()], ..Patches::default() };
    let request = ConfigRequest { existing: Some(from.clone()), kubernetes_version: None, patches, ..request() };
    let rendered = rendered(&request).unwrap();
    let (control, worker) = (tree(&rendered, Role::ControlPlane), tree(&rendered, Role::Worker));
    for config in [&control, &worker] {
        let mirrors = &config["machine"]["registries"]["mirrors"];
        assert_eq!(mirrors["quay.io"]["endpoints"], json!(["http://mirror:1"]));
        assert_eq!(mirrors["ghcr.io"]["endpoints"], json!(["http://10.6.0.1:5000"]));
        let kubelet = &config["machine"]["kubelet"]["extraConfig"];
        assert_eq!((&kubelet["syncFrequency"], &kubelet["imageGCHighThresholdPercent"]), (&json!("30s"), &json!(99)));
        assert_eq!(config["cluster"]["discovery"]["registries"]["service"]["endpoint"], "http://10.6.0.1:3000/");
    }
    assert_eq!(worker["machine"]["nodeLabels"]["rack"], "a");
    assert_eq!(
        (rendered.kubernetes_version.as_str(), rendered.endpoint.as_str()),
        ("1.30.14", "https://10.6.0.2:6443")
    );
    assert_eq!(Some(rendered.talosconfig), from.talosconfig);
}

#[test]
fn existing_configurations_without_a_talosconfig_give_one_by_their_authority() {
    let from = Existing { talosconfig: None, ..existing() };
    let authority = from.control_plane.v1alpha1().unwrap().machine().ca.clone().unwrap();
    let rendered = rendered(&ConfigRequest { existing: Some(from), ..request() }).unwrap();
    let context = &rendered.talosconfig.contexts["one"];
    assert_eq!(context.ca, config::generate::base64(&authority.crt));
    assert_eq!(context.endpoints, ["10.6.0.2"]);
    context.credentials().unwrap();
}

#[test]
fn configurations_of_another_type_are_refused() {
    let from = existing();
    let refused = |existing: Existing| rendered(&ConfigRequest { existing: Some(existing), ..request() }).unwrap_err();
    let swapped = Existing { control_plane: from.worker.clone().unwrap(), ..from.clone() };
    assert!(matches!(refused(swapped), UpError::Input { subject: "control plane configuration", .. }));
    let missing = Existing { worker: None, ..from };
    assert!(matches!(refused(missing), UpError::Input { subject: "worker configuration", reason: "it is missing" }));
}

#[test]
fn machines_install_themselves_and_reach_the_api_by_the_load_balancer() {
    let arguments = vec!["console=ttyS0".to_owned(), "panic=1".to_owned()];
    let partition = UserPartition { mountpoint: "/var/mnt/a".to_owned(), size: 1 << 30 };
    let user_disks = vec![UserDisk { partitions: vec![partition] }];
    let install = Some(Install { disk: "/dev/vda".to_owned(), kernel_arguments: arguments.clone(), user_disks });
    let rendered = rendered(&ConfigRequest { install, ..request() }).unwrap();
    assert_eq!(rendered.endpoint, "https://10.6.0.1:6443");
    for role in [Role::ControlPlane, Role::Worker] {
        let config = tree(&rendered, role);
        assert_eq!(config["machine"]["install"]["disk"], "/dev/vda");
        assert_eq!(config["machine"]["install"]["extraKernelArgs"], json!(arguments));
        assert_eq!(config["cluster"]["controlPlane"]["endpoint"], "https://10.6.0.1:6443");
        let disk = json!({ "device": "/dev/vdb", "partitions": [{ "mountpoint": "/var/mnt/a", "size": 1 << 30 }] });
        assert_eq!(config["machine"]["disks"], json!([disk]));
        assert_eq!(config["machine"]["kubelet"]["nodeIP"]["validSubnets"], Value::Null);
        let kubelet = &config["machine"]["kubelet"]["extraConfig"];
        assert_eq!((&kubelet["syncFrequency"], kubelet.get("evictionHard")), (&json!("10s"), None));
    }
}

#[test]
fn nodes_of_several_networks_know_each_other_by_the_first() {
    let mut plan = plan();
    plan.add_network("10.7.0.0/24").unwrap();
    let rendered = rendered_for(&request(), &plan);
    for role in [Role::ControlPlane, Role::Worker] {
        let config = tree(&rendered, role);
        assert_eq!(config["machine"]["kubelet"]["nodeIP"]["validSubnets"], json!(["10.6.0.0/24"]));
        let subnets = (role == Role::ControlPlane).then(|| json!(["10.6.0.0/24"]));
        assert_eq!(config["cluster"]["etcd"]["advertisedSubnets"], subnets.unwrap_or_default());
    }
}
