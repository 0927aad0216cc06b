//! GRUB's start code: the boot sector in the MBR, and the core image in the BIOS partition.
//!
//! Both are files of GRUB (`boot.img`, and what `grub-mkimage -O i386-pc` makes); where the core image lies on the disk has to be
//! written into them. That is what `grub-install` does as well, which needs privileges and a mounted disk for it.

/// Place of the core image's first sector in the boot sector.
const KERNEL_SECTOR: usize = 0x5c;
/// Place of a jump that trusts the drive number of the BIOS; two no-ops there make it 0x80 if the BIOS gives no disk's.
const DRIVE_CHECK: usize = 0x66;
/// Place of the list in the first sector of the core image that says where its rest is.
const BLOCK_LIST: usize = 512 - 12;

/// Start code that is not GRUB's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StartCodeError {
    #[error("the boot sector is not 512 bytes with a boot signature")]
    BootSector,
    #[error("the core image has {bytes} bytes; the BIOS partition has room for {room}")]
    CoreSize { bytes: usize, room: u64 },
    #[error("the core image says that it has {listed} sectors behind its first one; it has {actual}")]
    CoreSectors { listed: u16, actual: usize },
}

/// Boot code for the MBR that loads the core image from `core_sector`.
///
/// # Errors
/// `BootSector` for anything but a boot sector.
pub fn boot_sector(boot_image: &[u8], core_sector: u64) -> Result<[u8; 440], StartCodeError> {
    if boot_image.len() != 512 || boot_image[510..] != [0x55, 0xaa] {
        return Err(StartCodeError::BootSector);
    }
    let mut code = [0; 440];
    code.copy_from_slice(&boot_image[..440]);
    code[KERNEL_SECTOR..KERNEL_SECTOR + 8].copy_from_slice(&core_sector.to_le_bytes());
    code[DRIVE_CHECK..DRIVE_CHECK + 2].fill(0x90);
    Ok(code)
}

/// The core image for a partition that starts at `first_sector` (of 512 bytes, as the BIOS counts) and has `room` bytes.
///
/// # Errors
/// An image that is too large, or whose first sector does not describe the others.
pub fn core_image(core: &[u8], first_sector: u64, room: u64) -> Result<Vec<u8>, StartCodeError> {
    let size_error = StartCodeError::CoreSize { bytes: core.len(), room };
    if core.len() < 1024 || core.len() as u64 > room {
        return Err(size_error);
    }
    let mut image = core.to_vec();
    image.resize(core.len().next_multiple_of(512), 0);
    let rest = image.len() / 512 - 1;
    let list = &mut image[BLOCK_LIST..512];
    let listed = u16::from_le_bytes([list[8], list[9]]);
    if usize::from(listed) != rest {
        return Err(StartCodeError::CoreSectors { listed, actual: rest });
    }
    list[..8].copy_from_slice(&first_sector.saturating_add(1).to_le_bytes());
    Ok(image)
}

/// Where boot code of ours loads the core image from, in sectors of 512 bytes; none for other code.
#[must_use]
pub fn core_sector(boot_code: &[u8]) -> Option<u64> {
    let sector = boot_code.get(KERNEL_SECTOR..KERNEL_SECTOR + 8)?;
    // GRUB's boot sector begins like this.
    boot_code.starts_with(&[0xeb, 0x63, 0x90]).then(|| u64::from_le_bytes(sector.try_into().unwrap_or_default()))
}

/// The half of the BIOS partition that holds no core image which boot code loads: its first sector (of 512 bytes), and its bytes.
/// A new core image goes there, and starts the machine once the boot code, which is one sector, names it.
#[must_use]
pub fn free_half(current: Option<u64>, first_sector: u64, bytes: u64) -> (u64, u64) {
    let half = bytes / 2 / 512;
    let is_first = current.is_none_or(|current| current >= first_sector + half);
    (if is_first { first_sector } else { first_sector + half }, half * 512)
}

/// Boot code that prints that an installation was cut off, and gives the next device its turn, which may be the medium to
/// install from again: for disks on which one has begun.
#[must_use]
pub fn interrupted() -> Vec<u8> {
    // 16-bit code at 0000:7c00: prints the text behind it by the BIOS (int 10h, function 0eh), then tells the BIOS that this
    // device does not boot (int 18h). One that comes back from that halts.
    const CODE: [u8; 33] = [
        0xfa, // cli
        0x31, 0xc0, // xor ax, ax
        0x31, 0xdb, // xor bx, bx: the first page of the screen
        0x8e, 0xd8, // mov ds, ax
        0x8e, 0xd0, // mov ss, ax
        0xbc, 0x00, 0x7c, // mov sp, 7c00h
        0xfc, // cld
        0xbe, 0x21, 0x7c, // mov si, 7c21h: the text
        0xac, // next: lodsb
        0x84, 0xc0, // test al, al
        0x74, 0x06, // jz end
        0xb4, 0x0e, // mov ah, 0eh
        0xcd, 0x10, // int 10h
        0xeb, 0xf5, // jmp next
        0xfb, // end: sti
        0xcd, 0x18, // int 18h
        0xf4, // halt: hlt
        0xeb, 0xfd, // jmp halt
    ];
    let text = "The installation on this disk was cut off before it was finished, so that it cannot boot. \
                Start the installation medium and install again.\r\nTrying the next device.\r\n\0";
    let mut code = CODE.to_vec();
    code.extend_from_slice(text.as_bytes());
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_sector_knows_where_the_core_image_is() {
        let mut sector = [1; 512];
        assert_eq!(boot_sector(&sector, 5), Err(StartCodeError::BootSector));
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
        let code = boot_sector(&sector, 0x0102_0304).unwrap();
        assert_eq!(code[0x5c..0x64], [4, 3, 2, 1, 0, 0, 0, 0]);
        assert_eq!(code[0x66..0x68], [0x90, 0x90]);
        assert_eq!(code[0x68], 1);
    }

    #[test]
    fn a_new_core_image_has_the_half_that_is_not_loaded() {
        let mut boot = [0; 512];
        boot[..3].copy_from_slice(&[0xeb, 0x63, 0x90]);
        boot[510..].copy_from_slice(&[0x55, 0xaa]);
        let loaded = |sector| core_sector(&boot_sector(&boot, sector).unwrap());
        assert_eq!((loaded(2048), loaded(3072), core_sector(&[0; 440])), (Some(2048), Some(3072), None));
        let half = 512 << 10;
        assert_eq!(free_half(Some(2048), 2048, 1 << 20), (3072, half));
        assert_eq!(free_half(Some(3072), 2048, 1 << 20), (2048, half));
        assert_eq!(free_half(None, 2048, 1 << 20), (2048, half));
    }

    #[test]
    fn the_core_image_knows_where_its_rest_is() {
        let mut core = vec![0; 1400];
        core[BLOCK_LIST + 8] = 2;
        let image = core_image(&core, 2048, 1 << 20).unwrap();
        assert_eq!((image.len(), &image[BLOCK_LIST..BLOCK_LIST + 8]), (1536, &2049u64.to_le_bytes()[..]));
        assert_eq!(core_image(&core, 2048, 1024), Err(StartCodeError::CoreSize { bytes: 1400, room: 1024 }));
        core[BLOCK_LIST + 8] = 9;
        assert_eq!(core_image(&core, 2048, 1 << 20), Err(StartCodeError::CoreSectors { listed: 9, actual: 2 }));
    }

    #[test]
    fn the_code_of_an_interrupted_installation_fits_its_place_and_finds_its_text() {
        let code = interrupted();
        assert!(code.len() <= crate::gpt::BOOT_CODE_SIZE, "{}", code.len());
        // The address that is loaded into SI.
        let text = usize::from(u16::from_le_bytes([code[14], code[15]])) - 0x7c00;
        assert_eq!((code[text - 1], &code[text..text + 3]), (0xfd, &b"The"[..]));
        assert_eq!(code.last(), Some(&0));
    }
}
