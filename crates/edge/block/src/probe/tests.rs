use std::fs::File;
use std::path::Path;

use proptest::prelude::*;
use sys::process::Command;

use super::*;

const MIB: u64 = 1 << 20;

async fn run(program: &str, args: &[&str]) -> String {
    let command = Command::new(program).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").args(args.iter().copied());
    command.run().await.unwrap_or_else(|error| panic!("{}", stdx::error_chain(&error)))
}

/// What is recognized on a file of this many MiB after the program made it.
async fn made_by(mib: u64, program: &str, args: &[&str]) -> Content {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    File::create(&path).unwrap().set_len(mib * MIB).unwrap();
    let args: Vec<&str> =
        args.iter().copied().map(|arg| if arg == "IMAGE" { path.to_str().unwrap() } else { arg }).collect();
    run(program, &args).await;
    read(&path).unwrap_or_else(|| panic!("nothing of {program} is recognized"))
}

fn read(path: &Path) -> Option<Content> {
    let mut file = File::open(path).unwrap();
    let size = file.metadata().unwrap().len();
    probe(&mut file, size).unwrap()
}

const UUID: &str = "0e3d9b3a-5b1e-4b8e-9d57-0c2d4b6a8f10";

#[tokio::test]
async fn xfs_as_its_tool_makes_it() {
    let args = ["-q", "-m", &format!("uuid={UUID}"), "-n", "ftype=1", "-L", "EPHEMERAL", "IMAGE"];
    let found = made_by(320, "mkfs.xfs", &args).await;
    assert_eq!((found.name, found.label.as_str(), found.uuid.as_str()), ("xfs", "EPHEMERAL", UUID));
    assert_eq!((found.block_size, found.filesystem_block_size), (512, 4096));
    assert!(found.size > 200 * MIB && found.size < 320 * MIB, "without the log: {}", found.size);
}

#[tokio::test]
async fn ext4_as_its_tool_makes_it() {
    let found = made_by(16, "mkfs.ext4", &["-q", "-b", "1024", "-U", UUID, "-L", "data", "IMAGE"]).await;
    let expected = Content {
        name: "extfs",
        label: "data".into(),
        uuid: UUID.into(),
        block_size: 1024,
        filesystem_block_size: 1024,
        size: 16 * MIB,
    };
    assert_eq!(found, expected);
}

#[tokio::test]
async fn vfat_of_both_widths_as_its_tool_makes_it() {
    for (width, mib) in [("32", 100), ("16", 16), ("12", 2)] {
        let found = made_by(mib, "mkfs.vfat", &["-F", width, "-n", "EFI", "-i", "1A2B3C4D", "IMAGE"]).await;
        assert_eq!((found.name, found.label.as_str(), found.uuid.as_str()), ("vfat", "EFI", "1A2B-3C4D"), "FAT{width}");
        assert_eq!((found.block_size, found.size), (512, mib * MIB), "FAT{width}");
    }
    assert_eq!(made_by(2, "mkfs.vfat", &["IMAGE"]).await.label, "", "NO NAME is no name");
}

#[tokio::test]
async fn swap_as_its_tool_makes_it() {
    let found = made_by(1, "mkswap", &["-U", UUID, "-L", "swap0", "IMAGE"]).await;
    assert_eq!((found.name, found.label.as_str(), found.uuid.as_str()), ("swap", "swap0", UUID));
    assert_eq!(found.block_size, 4096);
}

#[tokio::test]
async fn squashfs_and_iso9660_as_their_tools_make_them() {
    let dir = tempfile::tempdir().unwrap();
    let content = dir.path().join("content");
    std::fs::create_dir(&content).unwrap();
    std::fs::write(content.join("config.yaml"), "version: v1alpha1\n").unwrap();
    let (content, squashfs, iso) = (content.to_str().unwrap(), dir.path().join("s"), dir.path().join("i"));
    run("mksquashfs", &[content, squashfs.to_str().unwrap(), "-quiet", "-no-progress"]).await;
    let found = read(&squashfs).unwrap();
    assert_eq!((found.name, found.block_size), ("squashfs", 131_072));
    let args = ["-as", "mkisofs", "-quiet", "-V", "metal-iso", "-o", iso.to_str().unwrap(), content];
    run("xorriso", &args).await;
    let found = read(&iso).unwrap();
    assert_eq!((found.name, found.label.as_str(), found.block_size), ("iso9660", "metal-iso", 2048));
    assert!(found.size >= 34 * 2048 && found.size <= std::fs::metadata(&iso).unwrap().len(), "{}", found.size);
}

/// A head with these bytes at these places.
fn head(parts: &[(usize, &[u8])]) -> Vec<u8> {
    let mut head = vec![0; HEAD];
    for (at, bytes) in parts {
        head[*at..at + bytes.len()].copy_from_slice(bytes);
    }
    head
}

#[test]
fn volumes_are_recognized_by_their_headers() {
    let luks = head(&[(0, b"LUKS\xba\xbe\0\x02"), (24, b"STATE"), (168, UUID.as_bytes())]);
    let found = probe_head(&luks).unwrap();
    assert_eq!((found.name, found.label.as_str(), found.uuid.as_str()), ("luks", "STATE", UUID));
    assert_eq!(probe_head(&head(&[(0, b"LUKS\xba\xbe\0\x03")])), None, "a version that nobody knows");

    let id = b"abcdefGHIJ0123456789KLMNopqrst12";
    let lvm = head(&[(512, b"LABELONE"), (512 + 20, &[32, 0, 0, 0]), (512 + 24, b"LVM2 001"), (544, id)]);
    let found = probe_head(&lvm).unwrap();
    assert_eq!((found.name, found.uuid.as_str()), ("lvm2-pv", "abcdef-GHIJ-0123-4567-89KL-MNop-qrst12"));

    let bluestore = head(&[(0, b"bluestore block device\n"), (23, UUID.as_bytes())]);
    let found = probe_head(&bluestore).unwrap();
    assert_eq!((found.name, found.uuid.as_str()), ("bluestore", UUID));

    let raid = head(&[(4096, &[0xfc, 0x4e, 0x2b, 0xa9, 1, 0, 0, 0]), (4096 + 32, b"host:0")]);
    assert_eq!(probe_head(&raid).map(|found| (found.name, found.label)), Some(("linux-raid", "host:0".to_owned())));

    assert_eq!(probe_head(&machine::meta::Meta::default().encode_copy()).unwrap().name, "talosmeta");
    assert_eq!(probe_head(&head(&[(130 * 1024, &0x00ba_b10c_u64.to_be_bytes())])).unwrap().name, "zfs");
}

#[test]
fn a_disk_with_an_old_partition_table_is_not_empty_and_a_blank_one_is() {
    let entry = [0x80, 0, 0, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 16, 0, 0];
    assert_eq!(probe_head(&head(&[(446, &entry), (510, &[0x55, 0xaa])])).unwrap().name, "dos");
    assert_eq!(probe_head(&head(&[(510, &[0x55, 0xaa])])), None);
    assert_eq!(probe_head(&head(&[])), None);
    assert_eq!(probe_head(&[]), None);
}

#[test]
fn labels_reach_no_terminal_unfiltered() {
    let luks = head(&[(0, b"LUKS\xba\xbe\0\x02"), (24, b"a\x1b[2J\xff b  ")]);
    assert_eq!(probe_head(&luks).unwrap().label, "a[2J\u{fffd} b");
}

/// Places and bytes of all signatures.
const SIGNATURES: &[(usize, &[u8])] = &[
    (0, b"XFSB"),
    (1080, &[0x53, 0xef]),
    (65600, b"_BHRfS_M"),
    (0, b"hsqs"),
    (4086, b"SWAPSPACE2"),
    (65526, b"SWAP-SPACE"),
    (32769, b"CD001"),
    (3, b"EXFAT   "),
    (3, b"NTFS    "),
    (510, &[0x55, 0xaa]),
    (82, b"FAT"),
    (54, b"FAT"),
    (0, b"LUKS\xba\xbe"),
    (0, b"LABELONE"),
    (24, b"LVM2 001"),
    (0, b"bluestore block device\n"),
    (4096, &[0xfc, 0x4e, 0x2b, 0xa9, 1, 0, 0, 0]),
    (131_072, &[0x0c, 0xb1, 0xba, 0]),
    (0, &[0x5a, 0x4b, 0x3c, 0x2d]),
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_bytes_behind_a_signature_are_fatal(
        signature in prop::sample::select(SIGNATURES),
        noise in prop::collection::vec(any::<u8>(), 2048),
        at in prop::sample::select(&[0_usize, 1024, 4096, 32768, 65536][..]),
        length in prop::sample::select(&[0_usize, 90, 512, 4096, 65700, HEAD][..]),
    ) {
        let mut head = head(&[(at, &noise), signature]);
        head.truncate(length);
        if let Some(content) = probe_head(&head) {
            prop_assert!(content.label.chars().count() <= LABEL && content.uuid.len() <= 40);
            prop_assert!(!content.label.chars().any(char::is_control));
        }
    }
}
