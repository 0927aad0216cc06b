//! From the configuration to a kubelet that may start.

use pki::{Algorithm, Authority, CaProfile, Subject, Template};
use resources::k8s::{KubeletLifecycle, KubeletSpec, NodeIp, Nodename};
use resources::network::{HostnameStatus, NodeAddress};
use resources::secrets::KubeletSecrets;
use resources::values::Certificate;
use std::time::SystemTime;

use super::{CONTROL_PLANE, World};
use crate::{
    KubeletConfigController, KubeletServiceController, KubeletSpecController, NodeIpController, NodenameController,
    StaticPodServerController,
};

fn secrets(ca: &str) -> KubeletSecrets {
    KubeletSecrets {
        endpoint: "https://127.0.0.1:7445".into(),
        accepted_cas: vec![Certificate::new(ca)],
        bootstrap_token_id: "abcdef".into(),
        bootstrap_token_secret: "0123456789abcdef".into(),
    }
}

fn node(world: &World) {
    let harness = &world.harness;
    harness.run(NodenameController);
    harness.run(NodeIpController);
    harness.run(KubeletConfigController);
    harness.run(KubeletSpecController);
    harness.run(KubeletServiceController::new(world.root(), world.kubelet.clone()));
    harness.run(StaticPodServerController::default());
    harness.runtime.register_boxed(crate::node_ip::config_controller()).unwrap();
    harness.runtime.start();
    world.configure(CONTROL_PLANE);
    harness.put(HostnameStatus::ID, HostnameStatus { hostname: "CP_1".into(), ..HostnameStatus::default() });
    let addresses = ["10.244.0.1/24", "10.5.0.2/24"].map(|text| text.parse().unwrap()).to_vec();
    harness.put("routed", NodeAddress { addresses });
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
    assert!(world.kubelet.borrow().is_none(), "without secrets there is nothing to join with");

    world.harness.put(KubeletSecrets::ID, secrets("CA\n"));
    world.harness.settle().await;
    let bootstrap = world.read("/etc/kubernetes/bootstrap-kubeconfig").unwrap();
    assert!(bootstrap.contains("token: abcdef.0123456789abcdef"), "{bootstrap}");
    assert_eq!(world.read("/etc/kubernetes/pki/ca.crt").unwrap(), "CA\n");
    assert!(world.read("/etc/kubernetes/kubelet.yaml").unwrap().contains("kind: KubeletConfiguration"));
    assert_eq!(world.kubelet.borrow().as_ref().unwrap().spec, *spec.spec);
    assert!(world.harness.get::<KubeletLifecycle>(KubeletLifecycle::ID).is_some());
}

#[tokio::test(start_paused = true)]
async fn new_authority_is_a_reason_to_start_anew_and_nothing_new_is_not() {
    let world = World::new();
    node(&world);
    world.harness.put(KubeletSecrets::ID, secrets("CA\n"));
    world.harness.settle().await;
    let mut ready = world.kubelet.subscribe();
    world.harness.advance(std::time::Duration::from_secs(200)).await;
    assert!(!ready.has_changed().unwrap());

    world.harness.put(KubeletSecrets::ID, secrets("CA\nCA2\n"));
    world.harness.settle().await;
    assert!(ready.has_changed().unwrap());
    assert_eq!(ready.borrow_and_update().as_ref().unwrap().revision, 2);
}

#[tokio::test(start_paused = true)]
async fn certificate_for_another_name_is_dropped_and_the_own_is_kept() {
    const CLIENT: &str = "/var/lib/kubelet/pki/kubelet-client-current.pem";
    const KUBECONFIG: &str = "/etc/kubernetes/kubeconfig-kubelet";
    let now = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
    let ca = Authority::generate(CaProfile::Kubernetes, now).unwrap();
    let client = |name: &str| {
        let validity = pki::Validity::starting(now, std::time::Duration::from_secs(3600));
        let subject = Subject::common_name(format!("system:node:{name}"));
        let template = Template { subject, sans: pki::Sans::default(), usage: pki::Usage::Client, validity };
        let pair = ca.issue_pair(Algorithm::EcdsaP256, &template).unwrap();
        format!("{}{}", pair.crt, pair.key)
    };
    for (name, kept) in [("cp-1", true), ("other", false)] {
        let world = World::new();
        world.write(CLIENT, &client(name));
        world.write(KUBECONFIG, "users: []\n");
        node(&world);
        world.harness.put(KubeletSecrets::ID, secrets(&ca.certificate().to_pem()));
        world.harness.settle().await;
        assert_eq!(world.read(CLIENT).is_some(), kept, "{name}");
        assert_eq!(world.read(KUBECONFIG).is_some(), kept, "{name}");
    }
}
