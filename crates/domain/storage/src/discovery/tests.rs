use block::{BlockDevices as _, FakeBlock, FileSystems as _};
use controller::testing::Harness;

use super::*;

const MIB: u64 = 1 << 20;
const SYSTEM: [(&str, u64); 6] = [
    ("EFI", 100 * MIB),
    ("BIOS", MIB),
    ("BOOT", 1000 * MIB),
    ("META", MIB),
    ("STATE", 100 * MIB),
    ("EPHEMERAL", 1000 * MIB),
];

fn harness(fake: &FakeBlock) -> Harness {
    Harness::with(DiscoveryController::new(Arc::new(fake.clone())))
}

fn devices_are_ready(harness: &Harness) {
    harness.put(DevicesStatus::ID, DevicesStatus { ready: true });
}

fn system(harness: &Harness) -> SystemDisk {
    SystemDisk::clone(&harness.get::<SystemDisk>(SystemDisk::ID).unwrap())
}

#[tokio::test(start_paused = true)]
async fn volumes_show_what_devices_hold_as_it_changes() {
    let fake = FakeBlock::default();
    fake.add_disk("sda", 6 << 30);
    fake.partition("sda", &SYSTEM).unwrap();
    fake.make_xfs("/dev/sda5".as_ref(), Some("STATE")).await.unwrap();
    let harness = harness(&fake);
    harness.settle().await;
    let disk = harness.get::<DiscoveredVolume>("sda").unwrap();
    assert_eq!((disk.r#type.as_str(), disk.name.as_str(), disk.size), ("disk", "gpt", 6 << 30));
    let state = harness.get::<DiscoveredVolume>("sda5").unwrap();
    assert_eq!((state.name.as_str(), state.label.as_str(), state.partition_label.as_str()), ("xfs", "STATE", "STATE"));
    assert_eq!((state.partition_index, state.parent.as_str()), (5, "sda"));
    assert_eq!(state.partition_type, "0fc63daf-8483-4772-8e79-3d69d8477de4");
    assert_eq!(harness.get::<DiscoveredVolume>("sda6").unwrap().name, "");

    fake.make_xfs("/dev/sda6".as_ref(), Some("EPHEMERAL")).await.unwrap();
    harness.settle().await;
    assert_eq!(harness.get::<DiscoveredVolume>("sda6").unwrap().label, "", "nobody has told");
    fake.written("sda6");
    harness.settle().await;
    assert_eq!(harness.get::<DiscoveredVolume>("sda6").unwrap().label, "EPHEMERAL");
    fake.add_disk("loop0", 0);
    harness.settle().await;
    assert!(harness.get::<DiscoveredVolume>("loop0").is_none(), "nothing is attached to it");
    fake.remove_disk("sda");
    harness.settle().await;
    assert!(harness.ids::<DiscoveredVolume>().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_system_disk_ends_the_search_and_its_absence_only_after_all_devices_were_set_up() {
    let fake = FakeBlock::default();
    fake.add_disk("sdb", 6 << 30);
    let harness = harness(&fake);
    harness.settle().await;
    let before = system(&harness);
    assert!(!before.installed && !before.settled, "{before:?}");
    fake.add_disk("sda", 6 << 30);
    fake.partition("sda", &SYSTEM).unwrap();
    harness.settle().await;
    let found = system(&harness);
    assert!(found.installed && found.settled, "{found:?}");
    assert_eq!((found.disk.as_str(), found.device_path.as_str()), ("sda", "/dev/sda"));

    let empty = self::harness(&FakeBlock::default());
    devices_are_ready(&empty);
    empty.settle().await;
    let none = system(&empty);
    assert!(!none.installed && none.settled, "{none:?}");
    assert_eq!(none.reason, "no disk has the system's partitions");
}

#[tokio::test(start_paused = true)]
async fn disks_that_start_slowly_are_waited_for_and_not_forever() {
    let fake = FakeBlock::default();
    fake.set_pending(&["1-1:1.0"]);
    let harness = harness(&fake);
    devices_are_ready(&harness);
    harness.settle().await;
    assert_eq!(system(&harness).reason, "disks are starting: 1-1:1.0");
    tokio::time::sleep(SLOW_DISKS / 2).await;
    assert!(!system(&harness).settled);
    tokio::time::sleep(SLOW_DISKS).await;
    harness.settle().await;
    assert!(system(&harness).settled);
}

#[tokio::test(start_paused = true)]
async fn an_unfinished_installation_is_no_system_disk_and_a_second_one_is_told() {
    let fake = FakeBlock::default();
    fake.add_disk("sda", 6 << 30);
    let unfinished = SYSTEM.map(|(name, size)| if name == "STATE" { ("STATE~", size) } else { (name, size) });
    fake.partition("sda", &unfinished).unwrap();
    let harness = harness(&fake);
    devices_are_ready(&harness);
    harness.settle().await;
    let cut = system(&harness);
    assert!(!cut.installed);
    assert_eq!(cut.reason, "the installation on /dev/sda was not finished");
    for name in ["sdb", "sdc"] {
        fake.add_disk(name, 6 << 30);
        fake.partition(name, &SYSTEM).unwrap();
    }
    harness.settle().await;
    let found = system(&harness);
    assert_eq!(found.disk, "sdb");
    assert!(found.reason.ends_with("others: /dev/sdc"), "{}", found.reason);
}

#[tokio::test(start_paused = true)]
async fn a_device_that_cannot_be_read_hides_no_other() {
    let fake = FakeBlock::default();
    fake.add_disk("sda", 6 << 30);
    fake.set_unreadable("/dev/sda");
    fake.add_disk("sdb", 6 << 30);
    fake.partition("sdb", &SYSTEM).unwrap();
    assert!(fake.probe(&fake.devices().await.unwrap()[0]).await.is_err_and(|e| e.to_string().contains("/dev/sda")));
    let harness = harness(&fake);
    harness.settle().await;
    assert_eq!(harness.get::<DiscoveredVolume>("sda").unwrap().name, "");
    assert_eq!(system(&harness).disk, "sdb");
}
