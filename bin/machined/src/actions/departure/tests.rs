use std::sync::Arc;

use containers::pods::{PodNetwork, Sandbox};
use containers::testing::{FakePods, PodCall};
use etcd_edge::LeaveError;
use etcd_edge::fake::FakeEtcd;
use kube_edge::{BoundPod, FakeConnect, FakeKube, KubeError, Node, Upkeep};
use platform::Container;
use resources::secrets::{EtcdRootSecret, EtcdSecrets};
use resources::values::CertificateAndKey;
use sequencer::ActorId;
use stdx::tasks::CancellationToken;
use supervisor::LogStore;

use super::*;
use crate::components::Components;

const NODE: &str = "n";

fn components() -> Components {
    Components::new(Arc::new(Container::new(None, None)), LogStore::default())
}

fn context() -> TaskContext {
    TaskContext { cancel: CancellationToken::new(), actor: ActorId::machine() }
}

/// A machine of this kind that is a node, and its cluster with one pod on it.
fn node(kind: MachineType) -> (Store, FakeKube, FakeConnect) {
    let store = components().store;
    store.put(MachineType::ID, kind, "").unwrap();
    store.put(Nodename::ID, Nodename { nodename: NODE.into(), ..Nodename::default() }, "").unwrap();
    let secrets =
        KubernetesSecrets { localhost_admin_kubeconfig: "administrator".into(), ..KubernetesSecrets::default() };
    store.put(KubernetesSecrets::ID, secrets, "").unwrap();
    let kube = FakeKube::new("v1.30.0");
    let pod = BoundPod { namespace: "default".into(), name: "web".into(), uid: "1".into(), upkeep: Upkeep::Evictable };
    kube.bind_pod(NODE, pod);
    let connect = FakeConnect::new(kube.clone());
    (store, kube, connect)
}

fn put_node(kube: &FakeKube, unschedulable: bool) {
    kube.put_node(Node { name: NODE.into(), unschedulable, ..Node::default() });
}

/// The kubeconfig of a kubelet.
fn kubelet_file() -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "kubelet").unwrap();
    file
}

#[tokio::test(start_paused = true)]
async fn each_kind_of_node_drains_itself_with_its_own_credentials() {
    let file = kubelet_file();
    for (kind, credentials) in [(MachineType::ControlPlane, "administrator"), (MachineType::Worker, "kubelet")] {
        let (store, kube, connect) = node(kind);
        put_node(&kube, true);
        drain(&store, &connect, file.path(), &context()).await.unwrap();
        assert_eq!((kube.evictions(), connect.kubeconfigs()), (vec!["default/web".into()], vec![credentials.into()]));
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_evicted_before_the_cordon() {
    let (store, kube, connect) = node(MachineType::ControlPlane);
    put_node(&kube, false);
    let error = drain(&store, &connect, Path::new("/nonexistent"), &context()).await.unwrap_err();
    assert_eq!(error.to_string(), "the node was not cordoned within 30 s: it would get its pods back");
    let cordon = async {
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(kube.evictions(), [""; 0]);
        put_node(&kube, true);
    };
    let context = context();
    let (drained, ()) = tokio::join!(drain(&store, &connect, Path::new("/nonexistent"), &context), cordon);
    drained.unwrap();
    assert_eq!(kube.bound_pods(NODE), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_is_no_node_is_not_drained() {
    let absent = Path::new("/nonexistent");
    // It is not configured.
    let (_, kube, connect) = node(MachineType::Worker);
    drain(&components().store, &connect, absent, &context()).await.unwrap();
    // Its kubelet has not joined.
    let (store, ..) = node(MachineType::Worker);
    drain(&store, &connect, absent, &context()).await.unwrap();
    assert_eq!(connect.kubeconfigs(), [""; 0]);
    // The cluster does not know it.
    let (store, ..) = node(MachineType::ControlPlane);
    drain(&store, &connect, absent, &context()).await.unwrap();
    assert_eq!((connect.kubeconfigs().len(), kube.evictions()), (1, vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_is_canceled_names_the_pods_that_are_left() {
    let (store, kube, connect) = node(MachineType::ControlPlane);
    put_node(&kube, true);
    kube.forbid_eviction("web", true);
    let context = context();
    let cancel = async {
        tokio::time::sleep(Duration::from_secs(5 * 60)).await;
        context.cancel.cancel();
    };
    let (drained, ()) = tokio::join!(drain(&store, &connect, Path::new("/nonexistent"), &context), cancel);
    let expected = "pods are still on this node: default/web (its disruption budget allows none)";
    assert_eq!(drained.unwrap_err().to_string(), expected);
    kube.refuse("getting", 401);
    let error = drain(&store, &connect, Path::new("/nonexistent"), &self::context()).await.unwrap_err();
    assert_eq!(error.downcast_ref::<KubeError>().and_then(KubeError::code), Some(401));
}

#[tokio::test(start_paused = true)]
async fn without_containerd_there_are_no_pods() {
    let sandbox = Sandbox { id: "1".into(), namespace: "a".into(), name: "b".into(), network: PodNetwork::Host };
    let pods = FakePods::new([sandbox]);
    clean_up_pods(&components().supervisor, &pods, Cleanup::Remove).await.unwrap();
    assert_eq!(pods.calls(), Vec::<PodCall>::new());
}

/// A control plane whose etcd has these members, the first of which is its own.
fn control_plane(members: &[&str]) -> (Components, NodeEtcd, FakeEtcd, tempfile::TempDir) {
    let components = components();
    let store = &components.store;
    let volume = tempfile::tempdir().unwrap();
    let status = MountStatus { target: volume.path().display().to_string(), ..MountStatus::default() };
    store.put(MountStatus::EPHEMERAL, status, "").unwrap();
    let pair = Some(CertificateAndKey::new("crt", "key"));
    store.put(EtcdRootSecret::ID, EtcdRootSecret { etcd_ca: pair.clone() }, "").unwrap();
    store.put(EtcdSecrets::ID, EtcdSecrets { etcd_admin: pair, ..EtcdSecrets::default() }, "").unwrap();
    let etcd = FakeEtcd::default();
    for name in members {
        etcd.add_member(name, &format!("{name}.example"));
    }
    let node = NodeEtcd::new(store.clone(), Arc::new(etcd.clone()));
    (components, node, etcd, volume)
}

/// The log of a member on a volume.
fn make_member(volume: &Path) -> std::path::PathBuf {
    let logs = volume.join(ETCD_DATA).join("member/wal");
    std::fs::create_dir_all(&logs).unwrap();
    let log = logs.join("0.wal");
    std::fs::write(&log, "").unwrap();
    log
}

#[tokio::test(start_paused = true)]
async fn a_member_leaves_with_its_data() {
    let (components, node, etcd, volume) = control_plane(&["a", "b"]);
    let leave = || leave_etcd(&components.store, &components.supervisor, &node);
    leave().await.unwrap();
    assert_eq!(etcd.connections(), Vec::<Vec<String>>::new(), "a node without data is no member");
    let member = make_member(volume.path());
    leave().await.unwrap();
    assert!(!member.exists() && volume.path().exists());
    let (components, node, _etcd, volume) = control_plane(&["a"]);
    let member = make_member(volume.path());
    let error = leave_etcd(&components.store, &components.supervisor, &node).await.unwrap_err();
    assert!(matches!(error.downcast_ref(), Some(LeaveError::LastMember)), "{error}");
    assert!(member.exists(), "the cluster's only data is gone");
}
