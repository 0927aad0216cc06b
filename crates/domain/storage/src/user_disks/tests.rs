use block::{FakeBlock, FileSystems as _, PartitionTables as _};
use config::scalar::DiskSize;
use config::v1alpha1::DiskPartition;

use super::*;

const GIB: u64 = 1 << 30;

fn disk(device: &str, partitions: &[(u64, &Path)]) -> MachineDisk {
    let partition = |(size, mountpoint): &(u64, &Path)| DiskPartition {
        size: Some(DiskSize(*size)),
        mountpoint: mountpoint.display().to_string(),
    };
    MachineDisk { device: device.to_owned(), partitions: partitions.iter().map(partition).collect() }
}

#[tokio::test(start_paused = true)]
async fn an_empty_disk_is_partitioned_formatted_and_mounted_once() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("mnt/a"), dir.path().join("mnt/b"));
    let fake = FakeBlock::default();
    fake.add_disk("sdb", 10 * GIB);
    let disks = [disk("/dev/sdb", &[(4 * GIB, &a), (0, &b)])];
    mount(&VolumeEdges::of(&fake), &disks, "sda", ProjectQuota::On).await.unwrap();
    let expected = [
        "partition /dev/sdb".to_owned(),
        "mkfs.xfs  /dev/sdb1".to_owned(),
        "mkfs.xfs  /dev/sdb2".to_owned(),
        format!("mount /dev/sdb1 {} -o prjquota", a.display()),
        format!("mount /dev/sdb2 {} -o prjquota", b.display()),
    ];
    assert_eq!(fake.log(), expected);
    let table = fake.table("sdb").unwrap();
    let sizes: Vec<u64> = table.partitions.iter().map(|one| one.size(table.geometry)).collect();
    assert_eq!(sizes, [4 * GIB, 6 * GIB - (2 << 20)], "the rest, less the first and the last MiB");
    assert!(table.partitions.iter().all(|one| one.name.is_empty()));

    mount(&VolumeEdges::of(&fake), &disks, "sda", ProjectQuota::On).await.unwrap();
    assert_eq!(fake.log(), expected, "nothing is done twice");
    unmount(&VolumeEdges::of(&fake), &disks).await.unwrap();
    assert_eq!(fake.log()[5..], [format!("umount {}", b.display()), format!("umount {}", a.display())]);
}

#[tokio::test(start_paused = true)]
async fn partitions_that_are_absent_while_udevd_has_the_table_read_again_are_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("mnt");
    let fake = FakeBlock::default();
    fake.add_disk("md126", 4 * GIB);
    fake.reread_tables(5);
    mount(&VolumeEdges::of(&fake), &[disk("/dev/md126", &[(0, &target)])], "sda", ProjectQuota::Off).await.unwrap();
    assert!(fake.log().iter().any(|line| line.starts_with("mount /dev/md126")), "{:?}", fake.log());
}

#[tokio::test(start_paused = true)]
async fn a_power_cut_between_the_table_and_the_file_systems_is_made_good() {
    let dir = tempfile::tempdir().unwrap();
    let fake = FakeBlock::default();
    fake.add_disk("sdb", 4 * GIB);
    fake.partition("sdb", &[(UNFORMATTED, GIB)]).unwrap();
    let disks = [disk("/dev/sdb", &[(GIB, dir.path())])];
    mount(&VolumeEdges::of(&fake), &disks, "", ProjectQuota::Off).await.unwrap();
    assert_eq!(fake.log(), ["mkfs.xfs  /dev/sdb1".to_owned(), format!("mount /dev/sdb1 {}", dir.path().display())]);
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_appears_late_is_waited_for_and_one_that_does_not_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let fake = FakeBlock::default();
    let disks = [disk("/dev/sdb", &[(GIB, dir.path())])];
    let begun = tokio::time::Instant::now();
    let error = mount(&VolumeEdges::of(&fake), &disks, "sda", ProjectQuota::Off).await.unwrap_err();
    assert!(matches!(&error, UserDiskError::Absent { device } if device == "/dev/sdb"), "{error}");
    assert_eq!(begun.elapsed(), LATE);

    let late = async {
        tokio::time::sleep(LATE / 2).await;
        fake.add_disk("sdb", 4 * GIB);
    };
    let all = VolumeEdges::of(&fake);
    let (mounted, ()) = tokio::join!(mount(&all, &disks, "sda", ProjectQuota::Off), late);
    mounted.unwrap();
    let expected = ["partition /dev/sdb", "mkfs.xfs  /dev/sdb1", &format!("mount /dev/sdb1 {}", dir.path().display())];
    assert_eq!(fake.log(), expected);
}

#[tokio::test(start_paused = true)]
async fn two_disks_that_are_absent_are_waited_for_together() {
    let dir = tempfile::tempdir().unwrap();
    let fake = FakeBlock::default();
    let disks = [disk("/dev/sdb", &[(GIB, dir.path())]), disk("/dev/sdc", &[(GIB, dir.path())])];
    let second = async {
        tokio::time::sleep(LATE - Duration::from_secs(1)).await;
        fake.add_disk("sdb", 4 * GIB);
    };
    let all = VolumeEdges::of(&fake);
    let begun = tokio::time::Instant::now();
    let (mounted, ()) = tokio::join!(mount(&all, &disks, "sda", ProjectQuota::Off), second);
    assert!(matches!(mounted, Err(UserDiskError::Absent { device }) if device == "/dev/sdc"));
    assert_eq!(begun.elapsed(), LATE);
}

#[tokio::test(start_paused = true)]
async fn a_disk_with_anything_on_it_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let fake = FakeBlock::default();
    for name in ["sda", "sdb", "sdc"] {
        fake.add_disk(name, 4 * GIB);
    }
    fake.make_xfs("/dev/sdb".as_ref(), Some("mine")).await.unwrap();
    fake.partition("sdc", &[("data", GIB)]).unwrap();
    let failure = async |device: &str, system: &str| {
        let disks = [disk(device, &[(GIB, dir.path())])];
        mount(&VolumeEdges::of(&fake), &disks, system, ProjectQuota::Off).await.unwrap_err()
    };
    assert!(matches!(failure("/dev/sda", "sda").await, UserDiskError::SystemDisk { .. }));
    assert!(matches!(failure("/dev/sdb", "sda").await, UserDiskError::NotEmpty { content, .. } if content == "xfs"));
    assert!(matches!(failure("/dev/sdx", "sda").await, UserDiskError::Absent { .. }));
    // A partition of somebody else without a file system is not formatted.
    let error = failure("/dev/sdc", "sda").await;
    assert!(matches!(&error, UserDiskError::Foreign { partition, .. } if partition == "/dev/sdc1"), "{error}");
    assert_eq!(fake.log(), ["mkfs.xfs mine /dev/sdb"], "nothing was changed");
    let devices = block::BlockDevices::devices(&fake).await.unwrap();
    let sdb = devices.iter().find(|device| device.name == "sdb").unwrap();
    let table = gpt::Table::new(gpt::Guid::NIL, gpt::Geometry::new(512, 4 * GIB).unwrap());
    assert!(matches!(fake.create(sdb, &table).await, Err(TableError::NotEmpty { .. })));
}

#[tokio::test(start_paused = true)]
async fn partitions_that_do_not_fit_are_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let fake = FakeBlock::default();
    fake.add_disk("sdb", GIB);
    let disks = [disk("/dev/sdb", &[(GIB, dir.path())])];
    let error = mount(&VolumeEdges::of(&fake), &disks, "", ProjectQuota::Off).await.unwrap_err();
    let left = GIB - (2 << 20);
    let expected = UserTableError::TooSmall { number: 1, needed: GIB, left };
    assert!(matches!(error, UserDiskError::Plan { source, .. } if source == expected));
    assert_eq!(fake.log(), Vec::<String>::new());
}
