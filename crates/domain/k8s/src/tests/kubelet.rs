//! From the configuration to a kubelet that may start.

use kube_edge::Signing;
use pki::{Algorithm, Authority, CaProfile, CertificateRequest, PrivateKey, Sans, Subject, Template, Usage, Validity};
use resources::block::UserDiskStatus;
use resources::k8s::{KubeletIdentityStatus, KubeletLifecycle, KubeletSpec, NodeIp, Nodename};
use resources::lifecycle::ServiceSpec;
use resources::network::{HostnameStatus, NodeAddress};
use resources::runtime::MountStatus;
use resources::secrets::{KubeletSecrets, KubernetesRootSecret};
use resources::time::TimeStatus;
use resources::values::{Certificate, CertificateAndKey};
use std::time::{Duration, SystemTime};

use super::{CONTROL_PLANE, World};
use crate::{
    KubeletConfigController, KubeletIdentityController, KubeletServiceController, KubeletSpecController,
    NodeIpController, NodenameController, StaticPodServerController,
};

fn secrets(ca: &str) -> KubeletSecrets {
    KubeletSecrets {
        endpoint: "https://127.0.0.1:7445".into(),
        accepted_cas: vec![Certificate::new(ca)],
        bootstrap_token_id: "abcdef".into(),
        bootstrap_token_secret: "0123456789abcdef".into(),
    }
}

const CLIENT: &str = "/var/lib/kubelet/pki/kubelet-client-current.pem";
const KUBECONFIG: &str = "/etc/kubernetes/kubeconfig-kubelet";

fn authority() -> Authority {
    Authority::generate(CaProfile::Kubernetes, now()).unwrap()
}

/// As the harness has it.
fn now() -> SystemTime {
    stdx::Clock::now(&stdx::clock::ManualClock::default())
}

/// Additional inputs of a control plane node.
fn root_secret(authority: &Authority) -> KubernetesRootSecret {
    let pair = authority.pair();
    KubernetesRootSecret { issuing_ca: Some(CertificateAndKey::new(pair.crt, pair.key)), ..Default::default() }
}

/// Certificate and key for a node of that name, valid for that long.
fn client(authority: &Authority, name: &str, lifetime: Duration) -> String {
    let subject = Subject::common_name(format!("system:node:{name}")).with_organization("system:nodes");
    let validity = Validity::starting(now(), lifetime);
    let template = Template { subject, sans: Sans::default(), usage: Usage::Client, validity };
    let pair = authority.issue_pair(Algorithm::EcdsaP256, &template).unwrap();
    format!("{}{}", pair.crt, pair.key)
}

fn identity(world: &World) -> KubeletIdentityStatus {
    (*world.harness.get::<KubeletIdentityStatus>(KubeletIdentityStatus::ID).unwrap().spec).clone()
}

fn node(world: &World) {
    let harness = &world.harness;
    harness.run(NodenameController);
    harness.run(NodeIpController::default());
    harness.run(KubeletConfigController);
    harness.run(KubeletSpecController);
    harness.run(KubeletIdentityController::new(world.root(), world.edges().connect));
    harness.run(KubeletServiceController::new(world.root()));
    harness.run(StaticPodServerController::default());
    harness.runtime.register_boxed(crate::node_ip::config_controller()).unwrap();
    harness.runtime.start();
    world.configure(CONTROL_PLANE);
    harness.put(HostnameStatus::ID, HostnameStatus { hostname: "CP_1".into(), ..HostnameStatus::default() });
    harness.put(TimeStatus::ID, TimeStatus { synced: true, ..TimeStatus::default() });
    let addresses = ["10.244.0.1/24", "10.5.0.2/24"].map(|text| text.parse().unwrap()).to_vec();
    harness.put("routed", NodeAddress { addresses });
}

fn service(world: &World) -> ServiceSpec {
    (*world.harness.get::<ServiceSpec>("kubelet").unwrap().spec).clone()
}

#[tokio::test(start_paused = true)]
async fn kubelet_may_start_once_its_files_are_there() {
    let world = World::new();
    node(&world);
    world.harness.settle().await;
    assert_eq!(world.harness.get::<Nodename>(Nodename::ID).unwrap().nodename, "cp-1");
    assert_eq!(world.harness.get::<NodeIp>(NodeIp::ID).unwrap().addresses.len(), 1);
    let spec = world.harness.get::<KubeletSpec>(KubeletSpec::ID).unwrap();
    assert_eq!(spec.expected_nodename, "cp-1");
    assert!(spec.args.contains(&"--node-ip=10.5.0.2".to_owned()), "{:?}", spec.args);
    assert_eq!(spec.config["containerRuntimeEndpoint"], "unix:///run/containerd/containerd.sock");
    assert!(spec.config["staticPodURL"].as_str().unwrap().starts_with("http://127.0.0.1:"));
    assert!(service(&world).required);
    assert_eq!(
        service(&world).waits_for,
        "the configuration of the kubelet",
        "without secrets it has nothing to join with"
    );

    let ca = authority();
    let pem = ca.certificate().to_pem();
    world.harness.put(KubernetesRootSecret::ID, root_secret(&ca));
    world.harness.put(KubeletSecrets::ID, secrets(&pem));
    world.harness.settle().await;
    let bootstrap = world.read("/etc/kubernetes/bootstrap-kubeconfig").unwrap();
    assert!(bootstrap.contains("token: abcdef.0123456789abcdef"), "{bootstrap}");
    assert_eq!(world.read("/etc/kubernetes/pki/ca.crt").unwrap(), pem);
    assert!(world.read("/etc/kubernetes/kubelet.yaml").unwrap().contains("kind: KubeletConfiguration"));
    let service = service(&world);
    assert_eq!(service.volume, "/var");
    assert_eq!((service.waits_for.as_str(), &service.image, &service.args), ("", &spec.image, &spec.args));
    assert!(world.harness.get::<KubeletLifecycle>(KubeletLifecycle::ID).is_some());
}

#[tokio::test(start_paused = true)]
async fn new_authority_is_a_reason_to_start_anew_and_nothing_new_is_not() {
    let world = World::new();
    node(&world);
    let (ca, other) = (authority(), authority().certificate().to_pem());
    let pem = ca.certificate().to_pem();
    world.harness.put(KubernetesRootSecret::ID, root_secret(&ca));
    world.harness.put(KubeletSecrets::ID, secrets(&pem));
    world.harness.settle().await;
    let first = service(&world);
    world.harness.advance(Duration::from_secs(200)).await;
    assert_eq!(service(&world), first);

    let certificate = world.read(CLIENT);
    world.harness.put(KubeletSecrets::ID, secrets(&format!("{pem}{other}")));
    world.harness.settle().await;
    assert_ne!(service(&world).revision, first.revision);
    assert_eq!(world.read(CLIENT), certificate, "the certificate is still good");
}

#[tokio::test(start_paused = true)]
async fn kubelet_starts_anew_when_a_disk_that_it_has_a_mount_of_was_mounted_again() {
    let world = World::new();
    node(&world);
    let mount = "extraMounts: [{destination: /data, type: bind, source: /var/mnt/a/data, options: [rbind, rw]}]";
    world.configure(
        &CONTROL_PLANE.replace("    disableManifestsDirectory", &format!("    {mount}\n    disableManifestsDirectory")),
    );
    let ca = authority();
    world.harness.put(KubernetesRootSecret::ID, root_secret(&ca));
    world.harness.put(KubeletSecrets::ID, secrets(&ca.certificate().to_pem()));
    let remounted = async |target: &str, remounts| {
        world.harness.put(target, UserDiskStatus { remounts, ..UserDiskStatus::default() });
        world.harness.settle().await;
        service(&world).revision
    };
    let first = remounted("/var/mnt/a", 0).await;
    assert_eq!(service(&world).mounts.len(), 1);
    assert_eq!(remounted("/var/mnt/ab", 1).await, first, "it has nothing of that disk");
    assert_ne!(remounted("/var/mnt/a", 1).await, first);
}

#[tokio::test(start_paused = true)]
async fn control_plane_issues_the_kubelets_certificate_itself() {
    let world = World::new();
    world.kube.set_reachable(false);
    node(&world);
    let ca = authority();
    world.harness.put(KubernetesRootSecret::ID, root_secret(&ca));
    world.harness.put(KubeletSecrets::ID, secrets(&ca.certificate().to_pem()));
    world.harness.settle().await;
    assert!(identity(&world).ready);
    let pair = world.read(CLIENT).unwrap();
    let certificate = pki::Certificate::from_pem(&pair).unwrap();
    assert_eq!(certificate.subject().common_name.as_deref(), Some("system:node:cp-1"));
    assert_eq!(certificate.subject().organizations, ["system:nodes"]);
    assert!(certificate.is_signed_by(ca.certificate()) && certificate.allows_client() && !certificate.allows_server());
    assert_eq!(PrivateKey::from_pem(&pair).unwrap().spki_der(), certificate.spki_der());
    let link = std::fs::read_link(world.root().at(CLIENT)).unwrap();
    assert_eq!(link, std::path::Path::new("kubelet-client-first.pem"), "the kubelet renews only a link");
    let kubeconfig = world.read(KUBECONFIG).unwrap();
    assert!(kubeconfig.contains("https://127.0.0.1:7445") && kubeconfig.contains(CLIENT), "{kubeconfig}");
    assert!(world.kube.requests().is_empty());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_to_a_volume_that_is_going() {
    let world = World::new();
    node(&world);
    let ca = authority();
    world.harness.put(KubernetesRootSecret::ID, root_secret(&ca));
    world.harness.put(KubeletSecrets::ID, secrets(&ca.certificate().to_pem()));
    world.harness.settle().await;
    assert!(!world.harness.teardown::<MountStatus>(MountStatus::EPHEMERAL), "it is held");
    world.harness.settle().await;
    assert!(world.harness.teardown::<MountStatus>(MountStatus::EPHEMERAL), "it was let go");
    std::fs::remove_file(world.root().at(CLIENT)).unwrap();
    world.harness.advance(Duration::from_secs(200)).await;
    assert!(world.read(CLIENT).is_none());
}

#[tokio::test(start_paused = true)]
async fn only_a_good_certificate_of_this_node_and_cluster_is_kept() {
    let (ca, other) = (authority(), authority());
    let day = Duration::from_secs(24 * 3600);
    for (kept, pair) in [
        (true, client(&ca, "cp-1", day)),
        (false, client(&ca, "other", day)),
        // Both authorities have the same name.
        (false, client(&other, "cp-1", day)),
        (false, client(&ca, "cp-1", Duration::ZERO)),
        (false, "damaged".to_owned()),
    ] {
        let world = World::new();
        world.write(CLIENT, &pair);
        node(&world);
        world.harness.put(KubernetesRootSecret::ID, root_secret(&ca));
        world.harness.put(KubeletSecrets::ID, secrets(&ca.certificate().to_pem()));
        world.harness.settle().await;
        assert_eq!(world.read(CLIENT).unwrap() == pair, kept);
        assert!(identity(&world).ready);
    }
}

#[tokio::test(start_paused = true)]
async fn worker_asks_the_cluster_and_its_kubelet_waits_for_the_answer() {
    let world = World::new();
    world.kube.set_reachable(false);
    node(&world);
    let ca = authority();
    world.harness.put(KubeletSecrets::ID, secrets(&ca.certificate().to_pem()));
    world.harness.advance(Duration::from_secs(20)).await;
    assert!(identity(&world).waits_for.contains("no answer from the Kubernetes API"), "{:?}", identity(&world));
    assert_ne!(service(&world).waits_for, "");

    // The server is up, but its token does not exist yet.
    world.kube.set_reachable(true);
    world.kube.refuse("creating", 401);
    world.harness.advance(Duration::from_secs(20)).await;
    assert!(identity(&world).waits_for.contains("401"), "{:?}", identity(&world));

    world.kube.refuse("creating", 0);
    world.harness.advance(Duration::from_secs(20)).await;
    assert_eq!(identity(&world).waits_for, "the cluster to sign the kubelet's certificate");
    let requests = world.kube.requests();
    assert_eq!(requests.len(), 1, "one request is enough");
    assert_eq!(requests[0].signer, "kubernetes.io/kube-apiserver-client-kubelet");
    assert_eq!(requests[0].usages, ["digital signature", "client auth"]);

    let request = CertificateRequest::from_pem(&requests[0].request).unwrap();
    let template = Template {
        subject: request.subject().clone(),
        sans: Sans::default(),
        usage: Usage::Client,
        validity: Validity::starting(now(), Duration::from_secs(3600)),
    };
    world.kube.decide(Signing::Issued(ca.sign_request(&request, &template).unwrap().to_pem()));
    world.harness.advance(Duration::from_secs(1)).await;
    assert!(identity(&world).ready);
    assert_eq!(service(&world).waits_for, "");
    assert!(world.connect.kubeconfigs()[0].contains("token: abcdef.0123456789abcdef"));
    let pair = world.read(CLIENT).unwrap();
    assert_eq!(PrivateKey::from_pem(&pair).unwrap().spki_der(), request.spki_der());
}

#[tokio::test(start_paused = true)]
async fn refused_request_is_said_and_made_anew() {
    let world = World::new();
    node(&world);
    world.harness.put(KubeletSecrets::ID, secrets(&authority().certificate().to_pem()));
    world.harness.advance(Duration::from_secs(1)).await;
    world.kube.decide(Signing::Refused { reason: "Denied: no".to_owned() });
    world.harness.advance(Duration::from_millis(210)).await;
    assert!(identity(&world).waits_for.contains("Denied: no"), "{:?}", identity(&world));
    world.harness.advance(Duration::from_secs(10)).await;
    assert_eq!(world.kube.requests().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn kubelet_without_an_answer_starts_after_five_minutes_and_asks_itself() {
    let world = World::new();
    world.kube.set_reachable(false);
    node(&world);
    world.harness.put(KubeletSecrets::ID, secrets(&authority().certificate().to_pem()));
    world.harness.advance(Duration::from_secs(290)).await;
    assert!(!identity(&world).ready);
    world.harness.advance(Duration::from_secs(20)).await;
    assert!(identity(&world).ready);
    assert!(world.read(KUBECONFIG).is_none());
    world.kube.set_reachable(true);
    world.harness.advance(Duration::from_secs(120)).await;
    assert!(world.kube.requests().is_empty(), "two do not ask for the same");
}

/// A node that has joined and runs.
async fn joined(world: &World, ca: &Authority) {
    node(world);
    world.harness.put(KubernetesRootSecret::ID, root_secret(ca));
    world.harness.put(KubeletSecrets::ID, secrets(&ca.certificate().to_pem()));
    world.harness.settle().await;
    assert_eq!(service(world).waits_for, "");
}

#[tokio::test(start_paused = true)]
async fn kubeconfig_of_the_kubelet_follows_the_endpoint_of_a_worker_and_of_a_control_plane() {
    for is_worker in [false, true] {
        let world = World::new();
        let ca = authority();
        if is_worker {
            world.write(CLIENT, &client(&ca, "cp-1", Duration::from_secs(24 * 3600)));
            node(&world);
            world.harness.put(KubeletSecrets::ID, secrets(&ca.certificate().to_pem()));
            world.harness.settle().await;
        } else {
            joined(&world, &ca).await;
        }
        let before = (service(&world).revision, world.read(CLIENT));
        // KubePrism has another port; KubePrism is off.
        for server in ["https://127.0.0.1:7745", "https://k8s.example.org:6443"] {
            let ca = ca.certificate().to_pem();
            world.harness.put(KubeletSecrets::ID, KubeletSecrets { endpoint: server.into(), ..secrets(&ca) });
            world.harness.settle().await;
            let kubeconfig = world.read(KUBECONFIG).unwrap();
            assert!(kubeconfig.contains(&format!("server: {server}")), "{kubeconfig}");
        }
        assert_eq!(world.read(CLIENT), before.1);
        assert_ne!(service(&world).revision, before.0, "the kubelet reads it when it starts");
        assert_eq!(service(&world).waits_for, "");
    }
}

const SERVING: &str = "/var/lib/kubelet/pki/kubelet.crt";

/// As the kubelet makes it for itself.
fn serving(name: &str, lifetime: Duration) -> String {
    let validity = Validity::starting(now(), lifetime);
    let subject = Subject::common_name(format!("{name}@1700000000"));
    let template = Template { subject, sans: Sans::parse([name]), usage: Usage::Server, validity };
    authority().issue_pair(Algorithm::EcdsaP256, &template).unwrap().crt
}

#[tokio::test(start_paused = true)]
async fn renamed_node_gets_new_certificates_and_no_start_under_the_former_name() {
    let world = World::new();
    let ca = authority();
    let year = Duration::from_secs(365 * 24 * 3600);
    world.write(SERVING, &serving("cp-1", year));
    joined(&world, &ca).await;
    assert!(world.read(SERVING).is_some(), "it is good");
    let before = service(&world);

    let hostname = HostnameStatus { hostname: "cp-2".into(), ..HostnameStatus::default() };
    world.harness.put(HostnameStatus::ID, hostname);
    world.harness.settle().await;
    assert_eq!(world.read(SERVING), None, "the kubelet makes one for the new name");
    assert!(world.read(CLIENT).is_some_and(|pair| pair != client(&ca, "cp-1", year)));
    let after = service(&world);
    assert_ne!(after.revision, before.revision);
    assert!(after.args.contains(&"--hostname-override=cp-2".to_owned()), "{:?}", after.args);
    assert_eq!((identity(&world).nodename.as_str(), after.waits_for.as_str()), ("cp-2", ""));

    world.write(SERVING, &serving("cp-2", year));
    world.harness.advance(Duration::from_secs(200)).await;
    assert!(world.read(SERVING).is_some());
    assert_eq!(service(&world), after);
}

#[tokio::test(start_paused = true)]
async fn kubelet_does_not_start_before_its_certificate_is_for_its_name() {
    let world = World::new();
    let ca = authority();
    joined(&world, &ca).await;
    // A worker from now on: another name has to be asked for.
    world.harness.destroy::<KubernetesRootSecret>(KubernetesRootSecret::ID);
    world.kube.set_reachable(false);
    let before = service(&world);
    world.harness.put(HostnameStatus::ID, HostnameStatus { hostname: "b".into(), ..HostnameStatus::default() });
    world.harness.settle().await;
    let waits_for = service(&world).waits_for;
    assert!(waits_for.starts_with("the certificate of the kubelet"), "{waits_for}");
    assert_ne!(service(&world).args, before.args);
}

#[tokio::test(start_paused = true)]
async fn serving_certificate_is_replaced_before_it_ends_and_once() {
    let world = World::new();
    world.write(SERVING, &serving("cp-1", Duration::from_secs(20 * 24 * 3600)));
    joined(&world, &authority()).await;
    assert_eq!(world.read(SERVING), None);
    let revision = service(&world).revision;
    // A kubelet that makes an unfit one is not restarted for ever.
    world.write(SERVING, "damaged");
    world.harness.advance(Duration::from_secs(200)).await;
    assert_eq!((world.read(SERVING).as_deref(), service(&world).revision), (Some("damaged"), revision));
}

#[tokio::test(start_paused = true)]
async fn kubelet_without_an_address_in_the_valid_subnets_says_so() {
    let world = World::new();
    node(&world);
    world.configure(
        &CONTROL_PLANE.replace("  kubelet:\n", "  kubelet:\n    nodeIP: { validSubnets: [192.168.77.0/24] }\n"),
    );
    let ca = authority();
    world.harness.put(KubeletSecrets::ID, secrets(&ca.certificate().to_pem()));
    world.harness.settle().await;
    assert_eq!(service(&world).waits_for, "an address of the node in 192.168.77.0/24");
    assert!(world.harness.get::<KubeletSpec>(KubeletSpec::ID).is_none());

    world.harness.put("routed", NodeAddress { addresses: vec!["192.168.77.3/24".parse().unwrap()] });
    world.harness.settle().await;
    let spec = world.harness.get::<KubeletSpec>(KubeletSpec::ID).unwrap();
    assert!(spec.args.contains(&"--node-ip=192.168.77.3".to_owned()));
}
