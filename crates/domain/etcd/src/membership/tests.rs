use controller::testing::Harness;
use etcd_edge::Etcd;
use etcd_edge::fake::FakeEtcd;
use resources::v1alpha1::Service;

use super::*;
use crate::local::testing::{run_etcd, stop_etcd};

struct World {
    harness: Harness,
    etcd: FakeEtcd,
    gate: BootstrapGate,
    folder: tempfile::TempDir,
}

/// The node at 10.5.0.3, with volumes and certificates, and etcd not running.
fn world() -> World {
    let etcd = FakeEtcd::default();
    etcd.set_local(None);
    let gate = BootstrapGate::default();
    let harness = Harness::with(MembershipController::new(Arc::new(etcd.clone()), gate.clone()));
    let folder = tempfile::tempdir().unwrap();
    for volume in [MountStatus::STATE, MountStatus::EPHEMERAL] {
        let target = folder.path().join(volume).display().to_string();
        std::fs::create_dir_all(&target).unwrap();
        harness.put(volume, MountStatus { target, ..MountStatus::default() });
    }
    run_etcd(&harness);
    harness.destroy::<Service>("etcd");
    let advertised_addresses = vec!["10.5.0.3".parse().unwrap()];
    harness.put(EtcdSpec::ID, EtcdSpec { name: "cp-2".into(), advertised_addresses, ..EtcdSpec::default() });
    World { harness, etcd, gate, folder }
}

impl World {
    fn knows(&self, addresses: &[&str]) {
        let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        self.harness.put(Endpoint::DISCOVERY_ID, Endpoint { addresses });
    }

    fn start(&self) -> EtcdStart {
        EtcdStart::clone(&self.harness.get::<EtcdStart>(EtcdStart::ID).unwrap())
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join(MountStatus::EPHEMERAL).join(ETCD_DATA)
    }

    fn make_data(&self) {
        std::fs::create_dir_all(self.data().join("member/wal")).unwrap();
        std::fs::write(self.data().join("member/wal/0000000000000000-0000000000000000.wal"), "").unwrap();
    }

    fn record(&self) -> Option<String> {
        std::fs::read_to_string(self.folder.path().join(MountStatus::STATE).join(RECORD_FILE)).ok()
    }

    async fn pass(&self, seconds: u64) {
        self.harness.settle().await;
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        self.harness.settle().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_node_waits_for_the_operator_and_founds() {
    let world = world();
    world.pass(0).await;
    assert!(world.start().waits_for.contains("talosctl bootstrap"), "{:?}", world.start());
    world.gate.open(&world.data()).unwrap();
    world.pass(0).await;
    let start = world.start();
    assert_eq!((start.state.as_str(), start.initial_cluster.as_str()), ("new", "cp-2=https://10.5.0.3:2380"));
    assert_eq!(start.waits_for, "");
    world.make_data();
    world.pass(10).await;
    assert_eq!(world.start(), start, "its arguments stay while it starts");
}

#[tokio::test(start_paused = true)]
async fn a_further_node_joins_as_a_learner_and_is_promoted() {
    let world = world();
    world.etcd.add_member("cp-1", "10.5.0.2");
    world.knows(&["10.5.0.2", "10.5.0.3"]);
    world.pass(5).await;
    let start = world.start();
    assert_eq!(start.state, "existing");
    assert_eq!(start.initial_cluster, "cp-2=https://10.5.0.3:2380,cp-1=https://10.5.0.2:2380");
    let learner = world.etcd.members().await.unwrap().remove(1);
    assert_eq!(world.record(), Some(format!("joining {}\n", learner.id)));
    world.make_data();
    world.etcd.start(learner.id, "cp-2", "10.5.0.3");
    world.etcd.set_local(Some(learner.id));
    world.etcd.set_behind(learner.id, true);
    run_etcd(&world.harness);
    world.pass(20).await;
    assert!(world.etcd.members().await.unwrap()[1].is_learner);
    world.etcd.set_behind(learner.id, false);
    world.pass(5).await;
    assert!(!world.etcd.members().await.unwrap()[1].is_learner);
    assert_eq!((world.record(), world.start()), (Some(format!("voting {}\n", learner.id)), start));
}

#[tokio::test(start_paused = true)]
async fn a_node_with_data_starts_while_no_other_answers() {
    let world = world();
    world.make_data();
    world.knows(&["10.5.0.2"]);
    world.etcd.set_down(true);
    world.harness.settle().await;
    let from_data = EtcdStart { state: EtcdStart::DATA.into(), ..EtcdStart::default() };
    assert_eq!(world.start(), from_data);
    world.pass(30).await;
    assert_eq!(world.start(), from_data);
}

#[tokio::test(start_paused = true)]
async fn a_learner_that_was_removed_ends_is_wiped_and_joins_again() {
    let world = world();
    world.etcd.add_member("cp-1", "10.5.0.2");
    world.knows(&["10.5.0.2"]);
    let state = world.folder.path().join(MountStatus::STATE);
    std::fs::write(state.join(RECORD_FILE), "joining 7\n").unwrap();
    world.make_data();
    world.harness.put("etcd", Service { running: false, healthy: false, unknown: true });
    world.pass(5).await;
    assert!(world.start().ends, "{:?}", world.start());
    assert!(has_member(&world.data()), "its data are kept until it has ended");
    world.harness.destroy::<Service>("etcd");
    world.pass(5).await;
    assert!(!world.data().join("member").exists());
    assert_eq!(world.start().state, "existing");
}

#[tokio::test(start_paused = true)]
async fn a_voting_member_that_was_removed_keeps_its_data_and_says_what_helps() {
    let world = world();
    world.etcd.add_member("cp-1", "10.5.0.2");
    world.knows(&["10.5.0.2"]);
    std::fs::write(world.folder.path().join(MountStatus::STATE).join(RECORD_FILE), "voting 7\n").unwrap();
    world.make_data();
    stop_etcd(&world.harness);
    world.pass(5).await;
    assert!(world.start().ends && world.start().waits_for.contains("talosctl reset"), "{:?}", world.start());
    assert!(has_member(&world.data()));
}
