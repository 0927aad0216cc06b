//! Disks of this kernel: files attached as loop devices. The tests need root, and the tools of XFS.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

mod faults;
mod luks;

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use block::{
    BlockDevices as _, Device, FileSystemError, FileSystems as _, Grown, KernelBlockDevices, KernelFileSystems,
    MountPlan, PartitionTables as _, ProjectQuota, TableError, UNFINISHED,
};
use machine::{gpt, layout};
use sys::loop_device::LoopDevice;

const MIB: u64 = 1 << 20;

struct TestDisk {
    directory: tempfile::TempDir,
    device: LoopDevice,
}

impl TestDisk {
    fn new(mib: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().join("image");
        File::create(&image).unwrap().set_len(mib * MIB).unwrap();
        let device = LoopDevice::attach_disk(&image, 512).unwrap();
        Self { directory, device }
    }

    fn resize(&self, mib: u64) {
        let image = self.directory.path().join("image");
        File::options().write(true).open(image).unwrap().set_len(mib * MIB).unwrap();
        self.device.refresh_size().unwrap();
    }

    fn target(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    async fn find(&self, block: &KernelBlockDevices, suffix: &str) -> Device {
        let path = format!("{}{suffix}", self.device.path().display());
        let devices = block.devices().await.unwrap();
        devices.into_iter().find(|device| device.path == Path::new(&path)).unwrap_or_else(|| panic!("no {path}"))
    }
}

/// A table with META, and EPHEMERAL on the rest of the first `mib` MiB.
fn table(disk: &Device, mib: u64) -> gpt::Table {
    let geometry = gpt::Geometry::new(512, disk.size).unwrap();
    let mut table = gpt::Table::new(gpt::Guid::from_random([1; 16]), geometry);
    for (number, name, first, last) in [(1, "META", 2048, 4095), (2, "EPHEMERAL", 4096, (mib - 1) * 2048 - 1)] {
        table.partitions.push(gpt::Partition {
            number,
            kind: layout::LINUX_DATA,
            id: gpt::Guid::from_random([1 + u8::try_from(number).unwrap(); 16]),
            first,
            last,
            attributes: 0,
            name: name.to_owned(),
        });
    }
    table
}

#[tokio::test]
async fn a_disk_is_partitioned_formatted_mounted_and_grows_while_it_is_mounted() {
    let (disk, block) = (TestDisk::new(400), KernelBlockDevices::new().unwrap());
    let whole = disk.find(&block, "").await;
    assert_eq!((whole.size, whole.sector_size, whole.is_read_only), (400 * MIB, 512, false));
    assert_eq!(block.probe(&whole).await.unwrap(), block::Probed::default(), "a blank disk");
    let changes = block.changes();
    block.create(&whole, &table(&whole, 350)).await.unwrap();
    assert!(matches!(block.create(&whole, &table(&whole, 350)).await, Err(TableError::NotEmpty { .. })));
    let probed = block.probe(&whole).await.unwrap();
    assert_eq!(probed.table.unwrap().by_name("EPHEMERAL").unwrap().number, 2);
    let partition = disk.find(&block, "p2").await;
    assert_eq!((partition.size, partition.partition.as_ref().unwrap().start), (347 * MIB, 2 * MIB));
    tokio::time::timeout(Duration::from_secs(5), async {
        while !changes.has_changed().unwrap() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("the kernel's event of the new partition is announced");

    let (files, target) = (KernelFileSystems, disk.target("var"));
    files.make_xfs(&partition.path, Some("EPHEMERAL")).await.unwrap();
    let content = block.probe(&partition).await.unwrap().content.unwrap();
    assert_eq!((content.name, content.label.as_str()), ("xfs", "EPHEMERAL"));
    files.mount(&MountPlan::xfs(&partition.path, &target, ProjectQuota::Off)).await.unwrap();
    let mounted = files.mounts().await.unwrap().into_iter().rfind(|mount| mount.target == target).unwrap();
    assert!(mounted.options.iter().any(|option| option == "noatime"), "{:?}", mounted.options);
    std::fs::write(target.join("kept"), "x").unwrap();
    assert!(matches!(files.make_xfs(&partition.path, None).await, Err(FileSystemError::Tool { .. })), "it is mounted");

    disk.resize(600);
    let whole = disk.find(&block, "").await;
    assert_eq!(whole.size, 600 * MIB);
    assert_eq!(block.grow(&whole, "EPHEMERAL").await.unwrap(), Grown::To(597 * MIB));
    assert_eq!(disk.find(&block, "p2").await.size, 597 * MIB, "while it is mounted");
    assert_eq!(block.grow(&whole, "EPHEMERAL").await.unwrap(), Grown::Unchanged);
    assert!(matches!(block.grow(&whole, "STATE").await, Err(TableError::NoPartition { .. })));
    files.grow_xfs(&target).await.unwrap();
    let space = rustix::fs::statvfs(&target).unwrap();
    assert!(space.f_blocks * space.f_frsize > 500 * MIB, "{} blocks of {}", space.f_blocks, space.f_frsize);

    files
        .mount(&MountPlan { kind: "tmpfs", ..MountPlan::xfs("tmpfs", target.join("pod"), ProjectQuota::Off) })
        .await
        .unwrap();
    let open = File::open(target.join("kept")).unwrap();
    let busy = files.unmount(&target).await.unwrap_err();
    assert!(busy.is_busy(), "{busy}");
    drop(open);
    files.unmount(&target).await.unwrap();
    assert!(files.mounts().await.unwrap().iter().all(|mount| !mount.target.starts_with(&target)));
}

#[tokio::test]
async fn a_damaged_file_system_asks_for_a_repair_and_is_mounted_after_it() {
    let (disk, block) = (TestDisk::new(320), KernelBlockDevices::new().unwrap());
    let (files, device, target) = (KernelFileSystems, disk.device.path(), disk.target("mnt"));
    files.make_xfs(device, Some("STATE")).await.unwrap();
    // The free space of the first allocation group, in its header; the copy of the superblock stays.
    block.write_at(device, 0, vec![0; 512]).await.unwrap();
    let plan = MountPlan::xfs(device, &target, ProjectQuota::Off);
    let error = files.mount(&plan).await.unwrap_err();
    assert!(error.wants_repair(), "{error}");
    files.repair_xfs(device).await.unwrap();
    files.mount(&plan).await.unwrap();
    files.unmount(&target).await.unwrap();
}

#[tokio::test]
async fn a_volume_as_small_as_state_gets_a_file_system_and_its_label_later() {
    let (disk, block) = (TestDisk::new(100), KernelBlockDevices::new().unwrap());
    let (files, target) = (KernelFileSystems, disk.target("state"));
    let label = async || {
        let content = block.probe(&disk.find(&block, "").await).await.unwrap().content;
        content.unwrap().label
    };
    files.make_xfs(disk.device.path(), Some(UNFINISHED)).await.unwrap();
    assert_eq!(label().await, UNFINISHED);
    files.mount(&MountPlan::xfs(disk.device.path(), &target, ProjectQuota::Off)).await.unwrap();
    let refused = files.label_xfs(&target, "more than twelve").await.unwrap_err();
    assert!(matches!(refused, FileSystemError::Label { .. }), "{refused}");
    files.label_xfs(&target, "STATE").await.unwrap();
    assert_eq!(label().await, "STATE", "also while it is mounted");
    files.unmount(&target).await.unwrap();
}

#[tokio::test]
async fn bytes_are_read_as_they_were_written_and_the_end_is_an_error() {
    let (disk, block) = (TestDisk::new(1), KernelBlockDevices::new().unwrap());
    let path = disk.device.path();
    block.write_at(path, MIB - 4, b"last".to_vec()).await.unwrap();
    assert_eq!(block.read_at(path, MIB - 4, 4).await.unwrap(), b"last");
    assert!(matches!(block.read_at(path, MIB - 4, 5).await, Err(block::BlockError::Read { offset: 1_048_572, .. })));
    assert!(matches!(block.write_at(path, MIB, vec![1]).await, Err(block::BlockError::Write { .. })));
    let absent = block.read_at(Path::new("/dev/no-such-disk"), 0, 1).await;
    assert!(matches!(absent, Err(block::BlockError::Open { .. })));
}
