//! What an installation leaves on a disk.

use block::disk::testing::FakeDisk;
use block::disk::{ImageFile, TargetDisk};
use block::format::Tools;
use installer::InstallError;
use machine::gpt::ProtectiveEntry;
use machine::install::{Contents, Refusal, Treatment};
use machine::layout::{Label, Layout};
use machine::meta::Meta;

use crate::support::{CONFIGURATION, GIB, assets, extract, install, names, request};

#[tokio::test]
async fn a_disk_image_has_both_boot_loaders() {
    let directory = tempfile::tempdir().unwrap();
    let assets = assets(directory.path());
    let mut image = ImageFile::create(&directory.path().join("disk"), 3 * GIB).unwrap();
    let lines = install(&mut image, &request(&assets, Layout::Both, Treatment::Zero)).await.unwrap();
    assert!(lines.contains(&"making the file system of BOOT".to_owned()), "{lines:?}");
    assert_eq!(names(&image), ["EFI", "BIOS", "BOOT", "META", "STATE", "EPHEMERAL"]);

    let efi = extract(&image, "EFI", directory.path());
    let tools = Tools::default();
    assert_eq!(tools.list_vfat(&efi, "EFI/Linux").await.unwrap(), ["Talos-v1.7.0.efi"]);
    assert_eq!(tools.list_vfat(&efi, "EFI/boot").await.unwrap(), ["BOOTX64.EFI"]);
    let bytes = std::fs::read(&efi).unwrap();
    // Its sections are those of images that boot without an installation.
    for text in [".osrel\0\0", ".uname\0\0", "6.12.0\0", &machine::uki::os_release("v1.7.0")] {
        assert!(bytes.windows(text.len()).any(|window| window == text.as_bytes()), "{text:?}");
    }
    let mut mbr = [0; 512];
    image.read_at(0, &mut mbr).unwrap();
    // GRUB's boot sector, with the first sector of the partition BIOS.
    assert_eq!((mbr[0], &mbr[0x5c..0x64]), (0x43, &(1102u64 * 2048).to_le_bytes()[..]));
    let meta = std::fs::read(extract(&image, "META", directory.path())).unwrap();
    assert_eq!(Meta::parse(&meta).meta.get(10), Some(&b"value"[..]));
    assert!(holds(&image, "BOOT", b"menuentry \"A - Talos v1.7.0\" --id A {") && holds(&image, "BOOT", &[0x49; 4096]));
    assert!(holds(&image, "BOOT", b"# GRUB Environment Block\ndefault_slot=A\nnext_slot=\n#"));
    assert!(holds(&image, "STATE", CONFIGURATION));
}

/// Whether a file on an XFS begins like this: files begin with a block of the file system.
fn holds(disk: &dyn TargetDisk, partition: &str, start: &[u8]) -> bool {
    let directory = tempfile::tempdir().unwrap();
    let bytes = std::fs::read(extract(disk, partition, directory.path())).unwrap();
    bytes.starts_with(b"XFSB") && bytes.chunks(4096).any(|block| block.starts_with(start))
}

#[tokio::test]
async fn an_installation_keeps_what_the_last_one_left_in_state() {
    let directory = tempfile::tempdir().unwrap();
    let assets = assets(directory.path());
    let mut disk = FakeDisk::new(3 * GIB);
    install(&mut disk, &request(&assets, Layout::Uki, Treatment::Force)).await.unwrap();
    let state = 1103 << 20;
    disk.write_at(state, &[9; 512]).unwrap();
    install(&mut disk, &request(&assets, Layout::Uki, Treatment::Force)).await.unwrap();
    let mut kept = [0; 512];
    disk.read_at(state, &mut kept).unwrap();
    assert_eq!(kept, [9; 512]);
    install(&mut disk, &request(&assets, Layout::Uki, Treatment::Zero)).await.unwrap();
    assert!(holds(&disk, "STATE", CONFIGURATION));
}

#[tokio::test]
async fn what_is_refused_has_written_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let assets = assets(directory.path());
    let good = || request(&assets, Layout::Grub, Treatment::Force);
    let refused = async |disk: FakeDisk, request: installer::Request| {
        let mut disk = disk;
        let before = disk.written;
        let error = install(&mut disk, &request).await.unwrap_err();
        assert_eq!(disk.written, before);
        error
    };

    let small = refused(FakeDisk::new(GIB), good()).await;
    assert!(matches!(small, InstallError::Refused(Refusal::Layout { .. })), "{small:?}");

    let mut foreign = FakeDisk::new(3 * GIB);
    install(&mut foreign, &good()).await.unwrap();
    let Contents::Table(mut table) = block::disk::contents(&foreign).unwrap() else { panic!("no table") };
    table.partitions[5].name = "data".into();
    block::disk::write_table(&mut foreign, &table, ProtectiveEntry::Inactive, b"").unwrap();
    let result = refused(foreign, good()).await;
    assert!(matches!(result, InstallError::Refused(Refusal::Foreign { .. })), "{result:?}");

    let mut arm = good();
    (arm.options.image, arm.options.machine) = ("arm64".into(), "arm64".into());
    let result = refused(FakeDisk::new(3 * GIB), arm).await;
    assert!(matches!(result, InstallError::Kernel { found: "amd64", .. }), "{result:?}");

    let mut long = good();
    long.cmdline = "a".repeat(machine::cmdline::KERNEL_LIMIT - 20);
    let result = refused(FakeDisk::new(3 * GIB), long).await;
    assert!(matches!(result, InstallError::CommandLine(_)), "{result:?}");

    std::fs::remove_file(&assets.grub_core).unwrap();
    let result = refused(FakeDisk::new(3 * GIB), good()).await;
    assert!(matches!(result, InstallError::Asset { .. }), "{result:?}");
    std::fs::write(&assets.grub_core, vec![0; 2 << 20]).unwrap();
    let result = refused(FakeDisk::new(3 * GIB), good()).await;
    assert!(matches!(result, InstallError::StartCode(_)), "{result:?}");

    std::fs::File::create(&assets.initramfs).unwrap().set_len(2 * GIB).unwrap();
    let result = refused(FakeDisk::new(3 * GIB), good()).await;
    assert!(matches!(result, InstallError::NoRoom { label: Label::Boot, .. }), "{result:?}");
}
