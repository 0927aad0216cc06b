//! Files of an installer image that are small, and requests to install them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use block::disk::TargetDisk;
use block::format::Tools;
use installer::{Assets, InstallError, Request};
use machine::gpt::{Guid, ProtectiveEntry};
use machine::install::{Contents, Options, State, Treatment};
use machine::layout::Layout;
use stdx::Secret;

pub(crate) const GIB: u64 = 1 << 30;

/// Sizes of the fields of a PE32+ program that have to be right.
fn stub() -> Vec<u8> {
    let mut bytes = vec![0; 1024];
    bytes[..2].copy_from_slice(b"MZ");
    bytes[0x3c] = 0x80;
    bytes[0x80..0x84].copy_from_slice(b"PE\0\0");
    bytes[0x86] = 1;
    bytes[0x94] = 112;
    let optional = 0x98;
    bytes[optional..optional + 2].copy_from_slice(&0x20bu16.to_le_bytes());
    for (place, value) in [(32, 4096u32), (36, 512), (56, 8192), (60, 1024)] {
        bytes[optional + place..optional + place + 4].copy_from_slice(&value.to_le_bytes());
    }
    bytes
}

fn core() -> Vec<u8> {
    let mut core = vec![0x42; 4096];
    core[508..510].copy_from_slice(&7u16.to_le_bytes());
    core
}

fn boot() -> Vec<u8> {
    let mut boot = vec![0x43; 512];
    boot[510..].copy_from_slice(&[0x55, 0xaa]);
    boot
}

fn kernel() -> Vec<u8> {
    let mut kernel = vec![0x4b; 200_000];
    // It has what its head says: 76 sectors, and so many units of 16 bytes.
    kernel[0x1f4..0x1f8].copy_from_slice(&10_068_u32.to_le_bytes());
    kernel[0x202..0x206].copy_from_slice(b"HdrS");
    kernel[0x20e..0x210].copy_from_slice(&0x100_u16.to_le_bytes());
    kernel[0x300..0x30c].copy_from_slice(b"6.12.0 (x@y)");
    kernel
}

/// Writes the files below a directory.
pub(crate) fn assets(directory: &Path) -> Assets {
    let files: [(&str, Vec<u8>); 6] = [
        ("vmlinuz", kernel()),
        ("initramfs.xz", vec![0x49; 300_000]),
        ("systemd-stub.efi", stub()),
        ("systemd-boot.efi", vec![0x53; 10_000]),
        ("grub-boot.img", boot()),
        ("grub-core.img", core()),
    ];
    for (name, content) in files {
        std::fs::write(directory.join(name), content).unwrap();
    }
    Assets::below(directory)
}

pub(crate) const CONFIGURATION: &[u8] = b"version: v1alpha1 # of this machine\n";

/// A request to install, with a configuration for STATE.
pub(crate) fn request(assets: &Assets, layout: Layout, treatment: Treatment) -> Request {
    Request {
        options: Options { state: State::Configuration, ..Options::new(layout, treatment) },
        assets: assets.clone(),
        version: "v1.7.0".into(),
        cmdline: "talos.platform=metal".into(),
        entry: ProtectiveEntry::Inactive,
        meta: BTreeMap::from([(10, b"value".to_vec())]),
        configuration: Secret::new(CONFIGURATION.to_vec()),
        tools: Tools::default(),
        variables: None,
        booted_slot: None,
    }
}

/// Installs, and returns the lines of progress.
pub(crate) async fn install(disk: &mut dyn TargetDisk, request: &Request) -> Result<Vec<String>, InstallError> {
    let scratch = tempfile::tempdir().unwrap();
    let lines = parking_lot::Mutex::new(Vec::new());
    let progress = |line: &str| lines.lock().push(line.to_owned());
    let mut next = 0;
    let ids = move || {
        next += 1;
        Guid::from_random([next; 16])
    };
    installer::install(disk, request, scratch.path(), ids, &progress).await?;
    Ok(lines.into_inner())
}

/// Names of the partitions of a disk; none without a table.
pub(crate) fn names(disk: &dyn TargetDisk) -> Vec<String> {
    match block::disk::contents(disk).unwrap() {
        Contents::Table(table) => table.partitions.into_iter().map(|partition| partition.name).collect(),
        _ => Vec::new(),
    }
}

/// The bytes of a partition in a file of its own.
pub(crate) fn extract(disk: &dyn TargetDisk, name: &str, directory: &Path) -> PathBuf {
    let Contents::Table(table) = block::disk::contents(disk).unwrap() else { panic!("no table") };
    let partition = table.by_name(name).unwrap();
    let mut bytes = vec![0; usize::try_from(partition.size(table.geometry)).unwrap()];
    disk.read_at(partition.offset(table.geometry), &mut bytes).unwrap();
    let path = directory.join(format!("{name}.extracted"));
    std::fs::write(&path, bytes).unwrap();
    path
}
