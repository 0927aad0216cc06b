//! Disks beside the system disk: a plain one, software RAID, whole and without one of its disks, and a volume of LVM; disks that
//! are pulled out, that fail, and that a reset wipes.

mod lvm;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use tests::support::eventually;

use crate::assets::Assets;
use crate::cuts::an_empty_file;
use crate::install::{generate, write_at};
use crate::registry::Registry;
use crate::vm::{BOOT, Firmware, Setup, Vm};

const SIZE: u64 = 128 << 20;
const SECTOR: u64 = 512;
/// Where the disks are mounted, by their names.
const MOUNTED: [&str; 3] = ["/var/mnt/plain", "/var/mnt/whole", "/var/mnt/half"];

/// The plain disk as a device of QEMU, with the serial that the harness gives it, and the port that it is in.
const PLAIN: &str = "plain";
const SERIAL: &str = "disk-1";
const PORT: &str = "disk-port";
const PORT_DEVICE: &str = "pcie-root-port,id=disk-port,chassis=1";
/// The disk with the volume group, by its place.
const GROUP: &str = "/dev/disk/by-id/virtio-disk-5";

/// The disks of `machine.disks`.
#[derive(Debug)]
pub(crate) struct UserDisks {
    plain: PathBuf,
    members: Vec<PathBuf>,
    /// A disk with a volume group.
    group: PathBuf,
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
        let group = disk("group")?;
        for (offset, bytes) in lvm::a_group_with_a_volume(SIZE) {
            write_at(&group, offset, &bytes)?;
        }
        let members = vec![member("whole", 0)?, member("whole", 1)?, member("half", 1)?];
        Ok(Self { plain: disk("plain")?, members, group })
    }

    pub(crate) fn attach(&self, setup: Setup) -> Setup {
        self.attach_with(setup, "")
    }

    /// The same with the plain disk in a port that it can be pulled out of, and the disk with the volume group.
    fn attach_all(&self, setup: Setup) -> Setup {
        let mut setup = self.attach_with(setup, &format!(",id={PLAIN},bus={PORT}"));
        setup.devices.push(PORT_DEVICE);
        setup.with_disk(&self.group)
    }

    fn attach_with(&self, setup: Setup, plain: &str) -> Setup {
        let drive = |path: &Path| format!("format=raw,cache=unsafe,file={}", path.display());
        let setup = setup.with_drive(&drive(&self.plain), plain);
        self.members.iter().fold(setup, |setup, member| setup.with_disk(member))
    }

    /// Waits until all are mounted; the identities of their file systems.
    pub(crate) fn are_mounted(machine: &mut Vm, talosconfig: &Path) -> anyhow::Result<Vec<String>> {
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

    /// The plain disk is pulled out, put back as one that fails, and put back whole; at last a reset wipes the volume group.
    fn live_through_faults(&self, machine: &mut Vm, talosconfig: &Path, uuid: &str) -> anyhow::Result<()> {
        machine.until("an active volume of LVM", BOOT, |machine| {
            let mapped = machine.talosctl(talosconfig, &["list", "/dev/mapper"])?.ok()?;
            ensure!(mapped.contains("group-volume"), "{mapped}");
            Ok(())
        })?;
        let is = |machine: &mut Vm, parts: &[&str]| -> anyhow::Result<String> {
            machine.until(&format!("a disk with {parts:?}"), BOOT, |machine| {
                let status = ["get", "userdiskstatus", MOUNTED[0], "--output", "yaml"];
                let status = machine.talosctl(talosconfig, &status)?.ok()?;
                ensure!(parts.iter().all(|part| status.contains(part)), "{status}");
                Ok(status)
            })
        };
        is(machine, &["phase: mounted", uuid, "remounts: 0"])?;
        machine.pull(PLAIN)?;
        is(machine, &["phase: lost", "there is no disk /dev/disk/by-id/virtio-disk-1"])?;
        machine.says("user disk is not in order", BOOT)?;

        let file = format!(r#"{{"driver": "file", "filename": "{}"}}"#, self.plain.display());
        let fault = r#"{"event": "none", "iotype": "write", "errno": 5}"#;
        let failing = format!(
            r#"{{"driver": "raw", "node-name": "failing", "file":
                {{"driver": "blkdebug", "image": {file}, "inject-error": [{fault}]}}}}"#
        );
        machine.plug([PLAIN, PORT, SERIAL], &failing.replace('\n', " "))?;
        is(machine, &["phase: failed", "it cannot be mounted again"])?;
        let mounts = machine.talosctl(talosconfig, &["read", "/proc/mounts"])?.ok()?;
        ensure!(mounts.lines().any(|line| line.starts_with("unavailable /var/mnt/plain tmpfs ro")), "{mounts}");
        machine.pull(PLAIN)?;
        machine.let_go("failing")?;
        is(machine, &["phase: lost"])?;

        let sound = format!(r#"{{"driver": "raw", "node-name": "sound", "file": {file}}}"#);
        machine.plug([PLAIN, PORT, SERIAL], &sound)?;
        is(machine, &["phase: mounted", uuid, "remounts: 1"])?;

        let before = machine.boot_id(talosconfig)?;
        let disks = ["--wipe-mode", "user-disks", "--user-disks-to-wipe", GROUP];
        let reset = ["reset", "--graceful=false", "--reboot", "--wait=false"];
        machine.talosctl(talosconfig, &[reset.as_slice(), &disks].concat())?.ok()?;
        machine.is_up_again(talosconfig, &before).context("after a reset of a user disk")?;
        let head = std::fs::read(&self.group)?;
        ensure!(head.iter().take(1 << 20).all(|byte| *byte == 0), "the volume group is still there");
        is(machine, &["phase: mounted", uuid, "remounts: 0"]).context("the other disk").map(drop)
    }
}

/// Disks of users that are lost, fail, and come back, and what a reset makes of them.
pub(crate) fn user_disks_are_lost_and_found(assets: &Assets) -> anyhow::Result<()> {
    let disk = assets.disk_of_image("system.disk")?;
    let registry = Registry::start(&assets.installer()?)?;
    let generated = generate(assets, &registry, UserDisks::PATCH)?;
    let disks = UserDisks::make(assets)?;
    let setup = disks.attach_all(Setup::firmware("machine", Firmware::Bios, None).with_disk(&disk));
    let mut machine = Vm::start(assets, &setup)?;
    machine.is_in_maintenance()?;
    let configuration = generated.control_plane.display().to_string();
    machine.talosctl_insecure(&["apply-config", "--file", &configuration])?.ok()?;
    let talosconfig = &generated.talosconfig;
    machine.is_up(talosconfig, BOOT)?;
    let made = UserDisks::are_mounted(&mut machine, talosconfig)?;
    disks.live_through_faults(&mut machine, talosconfig, &made[0])
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
