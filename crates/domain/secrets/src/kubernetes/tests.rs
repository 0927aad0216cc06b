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
        (&spec.localhost_admin_kubeconfig, "https://127.0.0.1:7445", LOCALHOST_ADMIN),
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

/// Programs that have such a certificate need not start again because of a name in another.
#[tokio::test(start_paused = true)]
async fn a_new_name_of_the_api_server_renews_no_clients_certificate() {
    let harness = Harness::new();
    harness.run(root_kubernetes());
    harness.run(KubernetesController::default());
    harness.run(KubernetesCertSansController);
    harness.run(KubernetesDynamicCertsController::default());
    let config = Cluster::new(&harness).control_plane();
    configure(&harness, config.clone());
    ready(&harness);
    harness.settle().await;
    let certs = || harness.get::<KubernetesDynamicCerts>(KubernetesDynamicCerts::ID).unwrap();
    let secrets = || harness.get::<KubernetesSecrets>(KubernetesSecrets::ID).unwrap();
    let before = (certs(), secrets());
    configure(&harness, config.replace("[extra.example.org]", "[extra.example.org, k2.example.org]"));
    harness.settle().await;
    let after = (certs(), secrets());
    assert!(certificate(&after.0.api_server).sans().dns.contains(&"k2.example.org".to_owned()));
    assert_eq!(after.0.api_server_kubelet_client, before.0.api_server_kubelet_client);
    assert_eq!(after.0.front_proxy, before.0.front_proxy);
    assert_eq!(*after.1.spec, *before.1.spec);
}

#[tokio::test(start_paused = true)]
async fn the_administrators_lifetime_is_the_configured_one_and_nobody_elses() {
    let harness = Harness::new();
    harness.run(root_kubernetes());
    harness.run(KubernetesController::default());
    let config = Cluster::new(&harness).control_plane();
    configure(&harness, config.replace("cluster:\n", "cluster:\n  adminKubeconfig: { certLifetime: 2h0m0s }\n"));
    ready(&harness);
    harness.settle().await;
    let secrets = || (*harness.get::<KubernetesSecrets>(KubernetesSecrets::ID).unwrap().spec).clone();
    let first = secrets();
    harness.advance(Duration::from_secs(1800)).await;
    assert_eq!(secrets(), first);
    harness.advance(Duration::from_secs(1900)).await;
    let second = secrets();
    assert_ne!(second.admin_kubeconfig, first.admin_kubeconfig, "half of its life is over");
    assert_eq!(KubernetesSecrets { admin_kubeconfig: first.admin_kubeconfig.clone(), ..second }, first);
}

/// Names may be written as absolute ones; in a certificate Go refuses them.
#[tokio::test(start_paused = true)]
async fn no_name_in_a_certificate_ends_with_a_dot() {
    let harness = Harness::new();
    harness.run(root_kubernetes());
    harness.run(crate::root_os());
    harness.run(KubernetesCertSansController);
    harness.run(crate::ApiCertSansController);
    let config = Cluster::new(&harness).control_plane();
    let config = ["extra.example.org", "api.example.org", "k8s.example.org"]
        .iter()
        .fold(config, |config, name| config.replace(name, &format!("{name}.")));
    configure(&harness, config);
    ready(&harness);
    harness.settle().await;
    for (id, wanted) in [(CertSans::API_ID, "api.example.org"), (CertSans::K8S_ID, "extra.example.org")] {
        let names = harness.get::<CertSans>(id).unwrap();
        assert!(names.dns_names.contains(&wanted.to_owned()), "{names:?}");
        assert!(names.dns_names.iter().all(|name| !name.ends_with('.')), "{names:?}");
    }
    let k8s = harness.get::<CertSans>(CertSans::K8S_ID).unwrap();
    assert!(k8s.dns_names.contains(&"k8s.example.org".to_owned()), "the endpoint: {k8s:?}");
}
