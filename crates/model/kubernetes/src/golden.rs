//! Everything that is rendered, for every supported release, held by files in `testdata`; `UPDATE_GOLDEN=1` renews them.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use serde_json::{Map, Value};

use crate::component_files;
use crate::kubelet::{self, KubeletInput};
use crate::manifests::{self, BootstrapInput, CoreDnsInput, FlannelInput, ProxyInput};
use crate::static_pods::{
    ApiServerInput, ControllerManagerInput, Customization, Revisions, SchedulerInput, api_server, controller_manager,
    scheduler,
};
use crate::version::{SUPPORTED_MINORS, Version};
use crate::yaml;

const ENDPOINT: &str = "https://10.5.0.2:6443";
const POD_CIDR: &str = "10.244.0.0/16";
const SERVICE_CIDR: &str = "10.96.0.0/12";

pub(crate) fn kubelet_input(version: Version) -> KubeletInput {
    KubeletInput {
        version,
        nodename: "talos-default-controlplane-1".to_owned(),
        node_ips: vec!["10.5.0.2".parse().unwrap()],
        cluster_dns: vec!["10.96.0.10".to_owned()],
        cluster_domain: "cluster.local".to_owned(),
        extra_args: BTreeMap::new(),
        extra_config: Map::new(),
        cloud_provider_external: false,
        default_runtime_seccomp: true,
        skip_node_registration: false,
        static_pod_list_url: "http://127.0.0.1:41234".to_owned(),
        manifests_directory: false,
        fs_quota_monitoring: true,
        credential_provider: false,
        protect_kernel_defaults: true,
        resolv_conf: String::new(),
    }
}

pub(crate) fn bootstrap_input() -> BootstrapInput {
    BootstrapInput {
        server: "https://127.0.0.1:7445".to_owned(),
        token_id: "abcdef".to_owned(),
        token_secret: "0123456789abcdef".to_owned(),
        proxy: Some(ProxyInput {
            image: "registry.k8s.io/kube-proxy:v1.30.0".to_owned(),
            args: manifests::proxy_args(&[POD_CIDR.to_owned()], "", &BTreeMap::new()),
        }),
        core_dns: Some(CoreDnsInput {
            image: "registry.k8s.io/coredns/coredns:v1.11.1".to_owned(),
            cluster_domain: "cluster.local".to_owned(),
            service_ips: vec!["10.96.0.10".to_owned()],
        }),
        flannel: Some(FlannelInput {
            image: "ghcr.io/siderolabs/flannel:v0.25.1".to_owned(),
            install_cni_image: "ghcr.io/siderolabs/install-cni:v1.7.0-1-gbb76755".to_owned(),
            pod_cidrs: vec![POD_CIDR.to_owned()],
            extra_args: Vec::new(),
            service_host: "127.0.0.1".to_owned(),
            service_port: "7445".to_owned(),
        }),
        talos_api: true,
        host_dns_service_ip: "10.96.0.9".to_owned(),
    }
}

fn revisions() -> Revisions {
    Revisions { secrets: "3".to_owned(), config_files: "1".to_owned(), config: "2".to_owned() }
}

fn pods(version: Version) -> [(&'static str, Value); 3] {
    let api = ApiServerInput {
        image: format!("registry.k8s.io/kube-apiserver:v{version}"),
        cloud_provider: String::new(),
        endpoint: ENDPOINT.to_owned(),
        etcd_servers: vec!["https://127.0.0.1:2379".to_owned()],
        local_port: 6443,
        service_cidrs: vec![SERVICE_CIDR.to_owned()],
        advertised_address: "$(POD_IP)".to_owned(),
        custom: Customization::default(),
        revisions: revisions(),
    };
    let manager = ControllerManagerInput {
        image: format!("registry.k8s.io/kube-controller-manager:v{version}"),
        cloud_provider: String::new(),
        pod_cidrs: vec![POD_CIDR.to_owned()],
        service_cidrs: vec![SERVICE_CIDR.to_owned()],
        custom: Customization::default(),
        revisions: revisions(),
    };
    let sched = SchedulerInput {
        image: format!("registry.k8s.io/kube-scheduler:v{version}"),
        custom: Customization::default(),
        revisions: revisions(),
    };
    [
        ("kube-apiserver", api_server(&api).unwrap()),
        ("kube-controller-manager", controller_manager(&manager).unwrap()),
        ("kube-scheduler", scheduler(&sched).unwrap()),
    ]
}

fn rendered(version: Version) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    let kubelet = kubelet_input(version);
    files.insert("kubelet-args.txt".to_owned(), kubelet::args(&kubelet).unwrap().join("\n") + "\n");
    let documents = [
        ("kubelet", kubelet::configuration(&kubelet).unwrap()),
        ("admission", component_files::admission(&[component_files::default_pod_security()])),
        ("scheduler-config", component_files::scheduler(&Map::new())),
    ];
    for (name, document) in documents.into_iter().chain(pods(version)) {
        files.insert(format!("{name}.yaml"), yaml::to_string(&document).unwrap());
    }
    files
}

/// Documents that do not depend on the release.
fn rendered_once() -> BTreeMap<String, String> {
    let mut files: BTreeMap<String, String> = manifests::bootstrap(&bootstrap_input())
        .into_iter()
        .map(|manifest| {
            let texts: Vec<String> = manifest.objects.iter().map(|object| yaml::to_string(object).unwrap()).collect();
            (format!("{}.yaml", manifest.name), texts.join("---\n"))
        })
        .collect();
    let documents = [
        ("audit-policy", component_files::default_audit_policy()),
        ("encryption", component_files::encryption("c2VjcmV0Ym94", "")),
    ];
    for (name, document) in documents {
        files.insert(format!("{name}.yaml"), yaml::to_string(&document).unwrap());
    }
    files
}

#[expect(clippy::disallowed_methods, reason = "a test reads the switch that renews golden files")]
fn compare(folder: &str, files: &BTreeMap<String, String>) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata").join(folder);
    if std::env::var("UPDATE_GOLDEN").is_ok() {
        let _gone = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        for (name, text) in files {
            fs::write(folder.join(name), text).unwrap();
        }
    }
    let mut kept: Vec<String> =
        fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    kept.sort();
    assert_eq!(kept, files.keys().cloned().collect::<Vec<_>>(), "files in {}", folder.display());
    for (name, text) in files {
        assert_eq!(&fs::read_to_string(folder.join(name)).unwrap(), text, "{name} in {}", folder.display());
    }
}

#[test]
fn rendering_for_every_release_is_as_kept() {
    for minor in SUPPORTED_MINORS {
        compare(&format!("1.{minor}"), &rendered(Version::new(1, *minor, 0)));
    }
}

#[test]
fn rendering_for_all_releases_is_as_kept() {
    compare("all", &rendered_once());
}

#[test]
fn six_releases_without_a_gap_are_supported() {
    assert_eq!(SUPPORTED_MINORS.last(), Some(&crate::version::NEWEST.minor));
    assert_eq!(SUPPORTED_MINORS.len(), 6);
    assert!(SUPPORTED_MINORS.windows(2).all(|pair| pair[1] == pair[0] + 1));
}
