use controller::testing::Harness;

use super::*;
use crate::{
    root::{root_kubernetes, root_os},
    testing::{Cluster, address, configure, ready},
};

#[tokio::test(start_paused = true)]
async fn names_follow_the_configuration_and_the_node() {
    let harness = Harness::new();
    harness.run(root_os());
    harness.run(root_kubernetes());
    harness.run(ApiCertSansController);
    harness.run(KubernetesCertSansController);
    harness.run(MaintenanceCertSansController);
    configure(&harness, Cluster::new(&harness).control_plane());
    harness.settle().await;
    // Neither name nor address yet.
    assert_eq!(harness.ids::<CertSans>(), Vec::<String>::new());
    ready(&harness);
    harness.settle().await;
    assert_eq!(harness.ids::<CertSans>(), ["api", "k8s"]);
    let api = harness.get::<CertSans>(CertSans::API_ID).unwrap();
    assert_eq!(api.fqdn, "cp-1.example.org");
    assert_eq!(api.dns_names, ["api.example.org", "cp-1", "cp-1.example.org", "localhost"]);
    let ips = |spec: &CertSans| spec.ips.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(ips(&api), ["10.5.0.2", "127.0.0.1", "192.0.2.7", "::1"]);
    let k8s = harness.get::<CertSans>(CertSans::K8S_ID).unwrap();
    assert_eq!(ips(&k8s), ["10.5.0.2", "10.96.0.1", "127.0.0.1", "::1"]);
    for name in ["kubernetes.default.svc.cluster.local", "k8s.example.org", "extra.example.org", "cp-1"] {
        assert!(k8s.dns_names.iter().any(|n| n == name), "{name}: {:?}", k8s.dns_names);
    }
    address(&harness, &["10.5.0.2/24", "10.5.0.9/24"]);
    harness.settle().await;
    let api = harness.get::<CertSans>(CertSans::API_ID).unwrap();
    assert!(ips(&api).contains(&"10.5.0.9".to_owned()), "{api:?}");

    harness.put("x", MaintenanceServiceRequest::default());
    harness.settle().await;
    assert_eq!(harness.get::<CertSans>(CertSans::MAINTENANCE_ID).unwrap().dns_names, [MAINTENANCE_NAME]);
}
