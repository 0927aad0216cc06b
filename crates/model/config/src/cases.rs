//! Inputs that users had and that once failed, each with the right outcome. A file is a patch of a generated configuration.

use std::sync::LazyLock;
use std::time::SystemTime;

use pki::{Algorithm, SecretsBundle, SecretsOptions};

use crate::generate::{CommentStyle, Input, generate};
use crate::{Documents, MachineType, Mode, Patch, Report, patch, validate};

static INPUT: LazyLock<Input> = LazyLock::new(|| {
    let options = SecretsOptions { service_account: Algorithm::EcdsaP256, ..SecretsOptions::default() };
    let secrets = SecretsBundle::generate(SystemTime::UNIX_EPOCH, options).unwrap();
    Input::new("demo", "https://10.5.0.2:6443", secrets)
});

macro_rules! case {
    ($name:literal) => {
        include_str!(concat!("../testdata/cases/", $name, ".yaml"))
    };
}

use MachineType::{ControlPlane, Worker};
use Mode::{Container, Metal};

fn base(kind: MachineType) -> Documents {
    let text = generate(&INPUT, kind, CommentStyle::NONE).unwrap();
    Documents::from_yaml(text.as_bytes()).unwrap()
}

/// As the commands do it: the patched text is read anew.
fn patched(kind: MachineType, patches: &[&str]) -> Documents {
    let patches: Vec<_> = patches.iter().map(|text| Patch::parse(text).unwrap()).collect();
    let patched = patch::apply(&base(kind), &patches).unwrap();
    Documents::unjudged(patched.raw()).unwrap()
}

fn report(kind: MachineType, patch: &str, mode: Mode) -> Report {
    validate(&patched(kind, &[patch]), mode)
}

fn paths(errors: &[crate::ConfigError]) -> Vec<&str> {
    errors.iter().map(|error| error.path.as_str()).collect()
}

#[test]
fn old_fields_are_taken() {
    for (name, text, warnings) in [
        ("bootloader", case!("F01-legacy-fields/bootloader"), &[][..]),
        ("cidr", case!("F01-legacy-fields/cidr"), &["machine.network.interfaces[0].cidr"]),
        ("etcd-subnet", case!("F01-legacy-fields/etcd-subnet"), &[]),
        ("masters", case!("F01-legacy-fields/masters"), &[]),
        ("join", "machine: {type: join}", &[]),
    ] {
        let kind = if name == "join" { Worker } else { ControlPlane };
        let report = report(kind, text, Metal);
        assert_eq!((paths(&report.errors), paths(&report.warnings)), (vec![], warnings.to_vec()), "{name}");
    }
}

#[test]
fn plain_addresses_are_networks() {
    let report = report(ControlPlane, case!("F02-bare-addresses/subnets"), Metal).strict();
    assert_eq!(paths(&report.errors), Vec::<&str>::new());
}

#[test]
fn a_custom_network_without_manifests_is_a_warning() {
    let report = report(ControlPlane, case!("F03-custom-cni/patch"), Metal);
    assert_eq!((report.is_ok(), paths(&report.warnings)), (true, vec!["cluster.network.cni.urls"]));
    assert!(!report.strict().is_ok());
}

#[test]
fn empty_patches_change_nothing() {
    for text in [case!("F04-empty-patch/comment"), case!("F04-empty-patch/empty"), "---\n"] {
        assert_eq!(patched(ControlPlane, &[text]), base(ControlPlane), "{text:?}");
    }
}

#[test]
fn json_replace_sets_what_is_absent() {
    let documents = patched(ControlPlane, &[case!("F05-json-replace/hostname"), case!("F05-json-replace/cni")]);
    let root = documents.v1alpha1().unwrap();
    assert_eq!(root.machine().hostname(), Some("node-1"));
    assert_eq!(root.cluster().cni(), crate::v1alpha1::CniKind::None);
}

#[test]
fn ports_and_networks_of_a_rule_are_replaced() {
    let rule = case!("F07-firewall-merge/rule");
    let ports = |documents: &Documents| documents.values()[1]["portSelector"]["ports"].clone();
    let twice = patched(ControlPlane, &[rule, rule]);
    assert_eq!(ports(&twice), serde_json::json!([10250, "50000-50010"]));
    let other = patched(ControlPlane, &[rule, rule, case!("F07-firewall-merge/other")]);
    assert_eq!(ports(&other), serde_json::json!(["50000-50020"]));
    assert_eq!(other.values()[1]["ingress"], serde_json::json!([{"subnet": "192.168.0.0/16"}]));
    assert!(validate(&twice, Metal).is_ok() && validate(&other, Metal).is_ok());
}

#[test]
fn the_file_of_one_path_is_replaced() {
    let files = [case!("F08-extension-files-merge/first"), case!("F08-extension-files-merge/second")];
    let expected = serde_json::json!([{"content": "new", "mountPath": "/etc/app/conf.yaml"}]);
    assert_eq!(patched(ControlPlane, &files).values()[1]["configFiles"], expected);
}

/// Patches that are refused, each for the field where it is wrong.
const REFUSED: &[(MachineType, Mode, &str, &str)] = &[
    (Worker, Metal, case!("F09-worker-etcd/patch"), "cluster.etcd"),
    (ControlPlane, Metal, case!("F10-bond-checks/arp-ip-target"), "machine.network.interfaces[0].bond.arpIPTarget"),
    (
        ControlPlane,
        Metal,
        case!("F10-bond-checks/bond-and-bridge"),
        "machine.network.interfaces[1].bridge.interfaces[0]",
    ),
    (ControlPlane, Metal, case!("F10-bond-checks/member-with-dhcp"), "machine.network.interfaces[1].dhcp"),
    (
        ControlPlane,
        Metal,
        case!("F10-bond-checks/updelay-without-miimon"),
        "machine.network.interfaces[0].bond.updelay",
    ),
    (ControlPlane, Metal, case!("F11-kubelet-protected/patch"), "machine.kubelet.extraConfig.authentication"),
    (ControlPlane, Container, case!("F12-small-checks/container-host-dns"), "machine.features.hostDNS"),
    (ControlPlane, Metal, case!("F12-small-checks/discovery-path"), "cluster.discovery.registries.service.endpoint"),
    (ControlPlane, Metal, case!("F12-small-checks/disk-size"), "machine.install.diskSelector.size"),
    (ControlPlane, Metal, case!("F12-small-checks/persist"), "persist"),
    // others of their kinds
    (
        ControlPlane,
        Metal,
        "machine: {network: {interfaces: [{interface: b0, bridge: {interfaces: [eth0]}}, {interface: b1, bridge: {interfaces: [eth0]}}]}}",
        "machine.network.interfaces[1].bridge.interfaces[0]",
    ),
    (
        ControlPlane,
        Metal,
        "machine: {network: {interfaces: [{interface: b0, bridge: {interfaces: [eth0.5]}}, {interface: eth0, vlans: [{vlanId: 5, dhcp: true}]}]}}",
        "machine.network.interfaces[1].vlans[0].dhcp",
    ),
    (Worker, Metal, "{apiVersion: v1alpha1, kind: KmsgLogConfig, name: a, url: 'tcp://a:1/x'}", "url"),
    (
        Worker,
        Metal,
        "machine: {systemDiskEncryption: {state: {provider: luks2, keys: [{kms: {endpoint: 'https://a/x'}}]}}}",
        "machine.systemDiskEncryption.state.keys[0].kms.endpoint",
    ),
    (
        ControlPlane,
        Metal,
        "machine: {network: {interfaces: [{interface: b0, bond: {interfaces: [eth0]}}, {interface: b1, bond: {interfaces: [eth0]}}]}}",
        "machine.network.interfaces[1].bond.interfaces[0]",
    ),
    (
        ControlPlane,
        Metal,
        "machine: {network: {interfaces: [{interface: b0, bridge: {interfaces: [b0]}}]}}",
        "machine.network.interfaces[0].bridge.interfaces[0]",
    ),
    (
        ControlPlane,
        Metal,
        "machine: {network: {interfaces: [{interface: b0, bond: {interfaces: [eth0]}}, {interface: eth0, cidr: 10.0.0.1/8}]}}",
        "machine.network.interfaces[1].addresses",
    ),
    (
        ControlPlane,
        Metal,
        "machine: {network: {interfaces: [{interface: b0, bond: {mode: active-backup, lacpRate: fast}}]}}",
        "machine.network.interfaces[0].bond.lacpRate",
    ),
    (
        ControlPlane,
        Metal,
        "machine: {network: {interfaces: [{interface: b0, bond: {mode: 802.3ad, primary: eth0}}]}}",
        "machine.network.interfaces[0].bond.primary",
    ),
    (
        ControlPlane,
        Metal,
        "machine: {network: {interfaces: [{interface: b0, bond: {mode: 802.3ad, arpInterval: 100}}]}}",
        "machine.network.interfaces[0].bond.arpInterval",
    ),
    (
        ControlPlane,
        Metal,
        "machine: {network: {interfaces: [{interface: b0, bond: {arpInterval: 100, miimon: 100}}]}}",
        "machine.network.interfaces[0].bond.arpInterval",
    ),
    (
        ControlPlane,
        Metal,
        "machine: {network: {interfaces: [{interface: b0, bond: {miimon: 100, downdelay: 250}}]}}",
        "machine.network.interfaces[0].bond.downdelay",
    ),
    (
        ControlPlane,
        Metal,
        "machine: {network: {interfaces: [{interface: b0, bond: {deviceSelectors: [{}]}}]}}",
        "machine.network.interfaces[0].bond.deviceSelectors[0]",
    ),
    (
        ControlPlane,
        Metal,
        "machine: {network: {interfaces: [{interface: b0, bond: {mode: 802.3ad, adSelect: most}}]}}",
        "machine.network.interfaces[0].bond.adSelect",
    ),
    (
        ControlPlane,
        Metal,
        "machine: {network: {interfaces: [{deviceSelector: {}}]}}",
        "machine.network.interfaces[0].deviceSelector",
    ),
    (ControlPlane, Metal, "machine: {install: {diskSelector: {}}}", "machine.install.diskSelector"),
    (
        ControlPlane,
        Metal,
        "machine: {install: {extensions: [{image: a}, {image: a}]}}",
        "machine.install.extensions[1].image",
    ),
    (
        ControlPlane,
        Metal,
        "machine: {network: {interfaces: [{interface: eth0, vip: {}}]}}",
        "machine.network.interfaces[0].vip.ip",
    ),
    (
        ControlPlane,
        Metal,
        "cluster: {externalCloudProvider: {manifests: ['https://a/']}}",
        "cluster.externalCloudProvider.manifests",
    ),
    (
        ControlPlane,
        Metal,
        "cluster: {scheduler: {resources: {requests: {disk: 1}}}}",
        "cluster.scheduler.resources.requests.disk",
    ),
    (
        ControlPlane,
        Metal,
        "cluster: {apiServer: {resources: {limits: {memory: lots}}}}",
        "cluster.apiServer.resources.limits.memory",
    ),
    (
        ControlPlane,
        Metal,
        "cluster: {controllerManager: {resources: {requests: {cpu: 2}, limits: {cpu: 1500m}}}}",
        "cluster.controllerManager.resources.requests.cpu",
    ),
    (ControlPlane, Metal, "cluster: {apiServer: {resources: {claims: {}}}}", "cluster.apiServer.resources.claims"),
    (
        Worker,
        Metal,
        "machine: {logging: {destinations: [{endpoint: 'tcp://a:1/path', format: json_lines}]}}",
        "machine.logging.destinations[0].endpoint",
    ),
    (Worker, Metal, "machine: {kubelet: {extraMounts: [{source: /a}]}}", "machine.kubelet.extraMounts[0].destination"),
    (
        ControlPlane,
        Metal,
        "cluster: {scheduler: {extraVolumes: [{mountPath: /a}]}}",
        "cluster.scheduler.extraVolumes[0].hostPath",
    ),
    (Worker, Metal, "machine: {files: [{path: /etc/x, op: create}]}", "machine.files[0].path"),
    (Worker, Metal, "machine: {kernel: {modules: [{parameters: [a]}]}}", "machine.kernel.modules[0].name"),
    (
        Worker,
        Metal,
        "machine: {systemDiskEncryption: {state: {provider: luks2, keys: [{kms: {}}]}}}",
        "machine.systemDiskEncryption.state.keys[0].kms.endpoint",
    ),
    (Worker, Container, "machine: {features: {hostDNS: {forwardKubeDNSToHost: false}}}", "machine.features.hostDNS"),
];

#[test]
fn values_without_a_sensible_effect_are_refused() {
    let mut failed = Vec::new();
    for (kind, mode, text, path) in REFUSED {
        let report = report(*kind, text, *mode);
        if paths(&report.errors) != [*path] {
            failed.push(format!("{path}: {:?}", paths(&report.errors)));
        }
    }
    assert_eq!(failed, Vec::<String>::new());
}

#[test]
fn every_field_that_the_system_sets_is_refused() {
    for field in kubernetes::kubelet::SYSTEM_FIELDS {
        let text = format!("machine: {{kubelet: {{extraConfig: {{{field}: x}}}}}}");
        let path = format!("machine.kubelet.extraConfig.{field}");
        assert_eq!(paths(&report(ControlPlane, &text, Metal).errors), [path]);
    }
}

/// Accepted also where warnings are errors.
#[test]
fn checks_are_not_stricter_than_they_have_to_be() {
    let root =
        "machine: {type: controlplane, install: {disk: /dev/sda}}\ncluster: {controlPlane: {endpoint: 'https://a'}}\n";
    for (name, text) in [
        ("without any secret", root.to_owned()),
        ("a worker without any secret", root.replace("controlplane,", "worker,")),
        ("an empty type", root.replace("type: controlplane,", "type: '',")),
        ("no type", root.replace("type: controlplane,", "")),
        ("an empty version", format!("version: ''\n{root}")),
        ("a token of another form", root.replace("cluster: {", "cluster: {token: a.b, ")),
        ("an old type", root.replace("controlplane,", "init,")),
        (
            "a worker of a custom network",
            root.replace("controlplane,", "worker,")
                .replace("cluster: {", "cluster: {network: {cni: {name: custom}}, "),
        ),
        (
            "an authority beside those of the image",
            root.replace("install:", "files: [{path: /etc/ssl/certs/ca-certificates, op: append}], install:"),
        ),
        ("an empty bond", root.replace("install:", "network: {interfaces: [{interface: bond0, bond: {}}]}, install:")),
        ("only other documents", "apiVersion: v1alpha1\nkind: EventSinkConfig\nendpoint: 10.0.0.1:80\n".to_owned()),
    ] {
        let report = validate(&Documents::from_yaml(text.as_bytes()).unwrap(), Metal).strict();
        assert_eq!(paths(&report.errors), Vec::<&str>::new(), "{name}");
    }
}

#[test]
fn a_worker_that_becomes_a_control_plane_is_valid_and_not_reachable() {
    let documents = patched(Worker, &["machine: {type: controlplane}"]);
    assert_eq!(paths(&validate(&documents, Container).errors), Vec::<&str>::new());
    assert_eq!(paths(&crate::validate::reachable(&documents).unwrap_err().0), ["machine.ca.key"]);
    for kind in [ControlPlane, Worker] {
        crate::validate::reachable(&base(kind)).unwrap();
    }
}

#[test]
fn old_words_for_a_worker_survive_in_the_patched_text() {
    let documents = patched(Worker, &["machine: {type: join}"]);
    assert_eq!(documents.v1alpha1().unwrap().machine_type(), Worker);
    assert_eq!(documents.values()[0]["machine"]["type"], "join");
}
