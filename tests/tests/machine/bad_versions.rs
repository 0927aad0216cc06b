//! Versions that do not work: each loses its slot without anybody's help, and the former version says why.
//!
//! An upgrade is performed once, and the machine is stopped at the reset that would begin the trial. Its disk is then what the
//! installer and the machine leave; each check has a copy of it, in which the files of the new version are those of a bad one. So
//! the bad versions share one installation and one upgrade, and each costs two starts of a machine.

use std::fs::OpenOptions;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use machine::meta::{Meta, SECOND_COPY, tag};
use machine::trial::{Check, Record};
use parking_lot::Mutex;
use tests::support::{Clock, run, say};

use crate::assets::Assets;
use crate::install::{Shared, copy_disk, installed_by_uefi, xfs_with_label};
use crate::upgrade::{IMAGE, Trial};
use crate::upgrade_cuts::upgraded;
use crate::vm::{BOOT, Firmware, Setup, Vm};

/// What is wrong with a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Half of the file that the boot loader starts: its kernel, or the image with it. A whole image of half a kernel is refused by
    /// the installer.
    Kernel,
    /// An initramfs that is none.
    Initramfs,
    /// An initramfs without the root file system.
    Root,
    /// A machined that ends at once.
    Machined,
    /// One that crashes.
    Crash,
    /// One that does nothing.
    Hang,
    /// An apid that does nothing.
    Api,
    /// A kubelet that does not get Ready, where it was before: here by the word of the trial's record, as no cluster is at hand.
    Kubelet,
}

/// The bad versions that end within a few seconds after their start.
const QUICK: [Fault; 3] = [Fault::Kernel, Fault::Initramfs, Fault::Machined];
const ALL: [Fault; 8] = [
    Fault::Kernel,
    Fault::Initramfs,
    Fault::Root,
    Fault::Machined,
    Fault::Crash,
    Fault::Api,
    Fault::Kubelet,
    Fault::Hang,
];
/// What GRUB and the kernel that it starts make of a version. Above that nothing depends on the firmware.
const BY_GRUB: [Fault; 3] = [Fault::Kernel, Fault::Initramfs, Fault::Root];

/// From the start of a bad version to the API of the former one: the longest is one that hangs, which has five minutes, or does not
/// show what it has to within [`crate::install::LIMIT`].
const RETURN: Duration = Duration::from_secs(BOOT.as_secs() * 2);

/// Instructions of a program that crashes, and of one that waits for ever.
const UD2: [u8; 2] = [0x0f, 0x0b];
const PAUSE: [u8; 9] = [0xb8, 34, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7];

impl Fault {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Initramfs => "initramfs",
            Self::Root => "root",
            Self::Machined => "machined",
            Self::Crash => "crash",
            Self::Hang => "hang",
            Self::Api => "api",
            Self::Kubelet => "kubelet",
        }
    }

    /// What the reason of the failure has.
    const fn reason(self) -> &'static str {
        match self {
            Self::Api => "api: service apid is not healthy",
            Self::Kubelet => "kubelet: service kubelet is not healthy",
            _ => "did not start",
        }
    }
}

/// Makes the files of a version with a fault in a folder: its boot assets.
pub(crate) fn boot_assets(assets: &Assets, fault: Fault) -> anyhow::Result<PathBuf> {
    let folder = assets.file(&format!("assets-{}", fault.name()))?;
    std::fs::create_dir_all(&folder)?;
    let boot = assets.kernel().parent().context("boot assets without a folder")?.to_owned();
    for name in ["grub-boot.img", "grub-core.img", "systemd-boot.efi", "systemd-stub.efi", "vmlinuz", "initramfs.xz"] {
        std::fs::copy(boot.join(name), folder.join(name)).with_context(|| format!("copying {name}"))?;
    }
    let initramfs = folder.join("initramfs.xz");
    match fault {
        // Of the file in the slot.
        Fault::Kernel => {}
        Fault::Initramfs => std::fs::write(&initramfs, vec![0x5a; 1 << 20])?,
        Fault::Root => std::fs::write(&initramfs, initramfs_with(&folder, &assets.initramfs(), "rm rootfs.sqsh")?)?,
        Fault::Machined => {
            // It ends because it knows no such arguments.
            let talosctl = std::fs::read(assets.talosctl())?;
            another_program(&folder, "usr/sbin/init", &talosctl)?;
        }
        Fault::Crash => another_program(&folder, "usr/sbin/init", &elf(&UD2))?,
        Fault::Hang => another_program(&folder, "usr/sbin/init", &elf(&PAUSE))?,
        Fault::Api => another_program(&folder, "usr/bin/apid", &elf(&PAUSE))?,
        Fault::Kubelet => {}
    }
    Ok(folder)
}

/// A layer over the root, with another program in place of one of its own.
fn another_program(folder: &Path, path: &str, program: &[u8]) -> anyhow::Result<()> {
    let path = folder.join("layer").join(path);
    std::fs::create_dir_all(path.parent().context("a program without a folder")?)?;
    std::fs::write(&path, program)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    let script = "mksquashfs layer 0.sqsh -quiet -all-root && printf 'layers: []\\n' > extensions.yaml && \
                  printf '0.sqsh\\nextensions.yaml\\n' | cpio --quiet -o -H newc | xz --check=crc32 >> initramfs.xz";
    shell(folder, script)
}

/// A static program of these instructions.
fn elf(code: &[u8]) -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    let size = HEADERS + code.len() as u64;
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    // An executable for x86-64; one program header after this one; no sections.
    for half in [2_u16, 62] {
        file.extend(half.to_le_bytes());
    }
    file.extend(1_u32.to_le_bytes());
    for word in [BASE + HEADERS, 64, 0] {
        file.extend(word.to_le_bytes());
    }
    file.extend(0_u32.to_le_bytes());
    for half in [64_u16, 56, 1, 0, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    // All of the file, to be read and executed.
    for half in [1_u32, 5] {
        file.extend(half.to_le_bytes());
    }
    for word in [0, BASE, BASE, size, size, 0x1000] {
        file.extend(word.to_le_bytes());
    }
    file.extend(code);
    file
}

/// The initramfs after a script has changed its files.
fn initramfs_with(folder: &Path, initramfs: &Path, script: &str) -> anyhow::Result<Vec<u8>> {
    let tree = folder.join("tree");
    std::fs::create_dir_all(&tree)?;
    let initramfs = initramfs.display();
    let all = format!(
        "xz -dc {initramfs} | cpio --quiet -id && {script} && find . | cpio --quiet -o -H newc | xz -0 --check=crc32 > ../new.xz"
    );
    shell(&tree, &all)?;
    Ok(std::fs::read(folder.join("new.xz"))?)
}

fn shell(folder: &Path, script: &str) -> anyhow::Result<()> {
    let script = format!("set -e; cd {}; {script}", folder.display());
    run(Path::new("sh"), &["-c", &script])?.ok().map(drop)
}

/// A machine that was upgraded, and stopped before the new version was started for the first time.
#[derive(Debug)]
struct Armed {
    firmware: Firmware,
    disk: PathBuf,
    /// Of the firmware, on UEFI.
    variables: Option<PathBuf>,
    talosconfig: PathBuf,
    /// Arguments of the version's kernel.
    cmdline: String,
}

static BY_UEFI: Shared<Armed> = Mutex::new(None);
static BY_BIOS: Shared<Armed> = Mutex::new(None);

impl Armed {
    fn by_uefi(assets: &Assets) -> anyhow::Result<Arc<Self>> {
        crate::install::once(&BY_UEFI, || {
            let installed = installed_by_uefi(assets)?;
            let (disk, variables) = (assets.file("armed.disk")?, assets.file("armed.vars")?);
            copy_disk(&installed.disk, &disk)?;
            std::fs::copy(&installed.variables, &variables)?;
            let talosconfig = installed.generated.talosconfig.clone();
            let mut machine = Vm::start(assets, &Setup::firmware("armed", Firmware::Uefi, None).with_disk(&disk))?;
            machine.is_up(&talosconfig, BOOT)?;
            let cmdline = machine.talosctl(&talosconfig, &["read", "/proc/cmdline"])?.ok()?.trim().to_owned();
            machine.ends_at_its_next_reset()?;
            let upgrade = ["upgrade", "--image", IMAGE, "--preserve", "--wait=false"];
            machine.talosctl(&talosconfig, &upgrade)?.ok()?;
            machine.is_off().context("the reset that begins the trial")?;
            Ok(Self { firmware: Firmware::Uefi, disk, variables: Some(variables), talosconfig, cmdline })
        })
    }

    /// Of the recorded upgrade: the disk as it is when GRUB has forgotten that it starts the new version once.
    fn by_bios(assets: &Assets) -> anyhow::Result<Arc<Self>> {
        crate::install::once(&BY_BIOS, || {
            let upgraded = upgraded(assets)?;
            let disk = assets.file("armed.disk")?;
            upgraded.cut(&disk, upgraded.started, 1)?;
            let talosconfig = upgraded.generated.talosconfig.clone();
            Ok(Self { firmware: Firmware::Bios, disk, variables: None, talosconfig, cmdline: String::new() })
        })
    }

    /// Starts the new version with a fault, and waits until the former one has told why it runs again.
    fn comes_back(&self, assets: &Assets, fault: Fault) -> anyhow::Result<()> {
        let disk = assets.file("system.disk")?;
        copy_disk(&self.disk, &disk)?;
        if let Some(variables) = &self.variables {
            std::fs::copy(variables, assets.file("machine.vars")?)?;
        }
        let folder = boot_assets(assets, fault)?;
        match self.firmware {
            Firmware::Uefi => self.replace_image(&folder, fault, &disk)?,
            Firmware::Bios => replace_slot(&folder, fault, &disk, assets)?,
        }
        if fault == Fault::Kubelet {
            has_to_show(&disk, Check::Kubelet)?;
        }
        std::fs::remove_dir_all(folder)?;
        let mut machine = Vm::start(assets, &Setup::firmware("machine", self.firmware, None).with_disk(&disk))?;
        let trial = machine.until("the end of the trial", RETURN, |machine| {
            let trial = Trial::of(machine, &self.talosconfig)?.context("no trial")?;
            // The version that failed may still tell it.
            ensure!(trial.has_ended() && trial.running == trial.former_slot, "{trial:?}");
            Ok(trial)
        })?;
        trial.has_failed(fault.reason())?;
        tells_it(&mut machine, &self.talosconfig, &trial.reason)?;
        machine.cut_power();
        Ok(std::fs::remove_file(disk)?)
    }

    /// The installer's image of the version, with other content.
    fn replace_image(&self, folder: &Path, fault: Fault, disk: &Path) -> anyhow::Result<()> {
        let image = folder.join("image.efi");
        let [stub, kernel, initramfs] = ["systemd-stub.efi", "vmlinuz", "initramfs.xz"].map(|name| folder.join(name));
        let parts = installer::uki::Parts {
            stub: &stub,
            kernel: &kernel,
            initramfs: &initramfs,
            version: "v1.7.0",
            cmdline: &self.cmdline,
        };
        installer::uki::build(parts, &image)?;
        if fault == Fault::Kernel {
            halve(&image)?;
        }
        let efi = format!("{}@@1M", disk.display());
        let files = run(Path::new("mdir"), &["-i", &efi, "-b", "::EFI/Linux"])?.ok().context("mtools")?;
        let counted: Vec<&str> = files.lines().filter(|file| file.contains('+')).collect();
        ensure!(counted.len() == 1, "not one image on trial: {files}");
        run(Path::new("mcopy"), &["-i", &efi, "-o", &image.display().to_string(), counted[0].trim()])?.ok().map(drop)
    }
}

fn halve(path: &Path) -> anyhow::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    Ok(file.set_len(file.metadata()?.len() / 2)?)
}

/// The files of slot B with other content, in their place: none of them is longer than what it replaces. Nothing is mounted.
fn replace_slot(folder: &Path, fault: Fault, disk: &Path, assets: &Assets) -> anyhow::Result<()> {
    const BOOT_MIB: u64 = 1000;
    if fault == Fault::Kernel {
        halve(&folder.join("vmlinuz"))?;
    }
    let file = OpenOptions::new().read(true).write(true).open(disk)?;
    let start = xfs_with_label(&file, "BOOT")?;
    let part = assets.file("boot.xfs")?;
    let (from, to, skip) =
        (format!("if={}", disk.display()), format!("of={}", part.display()), format!("skip={}", start >> 20));
    let count = format!("count={BOOT_MIB}");
    let copy = [from.as_str(), &to, "bs=1M", &skip, &count, "conv=sparse", "status=none"];
    run(Path::new("dd"), &copy)?.ok()?;
    let image = OpenOptions::new().read(true).write(true).open(&part)?;
    for name in ["vmlinuz", "initramfs.xz"] {
        let content = std::fs::read(folder.join(name))?;
        let path = format!("/B/{name}");
        let mut rest = content.as_slice();
        for (offset, length) in extents(&part, &path)? {
            let (now, later) = rest.split_at(rest.len().min(usize::try_from(length)?));
            image.write_all_at(now, offset)?;
            rest = later;
        }
        ensure!(rest.is_empty(), "{name} is longer than the file in its place");
        let (go, size) = (format!("path {path}"), format!("write core.size {}", content.len()));
        let commands = ["-x", "-f", "-c", &go, "-c", &size, &part.display().to_string()];
        run(Path::new("xfs_db"), &commands)?.ok()?;
    }
    // What has changed.
    let (mut old, mut new) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    for at in (0..BOOT_MIB << 20).step_by(1 << 20) {
        file.read_exact_at(&mut old, start + at)?;
        image.read_exact_at(&mut new, at).context("the partition BOOT is smaller than it should be")?;
        if old != new {
            file.write_all_at(&new, start + at)?;
        }
    }
    Ok(std::fs::remove_file(part)?)
}

/// Where a file of an XFS lies in its image: offsets and lengths in bytes.
fn extents(image: &Path, path: &str) -> anyhow::Result<Vec<(u64, u64)>> {
    const BLOCK: u64 = 4096;
    let (image, go) = (image.display().to_string(), format!("path {path}"));
    let commands = ["-r", "-f", "-c", "sb 0", "-c", "p agblocks", "-c", &go, "-c", "bmap", &image];
    let text = run(Path::new("xfs_db"), &commands)?.ok().context("xfs_db (Debian's package xfsprogs)")?;
    let blocks = text.lines().find_map(|line| line.strip_prefix("agblocks = ")?.trim().parse::<u64>().ok());
    let blocks = blocks.with_context(|| format!("no agblocks in {text}"))?;
    // data offset 0 startblock 1234 (0/1234) count 56 flag 0
    let extent = |line: &str| {
        let (_, place) = line.split_once('(')?;
        let (place, rest) = place.split_once(')')?;
        let (group, block) = place.split_once('/')?;
        let count = rest.split_whitespace().nth(1)?;
        let [group, block, count] = [group, block, count].map(|number| number.parse::<u64>().ok());
        Some(((group? * blocks + block?) * BLOCK, count? * BLOCK))
    };
    let extents: Vec<(u64, u64)> = text.lines().filter_map(extent).collect();
    ensure!(!extents.is_empty(), "no extents of {path} in {text}");
    Ok(extents)
}

/// Adds a check to the record of the trial, as if it had held before the upgrade.
fn has_to_show(disk: &Path, check: Check) -> anyhow::Result<()> {
    const SIZE: usize = 1 << 20;
    let file = OpenOptions::new().read(true).write(true).open(disk)?;
    let mut partition = vec![0; SIZE];
    let mut at = 0;
    // META begins at a MiB.
    let mut meta = loop {
        file.read_exact_at(&mut partition, at).context("no partition META")?;
        let parsed = Meta::parse(&partition);
        if parsed.copies == [Ok(()); 2] {
            break parsed.meta;
        }
        at += SIZE as u64;
    };
    let mut record = Record::parse(meta.get(tag::TRIAL).context("no trial in META")?)?;
    record.checks.push(check);
    meta.set(tag::TRIAL, record.encode().as_bytes())?;
    let copy = meta.encode_copy();
    file.write_all_at(&copy, at)?;
    Ok(file.write_all_at(&copy, at + SECOND_COPY as u64)?)
}

/// An event has the reason as well.
fn tells_it(machine: &mut Vm, talosconfig: &Path, reason: &str) -> anyhow::Result<()> {
    // The command follows events until it is ended.
    const SEEN: Duration = Duration::from_secs(15);
    machine.until("an event with the reason", BOOT, |machine| {
        let events = machine.talosctl_for(SEEN, talosconfig, &["events", "--tail", "-1"])?;
        let told = events.lines().any(|line| line.contains("has lost its slot") && line.contains(reason));
        ensure!(told, "no event has the reason {reason:?}:\n{events}");
        Ok(())
    })
}

fn each_comes_back(assets: &Assets, armed: &Armed, faults: &[Fault]) -> anyhow::Result<()> {
    let mut failed = Vec::new();
    for fault in faults {
        let clock = Clock::start();
        let assets = assets.of(&format!("{:?}-{}", armed.firmware, fault.name()));
        match armed.comes_back(&assets, *fault) {
            Ok(()) => say(&format!("    a bad {}: back after {clock}", fault.name())),
            Err(error) => {
                assets.show_consoles();
                failed.push(format!("a bad {}: {error:#}", fault.name()));
            }
        }
    }
    ensure!(failed.is_empty(), "{}", failed.join("; "));
    Ok(())
}

/// The short form: what the boot loader, the kernel and the end of machined make of a version.
pub(crate) fn a_version_that_does_not_start_loses_its_slot(assets: &Assets) -> anyhow::Result<()> {
    each_comes_back(assets, &*Armed::by_uefi(assets)?, &QUICK)
}

/// Of the shared installation and upgrade, for whoever names it.
pub(crate) fn every_bad_version_loses_its_slot(assets: &Assets) -> anyhow::Result<()> {
    each_comes_back(assets, &*Armed::by_uefi(assets)?, &ALL)
}

pub(crate) fn a_version_that_grub_cannot_start_loses_its_slot(assets: &Assets) -> anyhow::Result<()> {
    each_comes_back(assets, &*Armed::by_bios(assets)?, &BY_GRUB)
}
