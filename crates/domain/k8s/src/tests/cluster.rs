//! Objects created in the cluster, and its responses.

use kube_edge::{Node, ObjectRef};
use resources::MachineType;
use resources::k8s::{
    Endpoint, ExtraManifest, ExtraManifestsConfig, Manifest, ManifestStatus, NodeLabelSpec, NodeStatus, Nodename,
    StaticPodStatus,
};
use resources::secrets::{KubernetesDynamicCerts, KubernetesRootSecret, KubernetesSecrets};
use resources::values::CertificateAndKey;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

use super::{CONTROL_PLANE, World};
use crate::{
    EndpointController, MANIFEST_APPLY_LOCK, ManifestApplyController, ManifestController, NodeApplyController,
    NodeStatusController,
};

fn secrets(world: &World) {
    let root = KubernetesRootSecret {
        bootstrap_token_id: "abcdef".into(),
        bootstrap_token_secret: "0123456789abcdef".into(),
        ..KubernetesRootSecret::default()
    };
    world.harness.put(KubernetesRootSecret::ID, root);
    let secrets =
        KubernetesSecrets { localhost_admin_kubeconfig: "local admin".into(), ..KubernetesSecrets::default() };
    world.harness.put(KubernetesSecrets::ID, secrets);
}

fn nodename(world: &World) {
    let nodename = Nodename { nodename: "cp-1".into(), ..Nodename::default() };
    world.harness.put(Nodename::ID, nodename);
}

fn manifests(world: &World) {
    for controller in crate::control_plane_config::controllers() {
        world.harness.runtime.register_boxed(controller).unwrap();
    }
    world.harness.run(ManifestController);
    let edges = world.edges();
    world.harness.run(ManifestApplyController::new(edges.connect, edges.lock));
}

#[tokio::test(start_paused = true)]
async fn manifests_wait_for_the_server_and_are_created_once_under_the_lock() {
    let world = World::new();
    world.kube.set_reachable(false);
    manifests(&world);
    world.configure(CONTROL_PLANE);
    secrets(&world);
    world.harness.advance(Duration::from_secs(5)).await;
    let ids = world.harness.ids::<Manifest>();
    assert!(ids.contains(&"10-kube-proxy".to_owned()), "{ids:?}");
    assert!(!ids.iter().any(|id| id.contains("flannel") || id.contains("core-dns")), "{ids:?}");
    assert!(world.harness.get::<ManifestStatus>(ManifestStatus::ID).is_none());
    assert!(world.lock.0.lock().is_empty());

    world.kube.set_reachable(true);
    world.harness.advance(Duration::from_secs(5)).await;
    assert_eq!(world.harness.get::<ManifestStatus>(ManifestStatus::ID).unwrap().manifests_applied, ids);
    assert_eq!(*world.lock.0.lock(), [MANIFEST_APPLY_LOCK]);
    assert!(world.connect.kubeconfigs().iter().all(|kubeconfig| kubeconfig == "local admin"));
    let proxy = ObjectRef {
        api_version: "apps/v1".into(),
        kind: "DaemonSet".into(),
        namespace: "kube-system".into(),
        name: "kube-proxy".into(),
    };
    let object = world.kube.objects()[&proxy].clone();
    assert_eq!(object["spec"]["template"]["spec"]["containers"][0]["image"], "registry.k8s.io/kube-proxy:v1.30.14");

    world.harness.advance(Duration::from_secs(60)).await;
    assert_eq!(world.lock.0.lock().len(), 1, "applied manifests are not applied again");
}

#[tokio::test(start_paused = true)]
async fn worker_has_nothing_to_apply() {
    let world = World::new();
    manifests(&world);
    world.configure("version: v1alpha1\nmachine:\n  type: worker\n");
    secrets(&world);
    world.harness.advance(Duration::from_secs(5)).await;
    assert!(world.harness.ids::<Manifest>().is_empty());
    assert!(world.kube.objects().is_empty());
}

#[tokio::test(start_paused = true)]
async fn node_object_is_brought_in_line_and_its_status_follows() {
    let world = World::new();
    let edges = world.edges();
    world.harness.run(NodeApplyController::new(world.root(), Arc::clone(&edges.connect)));
    world.harness.run(NodeStatusController::new(world.root(), edges.connect));
    world.harness.put(MachineType::ID, MachineType::ControlPlane);
    nodename(&world);
    secrets(&world);
    let label = NodeLabelSpec { key: "a".into(), value: "1".into() };
    world.harness.put("a", label);
    world.harness.advance(Duration::from_secs(3)).await;
    assert!(world.harness.ids::<NodeStatus>().is_empty());

    world.join();
    world.kube.put_node(Node { name: "cp-1".into(), ..Node::default() });
    world.kube.put_node(Node { name: "other".into(), ..Node::default() });
    world.harness.advance(Duration::from_secs(3)).await;
    assert_eq!(world.kube.stored_node("cp-1").unwrap().labels["a"], "1");
    let status = world.harness.get::<NodeStatus>("cp-1").unwrap();
    assert!(!status.node_ready);
    assert_eq!(status.labels["a"], "1");
    assert_eq!(world.harness.ids::<NodeStatus>(), ["cp-1"]);

    let node = world.kube.stored_node("cp-1").unwrap();
    world.kube.put_node(Node { ready: true, labels: [].into(), annotations: [].into(), ..node });
    world.harness.settle().await;
    assert!(world.harness.get::<NodeStatus>("cp-1").unwrap().node_ready);
    world.harness.advance(Duration::from_secs(3)).await;
    assert_eq!(world.kube.stored_node("cp-1").unwrap().labels["a"], "1", "a removed label is restored");
}

#[tokio::test(start_paused = true)]
async fn known_addresses_of_servers_stay_while_the_server_is_away() {
    let world = World::new();
    let edges = world.edges();
    world.harness.run(EndpointController::new(world.root(), edges.connect));
    world.harness.put(MachineType::ID, MachineType::Worker);
    world.kube.put_endpoints("default", "kubernetes", vec!["10.5.0.2".parse().unwrap()]);
    world.harness.advance(Duration::from_secs(2)).await;
    assert!(world.harness.ids::<Endpoint>().is_empty(), "the kubelet has not joined");

    world.join();
    world.harness.advance(Duration::from_secs(2)).await;
    world.kube.set_reachable(false);
    world.harness.advance(Duration::from_secs(120)).await;
    let endpoint = world.harness.get::<Endpoint>(Endpoint::KUBE_APISERVER_ID).unwrap();
    assert_eq!(endpoint.addresses, ["10.5.0.2".parse::<std::net::IpAddr>().unwrap()]);
}

#[tokio::test(start_paused = true)]
async fn only_static_pods_have_a_status_here() {
    let world = World::new();
    let edges = world.edges();
    world.harness.run(crate::KubeletStaticPodController::new(world.root(), edges.connect));
    nodename(&world);
    world.write("/var/lib/kubelet/pki/kubelet.crt", "SERVING\n");
    let certs = KubernetesDynamicCerts {
        api_server_kubelet_client: Some(CertificateAndKey::new("CRT", "KEY")),
        ..KubernetesDynamicCerts::default()
    };
    world.harness.put(KubernetesDynamicCerts::ID, certs);
    let pod = |name: &str, source: &str, ready: &str| {
        json!({
            "metadata": {
                "name": name, "namespace": "kube-system", "annotations": { "kubernetes.io/config.source": source },
            },
            "status": { "conditions": [{ "type": "Ready", "status": ready }] },
        })
    };
    world.kube.set_kubelet_pods(vec![pod("kube-apiserver-cp-1", "http", "False"), pod("web", "api", "True")]);
    world.harness.settle().await;
    assert_eq!(world.harness.ids::<StaticPodStatus>(), ["kube-system/kube-apiserver-cp-1"]);

    world.kube.set_kubelet_pods(vec![pod("kube-apiserver-cp-1", "http", "True")]);
    world.harness.advance(Duration::from_secs(3)).await;
    let status = world.harness.get::<StaticPodStatus>("kube-system/kube-apiserver-cp-1").unwrap();
    assert_eq!(status.pod_status["conditions"][0]["status"], "True");
    assert!(world.connect.kubeconfigs()[0].contains("\"tls-server-name\":\"cp-1\""));
}

fn inline(name: &str, text: &str) -> ExtraManifest {
    ExtraManifest {
        name: name.to_owned(),
        priority: "99".to_owned(),
        inline_manifest: text.to_owned(),
        ..ExtraManifest::default()
    }
}

fn config_map(name: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\n")
}

#[tokio::test(start_paused = true)]
async fn manifest_that_cannot_be_used_does_not_keep_the_others_back() {
    let world = World::new();
    let edges = world.edges();
    world.harness.run(crate::ExtraManifestController::new(edges.fetch));
    world.harness.run(ManifestApplyController::new(edges.connect, edges.lock));
    secrets(&world);
    let extra_manifests = vec![
        inline("1-no-yaml", "a: b: c: ["),
        ExtraManifest { url: "https://nowhere".to_owned(), ..inline("2-not-there", "") },
        inline("3-first", &config_map("first")),
        inline("4-no-kind", "apiVersion: v1\nmetadata: {name: nothing}\n"),
        inline("5-unknown-kind", "apiVersion: nobody.dev/v1\nkind: Thing\nmetadata: {name: thing}\n"),
        inline("6-second", &config_map("second")),
    ];
    world.harness.put(ExtraManifestsConfig::ID, ExtraManifestsConfig { extra_manifests });
    world.harness.advance(Duration::from_secs(5)).await;
    let created: Vec<String> = world.kube.objects().into_keys().map(|object| object.name).collect();
    assert_eq!(created, ["first", "second"]);
    let status = world.harness.get::<ManifestStatus>(ManifestStatus::ID).unwrap();
    assert_eq!(status.manifests_applied, ["99-3-first", "99-6-second"]);

    // The kind is defined later.
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": "things.nobody.dev" },
        "spec": { "group": "nobody.dev", "names": { "kind": "Thing" }, "scope": "Namespaced" },
    });
    kube_edge::KubeApi::create_missing(&world.kube, &[definition]).await;
    world.harness.advance(Duration::from_secs(130)).await;
    let status = world.harness.get::<ManifestStatus>(ManifestStatus::ID).unwrap();
    assert_eq!(status.manifests_applied, ["99-3-first", "99-5-unknown-kind", "99-6-second"]);
}
