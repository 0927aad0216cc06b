use controller::testing::Harness;
use resources::config::MachineConfig;

use super::*;
use crate::testing::{Cluster, configure, pem};

fn harness() -> Harness {
    let harness = Harness::new();
    harness.run(root_os());
    harness.run(root_etcd());
    harness.run(root_kubernetes());
    harness.run(kubelet());
    harness
}

#[tokio::test(start_paused = true)]
async fn a_control_plane_has_all_root_secrets() {
    let harness = harness();
    let cluster = Cluster::new(&harness);
    configure(&harness, cluster.control_plane());
    harness.settle().await;
    let os = harness.get::<OsRootSecret>(OsRootSecret::ID).unwrap();
    assert_eq!(pem(&os.issuing_ca.as_ref().unwrap().crt), cluster.os.certificate().to_pem());
    assert!(!os.issuing_ca.as_ref().unwrap().key.0.is_empty());
    assert_eq!((os.accepted_cas.len(), os.token.as_str()), (1, "abcdef.0123456789abcdef"));
    assert_eq!(os.cert_san_dns_names, ["api.example.org"]);
    assert_eq!(os.cert_san_ips, ["192.0.2.7".parse::<std::net::IpAddr>().unwrap()]);
    assert!(harness.get::<EtcdRootSecret>(EtcdRootSecret::ID).unwrap().etcd_ca.is_some());
    let kubernetes = harness.get::<KubernetesRootSecret>(KubernetesRootSecret::ID).unwrap();
    assert_eq!(kubernetes.name, "demo");
    assert_eq!(kubernetes.endpoint.0, "https://k8s.example.org:6443");
    assert_eq!(kubernetes.local_endpoint.0, "https://127.0.0.1:7445");
    assert_eq!(kubernetes.api_server_ips, ["10.96.0.1".parse::<std::net::IpAddr>().unwrap()]);
    assert!(kubernetes.service_account.is_some() && kubernetes.aggregator_ca.is_some());
    let kubelet = harness.get::<KubeletSecrets>(KubeletSecrets::ID).unwrap();
    assert_eq!(kubelet.endpoint.0, "https://127.0.0.1:7445");
    assert_eq!(
        (kubelet.bootstrap_token_id.as_str(), kubelet.bootstrap_token_secret.as_str()),
        ("012345", "0123456789abcdef")
    );
}

#[tokio::test(start_paused = true)]
async fn a_token_of_an_existing_cluster_may_have_no_dot() {
    let harness = harness();
    let cluster = Cluster::new(&harness);
    let with = |token: &str| cluster.worker().replace("token: 012345.0123456789abcdef", &format!("token: {token}"));
    configure(&harness, with("my-token"));
    harness.settle().await;
    assert_eq!(harness.get::<KubeletSecrets>(KubeletSecrets::ID).unwrap().bootstrap_token(), "my-token");
    configure(&harness, with("012345.0123456789abcdef"));
    harness.settle().await;
    let kubelet = harness.get::<KubeletSecrets>(KubeletSecrets::ID).unwrap();
    assert_eq!(kubelet.bootstrap_token(), "012345.0123456789abcdef");
}

#[tokio::test(start_paused = true)]
async fn a_worker_has_no_keys_of_authorities() {
    let harness = harness();
    configure(&harness, Cluster::new(&harness).worker());
    harness.settle().await;
    let os = harness.get::<OsRootSecret>(OsRootSecret::ID).unwrap();
    assert!(os.issuing_ca.as_ref().unwrap().key.0.is_empty());
    assert_eq!(harness.list::<EtcdRootSecret>(), []);
    assert_eq!(harness.list::<KubernetesRootSecret>(), []);
    let kubelet = harness.get::<KubeletSecrets>(KubeletSecrets::ID).unwrap();
    assert_eq!(kubelet.endpoint.0, "https://k8s.example.org:6443");
}

#[tokio::test(start_paused = true)]
async fn without_a_configuration_there_is_nothing() {
    let harness = harness();
    configure(&harness, Cluster::new(&harness).control_plane());
    harness.settle().await;
    harness.destroy::<MachineConfig>(MachineConfig::ACTIVE_ID);
    harness.settle().await;
    assert_eq!(harness.list::<OsRootSecret>(), []);
    assert_eq!(harness.list::<KubeletSecrets>(), []);
}

#[tokio::test(start_paused = true)]
async fn a_configuration_without_what_is_needed_is_an_error_that_names_it() {
    let harness = harness();
    configure(&harness, "version: v1alpha1\nmachine:\n  type: controlplane\n".into());
    harness.settle().await;
    let error = harness.status("secrets.RootEtcdController").last_error;
    assert_eq!(error.as_deref(), Some("configuration has no cluster.etcd.ca"));
}
