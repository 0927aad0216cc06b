//! Power cuts during an installation: the disk loses what was not flushed.

use block::disk::testing::FakeDisk;
use block::disk::{DiskError, TargetDisk as _};
use installer::InstallError;
use machine::install::Treatment;
use machine::layout::{self, Label, Layout};

use crate::support::{GIB, assets, install, names, request};

/// A few of the writes since the last flush survive: a different part for each cut.
fn some(cut: u64) -> impl FnMut(usize) -> bool {
    let mut state = cut.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        !state.is_multiple_of(3)
    }
}

/// The first bytes of the boot code that says that an installation was cut off.
fn says_why(disk: &FakeDisk) -> bool {
    let mut mbr = [0; 512];
    disk.read_at(0, &mut mbr).unwrap();
    let text = b"was cut off";
    mbr.windows(text.len()).any(|window| window == text)
}

async fn cut_everywhere(layout: Layout, cuts: u64) {
    let directory = tempfile::tempdir().unwrap();
    let assets = assets(directory.path());
    let mut whole = FakeDisk::new(3 * GIB);
    install(&mut whole, &request(&assets, layout, Treatment::Zero)).await.unwrap();
    let total = whole.written;
    let finished = names(&whole);

    // Densely where tables are written, at the start and at the end, and spread over the rest.
    let spread = (1..cuts).map(|cut| total * cut / cuts);
    let points = spread.chain([1, 2048 + 10, 4096 + 8, 4096 + 34, total - 1, total - 34, total - 66]);
    for point in points {
        let mut disk = FakeDisk::new(3 * GIB).failing_after(point);
        let error = install(&mut disk, &request(&assets, layout, Treatment::Zero)).await.unwrap_err();
        assert!(matches!(error, InstallError::Disk(DiskError::Write { .. } | DiskError::Flush { .. })), "{error:?}");
        let mut disk = disk.after_power_cut(some(point));

        let left = names(&disk);
        let is_system = left.iter().any(|name| name == Label::Meta.name());
        let is_unfinished = left.iter().any(|name| layout::unfinished_label(name).is_some());
        // All of it, or nothing that would be taken for a system disk.
        assert!(
            if is_system { left == finished } else { left.is_empty() || is_unfinished },
            "cut at {point}: {left:?}"
        );
        if is_unfinished && !is_system {
            assert!(says_why(&disk) || point < 5000 || point > total - 70, "cut at {point}");
        }
        // It can be installed again without wiping.
        install(&mut disk, &request(&assets, layout, Treatment::Force)).await.unwrap();
        assert_eq!(names(&disk), finished, "cut at {point}");
    }
}

#[tokio::test]
async fn an_installation_with_grub_survives_cuts_anywhere() {
    cut_everywhere(Layout::Grub, 3).await;
}

#[tokio::test]
async fn an_installation_for_uefi_survives_cuts_anywhere() {
    cut_everywhere(Layout::Uki, 3).await;
}
