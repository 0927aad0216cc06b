use super::*;

const MIB: u64 = 1 << 20;

fn file(path: &str, source: &Path, mode: u32) -> NewFile {
    NewFile { path: path.into(), source: source.into(), mode }
}

fn sized(directory: &Path, name: &str, bytes: u64) -> PathBuf {
    let path = directory.join(name);
    std::fs::File::create(&path).unwrap().set_len(bytes).unwrap();
    path
}

#[test]
fn a_prototype_is_a_tree() {
    let files = [file("A/vmlinuz", Path::new("/k"), 0o644), file("grub/grub.cfg", Path::new("/c"), 0o600)];
    let expected = "/dev/null\n0 0\nd--755 0 0\nA d--755 0 0\nvmlinuz ---644 0 0 /k\n$\nEFI d--755 0 0\n$\n\
                    grub d--755 0 0\ngrub.cfg ---600 0 0 /c\n$\n$\n";
    assert_eq!(xfs_prototype(&["EFI"], &files).unwrap(), expected);
    let refused = xfs_prototype(&[], &[file("a b", Path::new("/k"), 0o644)]);
    assert!(matches!(refused, Err(FormatError::Name { .. })), "{refused:?}");
    let refused = xfs_prototype(&[], &[file("a", Path::new("/k l"), 0o644)]);
    assert!(matches!(refused, Err(FormatError::Name { .. })), "{refused:?}");
}

#[test]
fn paths_that_mean_something_else_are_refused() {
    for path in ["../a", "a//b", "", "-rf", "a:b", "a*", "a\nb", "/a"] {
        assert!(matches!(check_path(path), Err(FormatError::Name { .. })), "{path:?}");
    }
    check_path("EFI/Linux/Talos-v1.7.0+2-1.efi").unwrap();
}

#[tokio::test]
async fn files_are_put_on_a_new_xfs_without_mounting_it() {
    let directory = tempfile::tempdir().unwrap();
    let device = sized(directory.path(), "boot", 400 * MIB);
    let content = directory.path().join("content");
    std::fs::write(&content, vec![7; 100_000]).unwrap();
    let prototype = directory.path().join("prototype");
    write_xfs_prototype(&prototype, &["EFI"], &[file("A/vmlinuz", &content, 0o644)]).unwrap();
    Tools::default().make_xfs(&device, "BOOT", Some(&prototype)).await.unwrap();
    let bytes = std::fs::read(&device).unwrap();
    // Signature and label of the superblock.
    assert_eq!((&bytes[..4], &bytes[108..112]), (&b"XFSB"[..], &b"BOOT"[..]));
    assert!(bytes.chunks(4096).filter(|block| block.starts_with(&[7; 64])).count() >= 100_000 / 4096);
}

#[tokio::test]
async fn files_of_a_vfat_are_copied_listed_renamed_and_removed() {
    let directory = tempfile::tempdir().unwrap();
    let device = sized(directory.path(), "efi", 100 * MIB);
    let content = directory.path().join("content");
    std::fs::write(&content, b"image").unwrap();
    let tools = Tools { epoch: Some(1_700_000_000), ..Tools::default() };
    tools.make_vfat(&device, "EFI").await.unwrap();
    let path = "EFI/Linux/Talos-v1.7.0+3.efi";
    for _ in 0..2 {
        tools.copy_to_vfat(&device, &[file(path, &content, 0o644)]).await.unwrap();
    }
    assert_eq!(tools.list_vfat(&device, "EFI/Linux").await.unwrap(), ["Talos-v1.7.0+3.efi"]);
    tools.rename_in_vfat(&device, path, "Talos-v1.7.0.efi").await.unwrap();
    assert_eq!(tools.list_vfat(&device, "EFI/Linux").await.unwrap(), ["Talos-v1.7.0.efi"]);
    tools.remove_from_vfat(&device, "EFI/Linux/Talos-v1.7.0.efi").await.unwrap();
    assert_eq!(tools.list_vfat(&device, "EFI/Linux").await.unwrap(), [""; 0]);
    let absent = tools.remove_from_vfat(&device, "EFI/Linux/Talos-v1.7.0.efi").await;
    assert!(matches!(absent, Err(FormatError::Tool { program: "mdel", .. })), "{absent:?}");
}

#[tokio::test]
async fn an_error_shows_what_the_tool_wrote() {
    let result = Tools::default().make_xfs(Path::new("/dev/null"), "BOOT", None).await;
    let Err(FormatError::Tool { program: "mkfs.xfs", output, .. }) = result else { panic!("{result:?}") };
    assert!(!output.is_empty());
}
