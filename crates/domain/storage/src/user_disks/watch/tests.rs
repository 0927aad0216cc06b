use block::{FakeBlock, FileSystems as _};
use config::scalar::DiskSize;
use controller::testing::Harness;

use std::path::PathBuf;

use super::*;

const GIB: u64 = 1 << 30;

struct Test {
    fake: FakeBlock,
    disks: UserDisks,
    harness: Harness,
    wanted: Vec<MachineDisk>,
    target: PathBuf,
    _directory: tempfile::TempDir,
}

/// A machine with a mounted disk.
async fn mounted() -> Test {
    mounted_by("sdb", tempfile::tempdir().unwrap(), Path::new("/dev/sdb")).await
}

/// The same with a path of the configuration that leads to the disk `name`.
async fn mounted_by(name: &str, directory: tempfile::TempDir, device: &Path) -> Test {
    let target = directory.path().join("mnt");
    let fake = FakeBlock::default();
    fake.add_disk(name, 4 * GIB);
    let partition = DiskPartition { size: Some(DiskSize(0)), mountpoint: target.display().to_string() };
    let wanted = vec![MachineDisk { device: device.display().to_string(), partitions: vec![partition] }];
    let (controller, disks) = UserDiskController::new(VolumeEdges::of(&fake));
    let harness = Harness::with(controller);
    disks.mount(&wanted, "sda", ProjectQuota::Off).await.unwrap();
    harness.settle().await;
    Test { fake, disks, harness, wanted, target, _directory: directory }
}

impl Test {
    fn status(&self) -> UserDiskStatus {
        self.harness.get::<UserDiskStatus>(&self.target.display().to_string()).unwrap().spec.as_ref().clone()
    }

    /// After another look without an event.
    async fn later(&self, time: Duration) -> UserDiskStatus {
        tokio::time::sleep(time).await;
        self.harness.settle().await;
        self.status()
    }

    async fn mount_sources(&self) -> Vec<String> {
        self.fake.mounts().await.unwrap().into_iter().map(|mount| mount.source).collect()
    }

    fn done_since(&self, count: usize) -> Vec<String> {
        self.fake.log().split_off(count)
    }
}

#[tokio::test(start_paused = true)]
async fn a_mounted_disk_is_shown_until_it_is_unmounted() {
    let test = mounted().await;
    let status = test.status();
    assert_eq!((status.phase, status.reason.as_str()), (UserDiskPhase::Mounted, ""));
    assert_eq!((status.disk.as_str(), status.location.as_str(), status.uuid.len()), ("/dev/sdb", "/dev/sdb1", 36));
    assert!(status.size > 3 * GIB && status.available >= status.size / 2 - MIB, "{status:?}");
    test.disks.unmount(&test.wanted).await.unwrap();
    test.harness.settle().await;
    assert_eq!(test.harness.ids::<UserDiskStatus>(), Vec::<String>::new());
    let done = test.fake.log().len();
    tokio::time::sleep(10 * LOOK).await;
    assert_eq!(test.done_since(done), Vec::<String>::new(), "nothing is mounted behind the sequence's back");
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_is_pulled_out_and_put_back_is_used_again_and_not_formatted() {
    // A link as those of udevd, and names of devices that every host has.
    let directory = tempfile::tempdir().unwrap();
    let link = directory.path().join("by-id");
    std::os::unix::fs::symlink("/dev/null", &link).unwrap();
    let test = mounted_by("null", directory, &link).await;
    // Pods keep what they have open.
    test.fake.set_busy(&test.target, true);
    let (before, done) = (test.status(), test.fake.log().len());
    test.fake.unplug("null");
    std::fs::remove_file(&link).unwrap();
    test.harness.settle().await;
    let lost = test.status();
    assert_eq!((lost.phase, lost.location.as_str(), &lost.uuid), (UserDiskPhase::Lost, "/dev/null1", &before.uuid));
    assert!(lost.reason.contains(&format!("there is no disk {}", link.display())), "{}", lost.reason);
    assert_eq!(test.mount_sources().await, ["/dev/null1"], "nobody writes to the volume below");
    assert_eq!(test.done_since(done), Vec::<String>::new());

    // While it is in use, its name is not free.
    test.fake.plug("null", "zero");
    test.harness.settle().await;
    assert_eq!(test.status().phase, UserDiskPhase::Lost, "udevd makes the link a moment later");
    std::os::unix::fs::symlink("/dev/zero", &link).unwrap();
    let back = test.later(LOOK).await;
    assert_eq!((back.phase, back.remounts, back.location.as_str()), (UserDiskPhase::Mounted, 1, "/dev/zero1"));
    let target = test.target.display();
    let expected = [format!("detach {target}"), format!("mount /dev/zero1 {target} -o nouuid")];
    assert_eq!(test.done_since(done), expected);
    // It is lost once more.
    test.fake.unplug("zero");
    test.harness.settle().await;
    assert_eq!(test.status().phase, UserDiskPhase::Lost);
}

#[tokio::test(start_paused = true)]
async fn another_disk_in_its_place_is_left_alone() {
    let test = mounted().await;
    test.fake.unplug("sdb");
    // Nothing is left of it, so that the name is free.
    test.fake.detach(&test.target).await.unwrap();
    test.fake.add_disk("sdb", 4 * GIB);
    let done = test.fake.log().len();
    let blank = test.later(LOOK).await;
    assert_eq!(blank.phase, UserDiskPhase::Lost);
    assert!(blank.reason.contains("/dev/sdb has no partition 1"), "{}", blank.reason);
    assert_eq!(test.done_since(done), Vec::<String>::new(), "not even a blank one is formatted");
    test.fake.partition("sdb", &[("", GIB)]).unwrap();
    test.fake.make_xfs("/dev/sdb1".as_ref(), None).await.unwrap();
    let other = test.later(LOOK).await;
    assert_eq!(other.phase, UserDiskPhase::Lost);
    assert!(other.reason.contains("is not the file system that was there"), "{}", other.reason);
    assert_eq!(test.done_since(done), ["mkfs.xfs  /dev/sdb1"], "by the test alone");
}

#[tokio::test(start_paused = true)]
async fn a_file_system_that_gave_up_is_mounted_again_once_nobody_uses_it() {
    let test = mounted().await;
    test.fake.set_busy(&test.target, true);
    let done = test.fake.log().len();
    test.fake.shut_down(&test.target);
    let failed = test.later(LOOK).await;
    assert_eq!(failed.phase, UserDiskPhase::Failed);
    assert!(failed.reason.contains("stop what uses it"), "{}", failed.reason);
    assert_eq!(test.done_since(done), Vec::<String>::new());
    test.fake.set_busy(&test.target, false);
    let back = test.later(RENEW_AGAIN + LOOK).await;
    assert_eq!((back.phase, back.remounts), (UserDiskPhase::Mounted, 1));
    let target = test.target.display();
    assert_eq!(test.done_since(done), [format!("umount {target}"), format!("mount /dev/sdb1 {target} -o nouuid")]);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_mounted_again_is_covered_until_it_can() {
    let test = mounted().await;
    let done = test.fake.log().len();
    test.fake.damage("/dev/sdb1");
    test.fake.shut_down(&test.target);
    let failed = test.later(LOOK).await;
    assert_eq!(failed.phase, UserDiskPhase::Failed);
    assert!(failed.reason.contains("a restart of the machine repairs it"), "{}", failed.reason);
    assert_eq!(test.mount_sources().await, [COVER], "nobody writes to the volume below");
    let target = test.target.display();
    assert_eq!(
        test.done_since(done),
        [format!("umount {target}"), format!("mount tmpfs {target}")],
        "and nobody repairs it"
    );
    // The machine's end takes the cover away.
    test.disks.unmount(&test.wanted).await.unwrap();
    assert_eq!(test.mount_sources().await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_full_a_slow_and_a_failing_disk_are_told() {
    let test = mounted().await;
    test.fake.set_full(&test.target, true);
    let full = test.later(LOOK).await;
    assert_eq!(
        (full.phase, full.reason.as_str(), full.available),
        (UserDiskPhase::Full, "0 MiB are left: delete files", 0)
    );
    test.fake.set_full(&test.target, false);
    assert_eq!(test.later(LOOK).await.phase, UserDiskPhase::Mounted);

    test.fake.set_silent(&test.target, true);
    let slow = test.later(LOOK + ANSWER).await;
    assert_eq!((slow.phase, slow.reason.as_str()), (UserDiskPhase::Slow, "no answer within 10 s"));
    test.fake.set_silent(&test.target, false);
    assert_eq!(test.later(LOOK + ANSWER).await.phase, UserDiskPhase::Mounted);

    let error = "I/O error, dev sdb, sector 8 op 0x0:(READ)";
    test.fake.add_error("sdb", error);
    test.harness.settle().await;
    let failing = test.status();
    assert_eq!((failing.phase, failing.errors, failing.last_error.as_str()), (UserDiskPhase::Mounted, 1, error));
}

#[tokio::test(start_paused = true)]
async fn one_that_is_in_use_keeps_no_other_one_mounted() {
    let directory = tempfile::tempdir().unwrap();
    let (a, b) = (directory.path().join("a"), directory.path().join("b"));
    let fake = FakeBlock::default();
    fake.add_disk("sdb", 4 * GIB);
    let partition =
        |size, target: &Path| DiskPartition { size: Some(DiskSize(size)), mountpoint: target.display().to_string() };
    let wanted =
        [MachineDisk { device: "/dev/sdb".to_owned(), partitions: vec![partition(GIB, &a), partition(0, &b)] }];
    let (_controller, disks) = UserDiskController::new(VolumeEdges::of(&fake));
    disks.mount(&wanted, "sda", ProjectQuota::Off).await.unwrap();
    fake.set_busy(&b, true);
    let error = disks.unmount(&wanted).await.unwrap_err();
    assert!(matches!(error, UserDiskError::FileSystem(error) if error.is_busy()));
    let left: Vec<PathBuf> = fake.mounts().await.unwrap().into_iter().map(|mount| mount.target).collect();
    assert_eq!(left, [b]);
}
