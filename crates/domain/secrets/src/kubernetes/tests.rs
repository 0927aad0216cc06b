use controller::testing::Harness;
use resources::secrets::{CertSans, EtcdSecrets, KubernetesDynamicCerts};

use super::*;
use crate::{
    KubernetesCertSansController, KubernetesDynamicCertsController,
    root::root_kubernetes,
    testing::{Cluster, address, certificate, configure, first_pod, is_pair, ready},
};

#[tokio::test(start_paused = true)]
async fn components_and_administrator_have_kubeconfigs() {
    let harness = Harness::new();
    harness.run(root_kubernetes());
    harness.run(KubernetesController::default());
    configure(&harness, Cluster::new(&harness).control_plane());
    ready(&harness);
    harness.settle().await;
    let spec = harness.get::<KubernetesSecrets>(KubernetesSecrets::ID).unwrap();
    for (kubeconfig, server, user) in [
        (&spec.scheduler_kubeconfig, "https://127.0.0.1:7445", SCHEDULER),
        (&spec.controller_manager_kubeconfig, "https://127.0.0.1:7445", CONTROLLER_MANAGER),
        (&spec.localhost_admin_kubeconfig, "https://127.0.0.1:7445", "talos:admin"),
        (&spec.admin_kubeconfig, "https://k8s.example.org:6443", "admin@demo"),
    ] {
        assert!(kubeconfig.contains(server), "{user}: {kubeconfig}");
        assert!(kubeconfig.contains(user), "{user}: {kubeconfig}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_api_servers_certificates_follow_the_names() {
    let harness = Harness::new();
    harness.run(root_kubernetes());
    harness.run(KubernetesCertSansController);
    harness.run(KubernetesDynamicCertsController::default());
    configure(&harness, Cluster::new(&harness).control_plane());
    ready(&harness);
    harness.settle().await;
    let spec = harness.get::<KubernetesDynamicCerts>(KubernetesDynamicCerts::ID).unwrap();
    let server = certificate(&spec.api_server);
    assert!(is_pair(&spec.api_server) && is_pair(&spec.api_server_kubelet_client) && is_pair(&spec.front_proxy));
    assert_eq!(server.subject(), &Subject::common_name("kube-apiserver").with_organization("kube-master"));
    let names = harness.get::<CertSans>(CertSans::K8S_ID).unwrap();
    assert_eq!(server.sans().ips, names.ips);
    assert_eq!(certificate(&spec.api_server_kubelet_client).subject().organizations, [MASTERS]);
    assert_eq!(certificate(&spec.front_proxy).issuer(), &Subject::common_name("front-proxy"));
    address(&harness, &["10.5.0.2/24", "10.5.0.8/24"]);
    harness.settle().await;
    let after = harness.get::<KubernetesDynamicCerts>(KubernetesDynamicCerts::ID).unwrap();
    assert!(certificate(&after.api_server).sans().ips.contains(&"10.5.0.8".parse().unwrap()));
    assert_eq!(after.api_server_kubelet_client, spec.api_server_kubelet_client, "no address is in this one");
    assert_eq!(after.front_proxy, spec.front_proxy, "no address is in this one");
}

/// Clients of the API server see each of its certificates.
#[tokio::test(start_paused = true)]
async fn the_first_pod_of_a_node_gives_the_api_server_no_new_certificate() {
    let harness = Harness::new();
    harness.run(root_kubernetes());
    harness.run(crate::root_etcd());
    harness.run(KubernetesCertSansController);
    harness.run(KubernetesDynamicCertsController::default());
    harness.run(crate::EtcdController::default());
    configure(&harness, Cluster::new(&harness).control_plane());
    ready(&harness);
    harness.settle().await;
    let versions = || {
        let kubernetes = harness.get::<KubernetesDynamicCerts>(KubernetesDynamicCerts::ID).unwrap();
        let etcd = harness.get::<EtcdSecrets>(EtcdSecrets::ID).unwrap();
        (kubernetes.metadata.version, etcd.metadata.version)
    };
    let before = versions();
    first_pod(&harness);
    harness.settle().await;
    assert_eq!(versions(), before);
}
