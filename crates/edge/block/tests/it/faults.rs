//! Real file systems that are full, that gave up, and whose disk comes back with another name while the old one is in use.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::Path;

use block::{FileSystemError, FileSystems as _, KernelFileSystems, MountPlan, ProjectQuota};
use rustix::io::Errno;
use sys::files::{self, Access};
use sys::mounts::MountError;

use crate::{MIB, TestDisk};

/// A mounted XFS with a file.
async fn mounted(disk: &TestDisk, target: &Path) {
    KernelFileSystems.make_xfs(disk.device.path(), None).await.unwrap();
    KernelFileSystems.mount(&MountPlan::xfs(disk.device.path(), target, ProjectQuota::Off)).await.unwrap();
    files::write_atomic(&target.join("config.yaml"), b"old", Access::SECRET).unwrap();
}

#[tokio::test]
async fn a_full_file_system_keeps_the_old_file_whole_and_shows_that_it_is_full() {
    let disk = TestDisk::new(100);
    let target = disk.target("state");
    mounted(&disk, &target).await;
    let before = KernelFileSystems.usage(&target).await.unwrap();
    assert!(before.size > 60 * MIB && before.available > 50 * MIB && before.available < before.size, "{before:?}");

    let mut filler = File::create(target.join("filler")).unwrap();
    for chunk in [MIB, 4096] {
        let bytes = vec![1; usize::try_from(chunk).unwrap()];
        while let Ok(()) = filler.write_all(&bytes) {}
    }
    filler.sync_all().unwrap();
    // Room that is set aside for the file system itself is no room.
    let full = KernelFileSystems.usage(&target).await.unwrap();
    assert!(full.available < MIB, "{full:?}");
    let error = files::write_atomic(&target.join("config.yaml"), &vec![2; 1 << 20], Access::SECRET).unwrap_err();
    assert_eq!(error.source.kind(), ErrorKind::StorageFull, "{error}");
    assert_eq!(std::fs::read(target.join("config.yaml")).unwrap(), b"old");
    let mut left = files::list(&target).unwrap();
    left.sort();
    assert_eq!(left, ["config.yaml", "filler"], "what was begun is gone");

    drop(filler);
    std::fs::remove_file(target.join("filler")).unwrap();
    files::write_atomic(&target.join("config.yaml"), b"new", Access::SECRET).unwrap();
    KernelFileSystems.unmount(&target).await.unwrap();
}

#[tokio::test]
async fn a_file_system_that_gave_up_says_so_and_is_whole_when_it_is_mounted_again() {
    let disk = TestDisk::new(100);
    let target = disk.target("data");
    mounted(&disk, &target).await;
    KernelFileSystems.usage(&target).await.unwrap();
    shut_down(&target).await;
    let error = KernelFileSystems.usage(&target).await.unwrap_err();
    assert!(matches!(&error, FileSystemError::Look { source, .. } if is(source, Errno::IO)), "{error}");

    // Nobody uses it: a new mount starts from its log.
    KernelFileSystems.unmount(&target).await.unwrap();
    KernelFileSystems.mount(&again(disk.device.path(), &target)).await.unwrap();
    KernelFileSystems.usage(&target).await.unwrap();
    assert_eq!(std::fs::read(target.join("config.yaml")).unwrap(), b"old");

    // Somebody has a file open: it cannot be unmounted.
    let open = File::open(target.join("config.yaml")).unwrap();
    shut_down(&target).await;
    assert!(KernelFileSystems.unmount(&target).await.unwrap_err().is_busy());
    drop(open);
    KernelFileSystems.unmount(&target).await.unwrap();
}

#[tokio::test]
async fn a_disk_that_comes_back_is_mounted_beside_what_is_left_of_it() {
    let (gone, back) = (TestDisk::new(100), TestDisk::new(100));
    let target = gone.target("data");
    mounted(&gone, &target).await;
    let open = File::open(target.join("config.yaml")).unwrap();
    rustix::fs::syncfs(&open).unwrap();
    shut_down(&target).await;
    // The same bytes as another device: as a disk that was pulled out and put back.
    let mut from = File::open(gone.device.path()).unwrap();
    let mut to = File::options().write(true).open(back.device.path()).unwrap();
    std::io::copy(&mut from, &mut to).unwrap();
    to.sync_all().unwrap();
    drop(to);
    KernelFileSystems.detach(&target).await.unwrap();
    let table = KernelFileSystems.mounts().await.unwrap();
    assert!(table.iter().all(|mount| mount.target != target), "it is still there");

    let plain = MountPlan::xfs(back.device.path(), &target, ProjectQuota::Off);
    let error = KernelFileSystems.mount(&plain).await.unwrap_err();
    let FileSystemError::Mount(MountError::Mount { source, .. }) = &error else { panic!("{error}") };
    assert!(is(source, Errno::INVAL), "two file systems with one UUID: {error}");
    KernelFileSystems.mount(&again(back.device.path(), &target)).await.unwrap();
    assert_eq!(std::fs::read(target.join("config.yaml")).unwrap(), b"old");
    files::write_atomic(&target.join("config.yaml"), b"new", Access::SECRET).unwrap();
    KernelFileSystems.unmount(&target).await.unwrap();
    drop(open);
}

fn again(device: &Path, target: &Path) -> MountPlan {
    MountPlan { options: "nouuid".to_owned(), ..MountPlan::xfs(device, target, ProjectQuota::Off) }
}

/// What the kernel does when it cannot write the log.
async fn shut_down(target: &Path) {
    let command = sys::process::Command::new("xfs_io").args(["-x", "-c", "shutdown -f"]);
    let command = command.arg(target.display().to_string()).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.run().await.expect("xfs_io (package xfsprogs)");
}

fn is(error: &std::io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}
