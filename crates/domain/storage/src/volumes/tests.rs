use std::time::Duration;

use block::FakeBlock;
use controller::testing::{Harness, Holder};
use kms_client::FakeKeyService;
use resources::config::MachineConfig as Active;
use resources::runtime::DevicesStatus;
use tpm::FakeTpm;

use super::*;
use crate::discovery::DiscoveryController;
use crate::meta::MetaController;

mod sealed;

const MIB: u64 = 1 << 20;
const UUID: &str = "44c1b8c9-7e2b-4c3a-9d2e-0123456789ab";
const SYSTEM: [(&str, u64); 4] = [("EFI", 1101 * MIB), ("META", MIB), ("STATE", 100 * MIB), ("EPHEMERAL", 1000 * MIB)];

struct Test {
    fake: FakeBlock,
    services: FakeKeyService,
    tpm: FakeTpm,
    keys: VolumeKeys,
    harness: Harness,
    root: tempfile::TempDir,
}

fn start(partitions: &[(&str, u64)]) -> Test {
    let root = tempfile::tempdir().unwrap();
    let fake = FakeBlock::default();
    fake.add_disk("vda", 6 << 30);
    fake.partition("vda", partitions).unwrap();
    over(fake, (FakeKeyService::default(), FakeTpm::default()), root)
}

/// A machine that starts with these disks.
fn over(fake: FakeBlock, (services, tpm): (FakeKeyService, FakeTpm), root: tempfile::TempDir) -> Test {
    let edges = VolumeEdges::of(&fake);
    let (meta, handle) = MetaController::new(Arc::new(fake.clone()), Vec::new());
    let seal = SealEdges {
        luks: Arc::new(fake.clone()),
        services: Arc::new(services.clone()),
        tpm: Arc::new(tpm.clone()),
        meta: handle,
    };
    let (controller, keys) = VolumeController::new(edges, seal, Places::below(root.path()));
    let harness = Harness::with(controller);
    harness.run(meta);
    harness.put(SystemInformation::ID, SystemInformation { uuid: UUID.into(), ..SystemInformation::default() });
    harness.run(DiscoveryController::new(Arc::new(fake.clone())));
    harness.run(Holder::new("test.Writer", MountStatus::STATE, |_: &MountStatus| {}));
    harness.put(DevicesStatus::ID, DevicesStatus { ready: true });
    Test { fake, services, tpm, keys, harness, root }
}

impl Test {
    fn ask(&self, label: &str) {
        self.harness.put(label, VolumeRequest { requester: "test".into() });
    }

    /// Withdraws the request, as the sequence does.
    async fn release(&self, label: &str) {
        self.harness.teardown::<VolumeRequest>(label);
        self.harness.settle().await;
        self.harness.destroy::<VolumeRequest>(label);
        self.harness.settle().await;
    }

    fn status(&self, label: &str) -> VolumeStatus {
        VolumeStatus::clone(&self.harness.get::<VolumeStatus>(label).unwrap())
    }

    fn path(&self, path: &str) -> String {
        self.root.path().join(path).display().to_string()
    }
}

#[tokio::test(start_paused = true)]
async fn a_blank_volume_is_formatted_mounted_while_it_is_asked_for_and_kept_for_the_next_time() {
    let test = start(&SYSTEM);
    test.harness.settle().await;
    assert!(test.harness.ids::<MountStatus>().is_empty(), "not requested");
    test.ask("STATE");
    test.harness.settle().await;
    let status = test.harness.get::<MountStatus>("STATE").unwrap();
    let target = test.path("system/state");
    assert_eq!((status.source.as_str(), status.target.as_str()), ("/dev/vda3", target.as_str()));
    assert_eq!(
        (status.filesystem_type.as_str(), &status.options[..]),
        ("xfs", &["rw".to_owned(), "noatime".to_owned()][..])
    );
    assert_eq!(test.status("STATE").phase, VolumePhase::Mounted);
    let made = [
        "mkfs.xfs unfinished /dev/vda3".to_owned(),
        format!("mount /dev/vda3 {target}"),
        format!("label {target} STATE"),
    ];
    assert_eq!(test.fake.log(), made);
    let found = test.harness.get::<DiscoveredVolume>("vda3").unwrap();
    assert_eq!((found.name.as_str(), found.label.as_str()), ("xfs", "STATE"), "what it holds now");

    test.release("STATE").await;
    assert!(test.harness.ids::<MountStatus>().is_empty() && test.harness.ids::<VolumeStatus>().is_empty());
    test.ask("STATE");
    test.harness.settle().await;
    assert_eq!(test.fake.log()[3..], [format!("umount {target}"), format!("mount /dev/vda3 {target}")]);
}

#[tokio::test(start_paused = true)]
async fn ephemeral_grows_to_its_disk_and_carries_the_layers_over_the_image() {
    let test = start(&SYSTEM);
    for directory in ["etc/cni", "opt"] {
        std::fs::create_dir_all(test.root.path().join(directory)).unwrap();
    }
    test.ask("EPHEMERAL");
    test.harness.settle().await;
    let expected = [
        "grow /dev/vda EPHEMERAL".to_owned(),
        "mkfs.xfs unfinished /dev/vda4".to_owned(),
        format!("mount /dev/vda4 {}", test.path("var")),
        format!("label {} EPHEMERAL", test.path("var")),
        format!("xfs_growfs {}", test.path("var")),
        format!("mount overlay {}", test.path("etc/cni")),
        format!("mount overlay {}", test.path("opt")),
    ];
    assert_eq!(test.fake.log(), expected, "directories that the image does not have get no layer");
    assert!(test.root.path().join("var/system/overlays/etc-cni-diff").is_dir());
    let table = test.fake.table("vda").unwrap();
    let end = table.by_name("EPHEMERAL").unwrap().last + 1;
    assert_eq!(end, (6 << 30) / 512 - 2048, "the last whole MiB before the backup of the table");

    test.release("EPHEMERAL").await;
    let taken_off: Vec<String> = test.fake.log()[7..].to_vec();
    assert_eq!(taken_off, ["opt", "etc/cni", "var"].map(|path| format!("umount {}", test.path(path))));

    test.fake.resize_disk("vda", 8 << 30);
    test.ask("EPHEMERAL");
    test.harness.settle().await;
    assert!(test.fake.log()[10..].contains(&"grow /dev/vda EPHEMERAL".to_owned()), "{:?}", test.fake.log());
}

#[tokio::test(start_paused = true)]
async fn project_quotas_are_on_where_the_configuration_asks_for_them() {
    let test = start(&SYSTEM);
    let text = "version: v1alpha1\nmachine: {type: worker, features: {diskQuotaSupport: true}}\n";
    test.harness.put(Active::ACTIVE_ID, Active::new(text));
    test.ask("EPHEMERAL");
    test.ask("STATE");
    test.harness.settle().await;
    let log = test.fake.log();
    assert!(log.contains(&format!("mount /dev/vda4 {} -o prjquota", test.path("var"))), "{log:?}");
    assert!(log.contains(&format!("mount /dev/vda3 {}", test.path("system/state"))), "{log:?}");
}

#[tokio::test(start_paused = true)]
async fn a_damaged_file_system_is_repaired_once_and_then_mounted() {
    let test = start(&SYSTEM);
    block::FileSystems::make_xfs(&test.fake, "/dev/vda3".as_ref(), Some("STATE")).await.unwrap();
    test.fake.damage("/dev/vda3");
    test.ask("STATE");
    test.harness.settle().await;
    let repaired = ["xfs_repair /dev/vda3".to_owned(), format!("mount /dev/vda3 {}", test.path("system/state"))];
    assert_eq!(test.fake.log()[1..], repaired);
}

#[tokio::test(start_paused = true)]
async fn a_file_system_that_was_never_finished_is_made_anew() {
    let test = start(&SYSTEM);
    block::FileSystems::make_xfs(&test.fake, "/dev/vda3".as_ref(), Some(block::UNFINISHED)).await.unwrap();
    test.fake.damage("/dev/vda3");
    test.ask("STATE");
    test.harness.settle().await;
    let target = test.path("system/state");
    let anew =
        ["mkfs.xfs unfinished /dev/vda3".into(), format!("mount /dev/vda3 {target}"), format!("label {target} STATE")];
    assert_eq!(test.fake.log()[1..], anew);
}

#[tokio::test(start_paused = true)]
async fn what_is_absent_or_foreign_is_told_and_not_touched() {
    let test = start(&[("META", MIB)]);
    test.ask("STATE");
    test.ask("OTHER");
    test.harness.settle().await;
    let reason = "the system is not installed: no disk has the system's partitions";
    assert_eq!((test.status("STATE").phase, test.status("STATE").reason.as_str()), (VolumePhase::Missing, reason));
    assert!(test.status("OTHER").reason.starts_with("OTHER is no volume of a machine"));

    let foreign = start(&SYSTEM);
    let mut swap = vec![0; 4096];
    swap[4086..].copy_from_slice(b"SWAPSPACE2");
    block::BlockDevices::write_at(&foreign.fake, "/dev/vda3".as_ref(), 0, swap).await.unwrap();
    foreign.ask("STATE");
    foreign.harness.settle().await;
    let status = foreign.status("STATE");
    assert_eq!(status.phase, VolumePhase::Failed);
    assert!(status.reason.starts_with("partition /dev/vda3 holds swap, not xfs"), "{}", status.reason);
    assert!(foreign.fake.log().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_volume_in_use_stays_mounted_until_its_users_let_go() {
    let test = start(&SYSTEM);
    test.ask("STATE");
    test.harness.settle().await;
    let target = test.root.path().join("system/state");
    test.fake.set_busy(&target, true);
    assert!(!test.harness.teardown::<VolumeRequest>("STATE"));
    tokio::time::sleep(Duration::from_secs(12)).await;
    let status = test.status("STATE");
    assert_eq!(status.phase, VolumePhase::Failed);
    assert!(status.reason.starts_with("unmounting"), "{}", status.reason);
    test.fake.set_busy(&target, false);
    tokio::time::sleep(Duration::from_secs(40)).await;
    test.harness.settle().await;
    test.harness.destroy::<VolumeRequest>("STATE");
    assert!(test.harness.ids::<VolumeStatus>().is_empty());
}
