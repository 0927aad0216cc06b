//! Brings the boot loader of an installed machine up to date. Its old files start both versions until the new ones are whole.

use std::path::Path;

use block::disk::TargetDisk;
use block::exchange::{Replaced, replace};
use block::{FileSystems as _, KernelFileSystems, MountPlan, ProjectQuota};
use machine::gpt::Partition;
use machine::grub;
use machine::layout::Label;
use machine::loader;

use crate::{Assets, InstallError, assets};

/// Bytes of the MBR before what belongs to its partition table.
const BOOT_CODE: usize = 440;

/// The boot code that the disk has.
pub(crate) fn boot_code(disk: &dyn TargetDisk) -> Result<Vec<u8>, InstallError> {
    let mut mbr = vec![0; usize::try_from(disk.disk().geometry.sector_size()).unwrap_or_default()];
    disk.read_at(0, &mut mbr)?;
    mbr.truncate(BOOT_CODE);
    Ok(mbr)
}

/// Writes GRUB's core image to the half of the partition that is not in use, then the boot code that loads it: one sector, which a
/// disk writes as a whole or not at all.
pub(crate) fn grub(disk: &mut dyn TargetDisk, assets: &Assets, bios: &Partition) -> Result<Replaced, InstallError> {
    let geometry = disk.disk().geometry;
    let mut mbr = vec![0; usize::try_from(geometry.sector_size()).unwrap_or_default()];
    disk.read_at(0, &mut mbr)?;
    let (boot, core) = (assets::read_small(&assets.grub_boot)?, assets::read_small(&assets.grub_core)?);
    let (first, bytes) = (bios.offset(geometry) / 512, bios.size(geometry));
    let current = grub::core_sector(&mbr);
    if let Some(sector) = current {
        let image = grub::core_image(&core, sector, bytes)?;
        let mut there = vec![0; image.len()];
        // Boot code of another disk may name any place.
        let end = sector.checked_mul(512).and_then(|at| at.checked_add(image.len() as u64));
        let is_inside = sector >= first && end.is_some_and(|end| end <= first * 512 + bytes);
        if is_inside {
            disk.read_at(sector * 512, &mut there)?;
        }
        if is_inside && there == image && mbr[..BOOT_CODE] == grub::boot_sector(&boot, sector)? {
            return Ok(Replaced::Unchanged);
        }
    }
    let (sector, room) = grub::free_half(current, first, bytes);
    let image = grub::core_image(&core, sector, room)?;
    disk.write_at(sector * 512, &image)?;
    disk.flush()?;
    mbr[..BOOT_CODE].copy_from_slice(&grub::boot_sector(&boot, sector)?);
    disk.write_at(0, &mbr)?;
    disk.flush()?;
    Ok(Replaced::Yes)
}

/// Replaces the file of systemd-boot on the device of EFI.
pub(crate) async fn systemd_boot(device: &Path, assets: &Assets, scratch: &Path) -> Result<Replaced, InstallError> {
    let filesystems = KernelFileSystems;
    let root = scratch.join("efi");
    let content = assets::read_small(&assets.systemd_boot)?;
    let mut plan = MountPlan::xfs(device, &root, ProjectQuota::Off);
    plan.kind = "vfat";
    filesystems.mount(&plan).await?;
    let path = root.join(loader::REMOVABLE_PATH);
    let replaced = tokio::task::spawn_blocking(move || replace(&path, &content)).await;
    filesystems.unmount(&root).await?;
    Ok(replaced.map_err(|_| InstallError::Plan(Label::Efi))??)
}

#[cfg(test)]
mod tests {
    use block::disk::testing::FakeDisk;
    use machine::gpt::Guid;
    use machine::layout::{self, EPHEMERAL_MINIMUM, Layout};

    use super::*;

    /// Start code of GRUB whose core image has `byte` everywhere, and `sectors` of 512 bytes.
    fn start_code(folder: &Path, byte: u8, sectors: u16) -> Assets {
        let mut boot = vec![byte; 512];
        boot[..3].copy_from_slice(&[0xeb, 0x63, 0x90]);
        boot[510..].copy_from_slice(&[0x55, 0xaa]);
        let mut core = vec![byte; usize::from(sectors) * 512];
        core[508..510].copy_from_slice(&(sectors - 1).to_le_bytes());
        std::fs::write(folder.join("grub-boot.img"), boot).unwrap();
        std::fs::write(folder.join("grub-core.img"), core).unwrap();
        Assets::below(folder)
    }

    fn bios() -> Partition {
        let geometry = FakeDisk::new(3 << 30).disk().geometry;
        let mut id = 0;
        let new_id = || {
            id += 1;
            Guid::from_bytes([id; 16])
        };
        let table = layout::table(Layout::Grub, geometry, 0, EPHEMERAL_MINIMUM, new_id).unwrap();
        table.by_name("BIOS").unwrap().clone()
    }

    /// The byte of the boot code, and that of the core image that it loads, which is whole.
    fn starts(disk: &FakeDisk) -> (u8, u8) {
        let code = boot_code(disk).unwrap();
        let sector = grub::core_sector(&code).unwrap();
        let mut core = vec![0; 8 * 512];
        disk.read_at(sector * 512, &mut core).unwrap();
        assert_eq!(core[500..508], (sector + 1).to_le_bytes());
        assert!(core[512..].iter().all(|byte| *byte == core[0]), "a mixture");
        (code[200], core[0])
    }

    #[test]
    fn a_power_cut_leaves_start_code_of_one_version() {
        let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (old, new) = (start_code(old.path(), 1, 8), start_code(new.path(), 2, 8));
        let bios = bios();
        let mut installed = FakeDisk::new(3 << 30);
        // What belongs to the partition table.
        installed.write_at(0, &[9; 512]).unwrap();
        assert_eq!(grub(&mut installed, &old, &bios).unwrap(), Replaced::Yes);
        assert_eq!(starts(&installed), (1, 1));
        let before = installed.written;
        assert_eq!(grub(&mut installed, &old, &bios).unwrap(), Replaced::Unchanged);
        assert_eq!(installed.written, before);
        let mut seen = std::collections::BTreeSet::new();
        // Eight sectors and one. A disk without power flushes nothing.
        for power in 0..=10 {
            for kept in 0..4 {
                let mut disk = installed.clone().failing_after(power);
                let ended = grub(&mut disk, &new, &bios);
                let disk = disk.after_power_cut(|write| write % 4 < kept);
                seen.insert(starts(&disk));
                assert_eq!(ended.is_ok(), power == 10);
                assert!(power < 10 || starts(&disk) == (2, 2));
                let mut mbr = [0; 512];
                disk.read_at(0, &mut mbr).unwrap();
                assert_eq!(mbr[BOOT_CODE..], [9; 72]);
            }
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [(1, 1), (2, 2)]);
        // And back to the first half.
        grub(&mut installed, &new, &bios).unwrap();
        assert_eq!(
            grub::core_sector(&boot_code(&installed).unwrap()),
            Some(bios.offset(installed.disk().geometry) / 512 + 1024)
        );
        grub(&mut installed, &old, &bios).unwrap();
        assert_eq!(starts(&installed), (1, 1));
    }

    #[test]
    fn a_core_image_that_is_larger_than_a_half_is_refused_before_anything_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let large = start_code(folder.path(), 1, 1025);
        let mut disk = FakeDisk::new(3 << 30);
        let error = grub(&mut disk, &large, &bios()).unwrap_err();
        assert!(matches!(error, InstallError::StartCode(_)), "{error:?}");
        assert_eq!(disk.written, 0);
    }
}
