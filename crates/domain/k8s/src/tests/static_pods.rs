//! The control plane's pods: their files, when they appear, how they are served.

use pki::{Algorithm, Authority, CaProfile, PrivateKey};
use resources::k8s::{ConfigStatus, SecretStatus, StaticPod, StaticPodServerStatus};
use resources::secrets::{
    EtcdRootSecret, EtcdSecrets, KubernetesDynamicCerts, KubernetesRootSecret, KubernetesSecrets,
};
use resources::v1alpha1::Service;
use resources::values::{Certificate, CertificateAndKey, Key};
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{CONTROL_PLANE, World};
use crate::{
    ControlPlaneStaticPodController, RenderConfigsStaticPodController, RenderSecretsStaticPodController,
    StaticPodServerController,
};

fn start(world: &World) {
    for controller in crate::control_plane_config::controllers() {
        world.harness.runtime.register_boxed(controller).unwrap();
    }
    world.harness.run(RenderConfigsStaticPodController::new(world.root()));
    world.harness.run(RenderSecretsStaticPodController::new(world.root()));
    world.harness.run(ControlPlaneStaticPodController::new(world.edges().connect));
}

fn secrets(world: &World) {
    let pair = |name: &str| Some(CertificateAndKey::new(format!("{name} crt"), format!("{name} key")));
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let ca = Authority::generate(CaProfile::Kubernetes, now).unwrap().pair();
    let root = KubernetesRootSecret {
        issuing_ca: Some(CertificateAndKey::new(ca.crt.clone(), ca.key.clone())),
        accepted_cas: vec![Certificate::new(ca.crt)],
        service_account: Some(Key::new(PrivateKey::generate(Algorithm::EcdsaP256).unwrap().to_pem())),
        aggregator_ca: pair("aggregator"),
        secretbox_encryption_secret: "c2VjcmV0".into(),
        ..KubernetesRootSecret::default()
    };
    world.harness.put(KubernetesRootSecret::ID, root);
    kubeconfigs(world, "https://127.0.0.1:7445", "first");
    certs(world, "server");
    etcd_client(world, "etcd client");
    world.harness.put(EtcdRootSecret::ID, EtcdRootSecret { etcd_ca: pair("etcd ca") });
}

fn etcd_client(world: &World, name: &str) {
    let pair = Some(CertificateAndKey::new(format!("{name} crt"), format!("{name} key")));
    world.harness.put(EtcdSecrets::ID, EtcdSecrets { etcd_api_server: pair, ..EtcdSecrets::default() });
}

fn kubeconfigs(world: &World, server: &str, certificate: &str) {
    let of = |user: &str| {
        let (crt, key) = (format!("{user} {certificate} crt\n"), format!("{user} {certificate} key\n"));
        kubernetes::kubeconfig::component("c", user, server, "ca", &crt, &key).unwrap()
    };
    let secrets = KubernetesSecrets {
        scheduler_kubeconfig: of("scheduler"),
        controller_manager_kubeconfig: of("manager"),
        ..KubernetesSecrets::default()
    };
    world.harness.put(KubernetesSecrets::ID, secrets);
}

fn certs(world: &World, name: &str) {
    let pair = |of: &str| Some(CertificateAndKey::new(format!("{name} {of} crt"), format!("{name} {of} key")));
    let certs = KubernetesDynamicCerts {
        api_server: pair("of the server"),
        api_server_kubelet_client: pair("for kubelets"),
        front_proxy: pair("of the front proxy"),
    };
    world.harness.put(KubernetesDynamicCerts::ID, certs);
}

fn etcd(world: &World, healthy: bool) {
    world.harness.put("etcd", Service { running: true, healthy, unknown: false });
}

fn annotation(world: &World, name: &str) -> String {
    let pod = world.harness.get::<StaticPod>("kube-apiserver").unwrap();
    pod.pod["metadata"]["annotations"][name].as_str().unwrap().to_owned()
}

/// A control plane with a healthy etcd, whose API server does not answer yet.
fn without_api_server() -> World {
    let world = World::new();
    world.kube.set_reachable(false);
    start(&world);
    world.configure(CONTROL_PLANE);
    secrets(&world);
    etcd(&world, true);
    world
}

#[tokio::test(start_paused = true)]
async fn pods_appear_with_healthy_etcd_and_outlive_its_restart() {
    let world = World::new();
    start(&world);
    world.configure(CONTROL_PLANE);
    secrets(&world);
    etcd(&world, false);
    world.harness.settle().await;
    assert!(world.harness.get::<SecretStatus>(SecretStatus::ID).unwrap().ready);
    assert!(world.harness.get::<ConfigStatus>(ConfigStatus::ID).unwrap().ready);
    assert!(world.harness.ids::<StaticPod>().is_empty());

    etcd(&world, true);
    world.harness.settle().await;
    let all = ["kube-apiserver", "kube-controller-manager", "kube-scheduler"];
    assert_eq!(world.harness.ids::<StaticPod>(), all);

    etcd(&world, false);
    world.harness.settle().await;
    assert_eq!(world.harness.ids::<StaticPod>(), all);

    let without =
        CONTROL_PLANE.replace("machine:\n", "machine:\n  controlPlane:\n    scheduler:\n      disabled: true\n");
    world.configure(&without);
    world.harness.settle().await;
    assert_eq!(world.harness.ids::<StaticPod>(), all[..2]);
}

#[tokio::test(start_paused = true)]
async fn each_component_reads_only_its_own_files() {
    let world = World::new();
    start(&world);
    world.configure(CONTROL_PLANE);
    secrets(&world);
    etcd(&world, true);
    world.harness.settle().await;
    let secrets = "/system/secrets/kubernetes";
    for (path, uid) in [
        ("kube-apiserver/apiserver.key", 65534),
        ("kube-apiserver/service-account.pub", 65534),
        ("kube-controller-manager/ca.key", 65535),
        ("kube-scheduler/kubeconfig", 65536),
    ] {
        let metadata = std::fs::metadata(world.root().at(secrets).join(path)).unwrap();
        assert_eq!((metadata.uid(), metadata.mode() & 0o777), (uid, 0o400), "{path}");
    }
    let public = world.read("/system/secrets/kubernetes/kube-apiserver/service-account.pub").unwrap();
    assert!(public.starts_with("-----BEGIN PUBLIC KEY-----"));
    let admission = world.read("/system/config/kubernetes/kube-apiserver/admission-control-config.yaml").unwrap();
    assert!(admission.contains("kind: AdmissionConfiguration"));
}

/// Every certificate at once, as after half of their life.
#[tokio::test(start_paused = true)]
async fn renewed_certificates_are_written_and_start_no_pod_again() {
    let world = World::new();
    start(&world);
    world.configure(CONTROL_PLANE);
    secrets(&world);
    etcd(&world, true);
    world.harness.settle().await;
    let pods = || world.harness.list::<StaticPod>().iter().map(|pod| pod.metadata.version).collect::<Vec<_>>();
    let before = pods();
    certs(&world, "renewed");
    etcd_client(&world, "renewed");
    kubeconfigs(&world, "https://127.0.0.1:7445", "renewed");
    world.harness.settle().await;
    let read = |path: &str| world.read(&format!("/system/secrets/kubernetes/{path}")).unwrap();
    assert_eq!(read("kube-apiserver/apiserver.crt"), "renewed of the server crt");
    assert_eq!(read("kube-apiserver/apiserver-kubelet-client.key"), "renewed for kubelets key");
    assert_eq!(read("kube-apiserver/front-proxy-client.crt"), "renewed of the front proxy crt");
    assert_eq!(read("kube-apiserver/etcd-client.crt"), "renewed crt");
    assert_eq!(read("kube-scheduler/client.pem"), "scheduler renewed crt\nscheduler renewed key\n");
    assert_eq!(read("kube-controller-manager/client.pem"), "manager renewed crt\nmanager renewed key\n");
    assert!(read("kube-scheduler/kubeconfig").contains("/system/secrets/kubernetes/kube-scheduler/client.pem"));
    assert_eq!(pods(), before);

    // Another server is read once, at the start.
    let version = annotation(&world, "talos.dev/secrets-version");
    kubeconfigs(&world, "https://127.0.0.1:7446", "renewed");
    world.harness.settle().await;
    assert_ne!(annotation(&world, "talos.dev/secrets-version"), version);
}

#[tokio::test]
async fn kubelet_gets_static_pods_over_http() {
    let world = World::new();
    world.harness.run(StaticPodServerController::default());
    world.harness.runtime.register_boxed(crate::static_pod_config::controller()).unwrap();
    world.harness.runtime.start();
    world.configure("version: v1alpha1\nmachine:\n  type: worker\n  pods:\n    - metadata:\n        name: web\n");
    world.harness.settle().await;
    assert_eq!(world.harness.ids::<StaticPod>(), ["default-web"]);
    let url = world.harness.get::<StaticPodServerStatus>(StaticPodServerStatus::ID).unwrap().url.clone();
    let address = url.strip_prefix("http://").unwrap();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let list: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(list["kind"], "PodList");
    assert_eq!(list["items"][0]["metadata"]["name"], "web");
}

#[tokio::test(start_paused = true)]
async fn controller_manager_and_scheduler_wait_for_the_api_server_and_outlive_it() {
    let world = without_api_server();
    world.harness.advance(Duration::from_secs(5)).await;
    assert_eq!(world.harness.ids::<StaticPod>(), ["kube-apiserver"]);
    // It responds, but its roles do not exist yet.
    world.kube.set_starting(true);
    world.kube.set_reachable(true);
    world.harness.advance(Duration::from_secs(5)).await;
    assert_eq!(world.harness.ids::<StaticPod>(), ["kube-apiserver"]);

    world.kube.set_starting(false);
    world.harness.advance(Duration::from_secs(1)).await;
    let all = ["kube-apiserver", "kube-controller-manager", "kube-scheduler"];
    assert_eq!(world.harness.ids::<StaticPod>(), all);
    world.kube.set_reachable(false);
    certs(&world, "another");
    world.harness.advance(Duration::from_secs(60)).await;
    assert_eq!(world.harness.ids::<StaticPod>(), all);
}

#[tokio::test(start_paused = true)]
async fn controller_manager_and_scheduler_do_not_wait_for_ever() {
    let world = without_api_server();
    world.harness.advance(Duration::from_secs(170)).await;
    assert_eq!(world.harness.ids::<StaticPod>(), ["kube-apiserver"]);
    world.harness.advance(Duration::from_secs(20)).await;
    assert_eq!(world.harness.ids::<StaticPod>().len(), 3);
}
