use block::FakeBlock;
use block::slots::FakeBootLoader;
use controller::testing::Harness;
use machine::trial::{Installed, SlotId};
use parking_lot::Mutex;
use resources::runtime::DevicesStatus;
use serde_json::json;
use sys::watchdog::{FakeWatchdogs, Watchdog, Watchdogs as _};

use super::*;
use crate::discovery::DiscoveryController;
use crate::meta::MetaController;

/// Why versions were left, and the events.
#[derive(Debug, Default)]
struct Left(Mutex<Vec<String>>, Mutex<Vec<String>>);

impl Leave for Left {
    fn leave(&self, reason: &str) {
        self.0.lock().push(reason.to_owned());
    }

    fn tell(&self, version: &str, reason: &str) {
        self.1.lock().push(format!("{version}: {reason}"));
    }
}

const DOG: &str = "/dev/watchdog0";

/// A watchdog for each start, and what was told.
#[derive(Debug, Default)]
struct Watch {
    dogs: FakeWatchdogs,
    told: Mutex<Vec<&'static str>>,
}

impl TrialWatchdogs for Watch {
    fn controllers_run(&self) {
        self.told.lock().push("runs");
    }

    fn arm(&self) -> Result<Box<dyn Watchdog>, Box<dyn std::error::Error + Send + Sync>> {
        Ok(self.dogs.open(DOG.as_ref())?)
    }

    fn relax(&self) {
        self.told.lock().push("relaxed");
    }
}

/// A machine with two versions, whose disk and boot loader outlive its starts.
struct Machine {
    disk: FakeBlock,
    loader: FakeBootLoader,
}

struct Start {
    harness: Harness,
    edges: TrialEdges,
    left: Arc<Left>,
    watch: Arc<Watch>,
}

fn installed(slot: &str, version: &str) -> Installed {
    Installed { slot: SlotId::new(slot), version: version.into(), tries_left: None }
}

impl Machine {
    fn new() -> Self {
        let disk = FakeBlock::default();
        disk.add_disk("vda", 6 << 30);
        let partitions = [("EFI", 1101 << 20), ("META", 1 << 20), ("STATE", 100 << 20), ("EPHEMERAL", 1000 << 20)];
        disk.partition("vda", &partitions).unwrap();
        let loader = FakeBootLoader::new(Slots {
            default: Some(SlotId::new("A")),
            next: None,
            booted: None,
            installed: vec![installed("A", "v1"), installed("B", "v2")],
        });
        Self { disk, loader }
    }

    async fn start(&self) -> Start {
        drop(self.loader.power_on());
        let (controller, meta) = MetaController::new(Arc::new(self.disk.clone()), Vec::new());
        let harness = Harness::with(controller);
        harness.run(DiscoveryController::new(Arc::new(self.disk.clone())));
        harness.put(DevicesStatus::ID, DevicesStatus { ready: true });
        let left = Arc::new(Left::default());
        let dogs = FakeWatchdogs::default().with(DOG, Duration::from_secs(600));
        let watch = Arc::new(Watch { dogs, told: Mutex::default() });
        let edges = TrialEdges {
            loader: Arc::new(self.loader.clone()),
            meta,
            leave: Arc::clone(&left) as _,
            watchdogs: Arc::clone(&watch) as _,
        };
        harness.run(UpgradeTrialController::new(edges.clone()));
        harness.settle().await;
        Start { harness, edges, left, watch }
    }

    /// The former version has installed the new one.
    async fn upgraded() -> Self {
        let machine = Self::new();
        let start = machine.start().await;
        let checks = vec![Check::Api, Check::Kubelet];
        start.edges.prepare(&Record::prepared(&installed("B", "v2"), &installed("A", "v1"), checks, 60)).await.unwrap();
        start.harness.settle().await;
        assert_eq!(start.status(), (TrialPhase::Prepared, "A".into(), String::new()), "it is for the next start");
        machine
    }
}

impl Start {
    fn status(&self) -> (TrialPhase, String, String) {
        let trial = self.harness.get::<UpgradeTrial>(UpgradeTrial::ID).unwrap();
        (trial.phase, trial.running.clone(), trial.reason.clone())
    }

    fn show(&self, id: &str) {
        self.harness.put(id, Service { running: true, healthy: true, unknown: false });
    }

    async fn settle(&self, seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        self.harness.settle().await;
    }
}

fn default_of(machine: &Machine) -> (Option<SlotId>, Option<SlotId>) {
    let slots = machine.loader.now();
    (slots.default, slots.next)
}

#[tokio::test(start_paused = true)]
async fn a_version_that_shows_what_the_former_one_showed_gets_its_slot() {
    let machine = Machine::upgraded().await;
    let start = machine.start().await;
    assert_eq!(start.status(), (TrialPhase::Running, "B".into(), String::new()));
    assert_eq!(default_of(&machine), (Some(SlotId::new("A")), Some(SlotId::new("B"))), "a power cut is forgiven");
    start.show("apid");
    start.show("kubelet");
    start.settle(10).await;
    let trial = start.harness.get::<UpgradeTrial>(UpgradeTrial::ID).unwrap();
    assert_eq!((trial.phase, &trial.unmet), (TrialPhase::Running, &vec!["kubelet: its Node is not known".to_owned()]));
    start.harness.put("node", NodeStatus { nodename: "n".into(), node_ready: true, ..NodeStatus::default() });
    start.settle(10).await;
    assert_eq!(start.status(), (TrialPhase::Good, "B".into(), String::new()));
    assert_eq!(default_of(&machine), (Some(SlotId::new("B")), None));
    assert!(start.left.0.lock().is_empty() && start.left.1.lock().is_empty());
    // And it stays there.
    assert_eq!(machine.start().await.status(), (TrialPhase::Good, "B".into(), String::new()));
}

#[tokio::test(start_paused = true)]
async fn a_version_that_does_not_is_left_and_not_tried_again() {
    let machine = Machine::upgraded().await;
    let start = machine.start().await;
    start.show("apid");
    start.settle(120).await;
    let reason = "v2 was not good after 60 s: kubelet: service kubelet is not healthy";
    assert_eq!(start.status(), (TrialPhase::Failed, "B".into(), reason.into()));
    assert_eq!(*start.left.0.lock(), [reason], "it is left once");
    let event = format!("v2: {reason}");
    assert_eq!(*start.left.1.lock(), [event.as_str()]);
    for _ in 0..2 {
        let former = machine.start().await;
        former.settle(120).await;
        assert_eq!(former.status(), (TrialPhase::Failed, "A".into(), reason.into()));
        assert_eq!(default_of(&machine), (Some(SlotId::new("A")), None));
        assert!(former.left.0.lock().is_empty());
        assert_eq!(*former.left.1.lock(), [event.as_str()], "each start tells it once");
    }
}

#[tokio::test(start_paused = true)]
async fn a_version_that_did_not_start_is_told_by_the_former_one() {
    let machine = Machine::upgraded().await;
    // Its kernel ends before anything else.
    assert_eq!(machine.loader.power_on(), Some(SlotId::new("B")));
    let former = machine.start().await;
    let (phase, running, reason) = former.status();
    assert_eq!((phase, running.as_str()), (TrialPhase::Failed, "A"));
    assert!(reason.starts_with("v2 did not start"), "{reason}");
    // It was reset once more after five minutes, by the watchdog of a trial that it had found open.
    assert_eq!(former.watch.dogs.armed(DOG), None);
    former.settle(301).await;
    assert!(!former.watch.dogs.has_bitten(DOG));
}

#[tokio::test(start_paused = true)]
async fn a_version_on_trial_is_reset_when_it_hangs_and_one_that_is_good_or_left_is_not() {
    let machine = Machine::upgraded().await;
    let start = machine.start().await;
    let armed = |start: &Start| start.watch.dogs.armed(DOG);
    assert_eq!(armed(&start), Some(Duration::from_secs(60)));
    start.settle(50).await;
    assert!(!start.watch.dogs.has_bitten(DOG), "it is fed");
    start.show("apid");
    start.show("kubelet");
    start.harness.put("node", NodeStatus { nodename: "n".into(), node_ready: true, ..NodeStatus::default() });
    start.settle(10).await;
    assert_eq!(armed(&start), None);
    assert_eq!(*start.watch.told.lock(), ["runs", "relaxed"]);
    assert_eq!(armed(&machine.start().await), None, "its trial is over");

    let machine = Machine::upgraded().await;
    let start = machine.start().await;
    start.settle(65).await;
    assert_eq!(start.status().0, TrialPhase::Failed);
    assert_eq!(armed(&start), Some(Duration::from_secs(300)), "it may end in peace, and it ends");
    start.settle(301).await;
    assert!(start.watch.dogs.has_bitten(DOG), "a version that does not end keeps the machine");
}

#[tokio::test(start_paused = true)]
async fn a_start_without_a_trial_arms_nothing() {
    let start = Machine::new().start().await;
    start.settle(10).await;
    assert_eq!((start.watch.dogs.armed(DOG), start.watch.told.lock().clone()), (None, vec!["runs"]));
}

#[tokio::test(start_paused = true)]
async fn a_trial_whose_controllers_stop_has_time_to_end() {
    let machine = Machine::upgraded().await;
    let start = machine.start().await;
    start.harness.runtime.stop(Duration::from_secs(5)).await.unwrap();
    assert_eq!(start.watch.dogs.armed(DOG), Some(Duration::from_secs(300)));
}

#[test]
fn what_holds_is_told_from_services_and_pods() {
    let healthy = |id: &str| (id.to_owned(), Service { running: true, healthy: true, unknown: false });
    let evidence = Evidence {
        services: vec![healthy("apid"), healthy("kubelet"), healthy("etcd")],
        node: Some(NodeStatus { nodename: "n".into(), ..NodeStatus::default() }),
        static_pods: vec![("api".into(), true), ("scheduler".into(), false)],
    };
    assert_eq!(evidence.held(), [Check::Api, Check::Etcd]);
    let unmet =
        [(Check::Kubelet, "Node n is not Ready".to_owned()), (Check::StaticPods, "not ready: scheduler".into())];
    assert_eq!(evidence.shown().unmet, unmet);
    let status = |ready: &str| StaticPodStatus {
        pod_status: serde_json::from_value(json!({"conditions": [{"type": "Ready", "status": ready}]})).unwrap(),
    };
    assert!(is_ready(&status("True")) && !is_ready(&status("False")) && !is_ready(&StaticPodStatus::default()));
}
