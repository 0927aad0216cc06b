//! Disks beside the system disk: a plain one, and software RAID, whole and without one of its disks.

use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use tests::support::eventually;

use crate::assets::Assets;
use crate::cuts::an_empty_file;
use crate::install::write_at;
use crate::vm::{BOOT, Setup, Vm};

const SIZE: u64 = 128 << 20;
const SECTOR: u64 = 512;
/// Where the disks are mounted, by their names.
const MOUNTED: [&str; 3] = ["/var/mnt/plain", "/var/mnt/whole", "/var/mnt/half"];

/// The disks of `machine.disks`.
#[derive(Debug)]
pub(crate) struct UserDisks {
    plain: PathBuf,
    members: Vec<PathBuf>,
}

impl UserDisks {
    /// What the configuration says of them.
    pub(crate) const PATCH: &str = r#"{"machine": {"disks": [
        {"device": "/dev/disk/by-id/virtio-disk-1", "partitions": [{"mountpoint": "/var/mnt/plain", "size": "64MiB"}]},
        {"device": "/dev/md/whole", "partitions": [{"mountpoint": "/var/mnt/whole"}]},
        {"device": "/dev/md/half", "partitions": [{"mountpoint": "/var/mnt/half"}]}]}}"#;

    /// An empty disk, both disks of a mirror, and one of another mirror.
    pub(crate) fn make(assets: &Assets) -> anyhow::Result<Self> {
        let disk = |name: &str| -> anyhow::Result<PathBuf> {
            let path = assets.file(&format!("{name}.disk"))?;
            an_empty_file(&path, SIZE)?;
            Ok(path)
        };
        let member = |mirror: &str, number: u8| -> anyhow::Result<PathBuf> {
            let path = disk(&format!("{mirror}-{number}"))?;
            write_at(&path, SUPERBLOCK, &member_of_a_mirror(mirror, number))?;
            Ok(path)
        };
        Ok(Self { plain: disk("plain")?, members: vec![member("whole", 0)?, member("whole", 1)?, member("half", 1)?] })
    }

    pub(crate) fn attach(&self, setup: Setup) -> Setup {
        let drive = |path: &PathBuf| format!("format=raw,cache=unsafe,file={}", path.display());
        let setup = setup.with_drive(&drive(&self.plain), "");
        self.members.iter().fold(setup, |setup, member| setup.with_drive(&drive(member), ""))
    }

    /// Waits until all are mounted; the identities of their file systems.
    pub(crate) fn are_mounted(machine: &mut Vm, talosconfig: &std::path::Path) -> anyhow::Result<Vec<String>> {
        eventually("user disks that are mounted", BOOT, || {
            let mounts = machine.talosctl(talosconfig, &["read", "/proc/mounts"])?.ok()?;
            let sources: Vec<&str> = MOUNTED
                .iter()
                .map(|target| mounts.lines().find(|line| line.split(' ').nth(1) == Some(target)))
                .map(|line| line.and_then(|line| line.split(' ').next()).and_then(|path| path.strip_prefix("/dev/")))
                .collect::<Option<_>>()
                .with_context(|| format!("a user disk is not mounted:\n{mounts}"))?;
            ensure!(sources[1].starts_with("md") && sources[2].starts_with("md"), "{sources:?}");
            let uuid = |source: &&str| -> anyhow::Result<String> {
                let volume = ["get", "discoveredvolumes", source, "--output", "jsonpath={.spec.uuid}"];
                let uuid = machine.talosctl(talosconfig, &volume)?.ok()?.trim().to_owned();
                ensure!(!uuid.is_empty(), "{source} has no UUID");
                Ok(uuid)
            };
            sources.iter().map(uuid).collect()
        })
    }
}

/// Where the superblock of version 1.2 is.
const SUPERBLOCK: u64 = 4096;

/// The superblock of a disk in a mirror of two that is in order (Linux, include/uapi/linux/raid/md_p.h).
fn member_of_a_mirror(name: &str, number: u8) -> Vec<u8> {
    const LENGTH: usize = 256 + 2 * 2;
    const DATA: u64 = 2048;
    let size = SIZE / SECTOR - DATA;
    let mut block = vec![0; LENGTH];
    let mut put = |offset: usize, bytes: &[u8]| block[offset..offset + bytes.len()].copy_from_slice(bytes);
    put(0, &0xa92b_4efc_u32.to_le_bytes());
    put(4, &1_u32.to_le_bytes());
    // The array's identity, and its name with that of the host that made it.
    put(16, &[name.bytes().next().unwrap_or_default(); 16]);
    put(32, format!("elsewhere:{name}").as_bytes());
    put(72, &1_u32.to_le_bytes());
    put(80, &size.to_le_bytes());
    put(92, &2_u32.to_le_bytes());
    put(128, &DATA.to_le_bytes());
    put(136, &size.to_le_bytes());
    put(144, &(SUPERBLOCK / SECTOR).to_le_bytes());
    put(160, &u32::from(number).to_le_bytes());
    put(168, &[0x10 + number; 16]);
    put(200, &1_u64.to_le_bytes());
    // All is in sync.
    put(208, &u64::MAX.to_le_bytes());
    put(220, &2_u32.to_le_bytes());
    put(256, &[0, 0, 1, 0]);
    let words = block.chunks(4).map(|word| u64::from(u32::from_le_bytes([word[0], word[1], word[2], word[3]])));
    let sum = words.sum::<u64>();
    let folded = (sum & 0xffff_ffff) + (sum >> 32);
    block[216..220].copy_from_slice(&u32::try_from(folded & 0xffff_ffff).unwrap_or_default().to_le_bytes());
    block
}
