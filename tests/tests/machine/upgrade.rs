//! A version must earn its slot: upgrades of an installed machine, and what becomes of versions that do not work.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use tests::support::run;

use crate::assets::Assets;
use crate::cuts::an_empty_file;
use crate::install::{DISK, Generated, INSTALL, generate};
use crate::registry::Registry;
use crate::vm::{BOOT, Firmware, HOST, Setup, Vm};

/// What is wrong with a version.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// Nothing.
    None,
    /// Half of its kernel.
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
}

impl Fault {
    const fn name(self) -> &'static str {
        match self {
            Self::None => "good",
            Self::Kernel => "kernel",
            Self::Initramfs => "initramfs",
            Self::Root => "root",
            Self::Machined => "machined",
            Self::Crash => "crash",
            Self::Hang => "hang",
        }
    }
}

/// The faults whose versions are tried on both firmwares, and the one without.
const VERSIONS: [Fault; 6] = [Fault::None, Fault::Kernel, Fault::Initramfs, Fault::Root, Fault::Machined, Fault::Crash];

/// Instructions of a program that crashes, and of one that waits for ever.
const UD2: [u8; 2] = [0x0f, 0x0b];
const PAUSE: [u8; 9] = [0xb8, 34, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7];

/// A registry for each version.
struct Versions(Vec<(Fault, Registry)>);

impl Versions {
    fn serve(assets: &Assets, faults: &[Fault]) -> anyhow::Result<Self> {
        let serve = |fault: Fault| -> anyhow::Result<(Fault, Registry)> {
            let layout = assets.installer_of(fault.name(), &broken_assets(assets, fault)?)?;
            // The name of an image is in the index alone.
            let index = layout.join("index.json");
            let text = std::fs::read_to_string(&index)?;
            std::fs::write(&index, text.replace("ghcr.io/", &format!("{}.test/", fault.name())))?;
            Ok((fault, Registry::start(&layout)?))
        };
        faults.iter().copied().map(serve).collect::<anyhow::Result<_>>().map(Self)
    }

    /// Where machines find them, as a patch of their configuration.
    fn mirrors(&self) -> String {
        let mirror = |(fault, registry): &(Fault, Registry)| {
            let port = registry.address.port();
            format!(r#""{}.test": {{"endpoints": ["http://{HOST}:{port}"]}}"#, fault.name())
        };
        let mirrors: Vec<String> = self.0.iter().map(mirror).collect();
        format!(r#"{{"machine": {{"registries": {{"mirrors": {{{}}}}}}}}}"#, mirrors.join(", "))
    }
}

fn reference(fault: Fault) -> String {
    format!("{}.test/siderolabs/installer:v1.7.0", fault.name())
}

/// Boot assets with a fault.
fn broken_assets(assets: &Assets, fault: Fault) -> anyhow::Result<PathBuf> {
    let folder = assets.file(&format!("assets-{}", fault.name()))?;
    std::fs::create_dir_all(&folder)?;
    let boot = assets.kernel().parent().context("boot assets without a folder")?.to_owned();
    for name in ["grub-boot.img", "grub-core.img", "systemd-boot.efi", "systemd-stub.efi", "vmlinuz", "initramfs.xz"] {
        std::fs::copy(boot.join(name), folder.join(name)).with_context(|| format!("copying {name}"))?;
    }
    let (kernel, initramfs) = (folder.join("vmlinuz"), folder.join("initramfs.xz"));
    match fault {
        Fault::None => {}
        Fault::Kernel => {
            let whole = std::fs::read(&kernel)?;
            std::fs::write(&kernel, &whole[..whole.len() / 2])?;
        }
        Fault::Initramfs => std::fs::write(&initramfs, vec![0x5a; 1 << 20])?,
        Fault::Root => std::fs::write(&initramfs, initramfs_with(&folder, &assets.initramfs(), "rm rootfs.sqsh")?)?,
        Fault::Machined | Fault::Crash | Fault::Hang => {
            // A layer over the root, with another program in place of machined.
            let layer = folder.join("layer/usr/sbin");
            std::fs::create_dir_all(&layer)?;
            let program = layer.join("init");
            match fault {
                Fault::Crash => std::fs::write(&program, elf(&UD2))?,
                Fault::Hang => std::fs::write(&program, elf(&PAUSE))?,
                _ => drop(std::fs::copy(assets.talosctl(), &program)?),
            }
            std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))?;
            let script = "mksquashfs layer 0.sqsh -quiet && printf 'layers: []\\n' > extensions.yaml && \
                          printf '0.sqsh\\nextensions.yaml\\n' | cpio --quiet -o -H newc | xz --check=crc32 >> initramfs.xz";
            shell(&folder, script)?;
        }
    }
    Ok(folder)
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

/// A machine of its own, installed.
struct Node {
    machine: Vm,
    talosconfig: PathBuf,
    _registry: Registry,
}

impl Node {
    fn install(assets: &Assets, firmware: Firmware, versions: &Versions) -> anyhow::Result<Self> {
        let registry = Registry::start(&assets.installer()?)?;
        let Generated { control_plane, talosconfig } = generate(assets, &registry, &versions.mirrors())?;
        let disk = assets.file("system.disk")?;
        an_empty_file(&disk, DISK)?;
        let setup = Setup::firmware("machine", firmware, Some(assets.disc_with_a_source()?))
            .with_disk(&disk)
            .with_disc(&assets.disc_with_configuration(&control_plane)?);
        let mut machine = Vm::start(assets, &setup)?;
        machine.is_installed(&talosconfig, INSTALL)?;
        Ok(Self { machine, talosconfig, _registry: registry })
    }

    fn call(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.machine.talosctl(&self.talosconfig, arguments)?.ok()
    }

    /// Upgrades, and waits for the end of the trial: its phase, and what runs then.
    fn upgrade(&mut self, version: Fault, more: &[&str]) -> anyhow::Result<Trial> {
        let before = self.machine.boot_id(&self.talosconfig)?;
        let arguments = ["upgrade", "--image", &reference(version), "--wait=false", "--preserve"];
        self.call(&[arguments.as_slice(), more].concat())?;
        self.machine.is_up_again(&self.talosconfig, &before)?;
        self.trial()
    }

    fn trial(&mut self) -> anyhow::Result<Trial> {
        let talosconfig = self.talosconfig.clone();
        self.machine.until("the end of the trial", BOOT, |machine| {
            let text = machine.talosctl(&talosconfig, &["get", "upgradetrial", "--output", "yaml"])?.ok()?;
            // The metadata has a phase as well.
            let (_, spec) = text.split_once("spec:").context("a trial without content")?;
            let value = |name: &str| {
                let line = spec.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(':'));
                line.unwrap_or_default().trim().trim_matches('"').to_owned()
            };
            ensure!(["good", "failed"].contains(&value("phase").as_str()), "the trial:\n{text}");
            Ok(Trial { phase: value("phase"), slot: value("slot"), running: value("running"), reason: value("reason") })
        })
    }
}

#[derive(Debug)]
struct Trial {
    phase: String,
    slot: String,
    running: String,
    reason: String,
}

impl Trial {
    fn is_good(&self) -> anyhow::Result<()> {
        ensure!(self.phase == "good" && self.running == self.slot, "{self:?}");
        Ok(())
    }

    fn has_failed(&self, reason: &str) -> anyhow::Result<()> {
        ensure!(self.phase == "failed" && self.running != self.slot && self.reason.contains(reason), "{self:?}");
        Ok(())
    }
}

/// To the other slot, back on request, and to versions that cannot start, which lose their slot without help.
pub(crate) fn a_version_earns_its_slot_by_bios(assets: &Assets) -> anyhow::Result<()> {
    earns_its_slot(assets, Firmware::Bios)
}

pub(crate) fn a_version_earns_its_slot_by_uefi(assets: &Assets) -> anyhow::Result<()> {
    earns_its_slot(assets, Firmware::Uefi)
}

fn earns_its_slot(assets: &Assets, firmware: Firmware) -> anyhow::Result<()> {
    let versions = Versions::serve(assets, &VERSIONS)?;
    let mut node = Node::install(assets, firmware, &versions)?;
    let first = node.upgrade(Fault::None, &[]).context("an upgrade")?;
    first.is_good()?;
    let before = node.machine.boot_id(&node.talosconfig)?;
    node.call(&["rollback"])?;
    node.machine.is_up_again(&node.talosconfig, &before).context("after a rollback")?;
    let back = node.trial()?;
    ensure!(back.running != first.running, "the rollback led to the same version: {back:?}");
    for fault in VERSIONS.into_iter().skip(1) {
        let failed = node.upgrade(fault, &[]).with_context(|| format!("an upgrade to a bad {}", fault.name()))?;
        failed.has_failed("did not start").with_context(|| fault.name())?;
    }
    let refused = node.machine.talosctl(&node.talosconfig, &["rollback"])?.refused()?;
    ensure!(refused.contains("has failed its trial"), "a rollback to a version that failed: {refused}");
    let again = node.upgrade(Fault::None, &["--reboot-mode", "powercycle"]).context("after bad versions")?;
    again.is_good()
}

/// The short form: to the other slot, back on request, and back without help from a version that does not start. The others are
/// run by name.
pub(crate) fn an_upgrade_earns_its_slot_and_a_bad_one_loses_it(assets: &Assets) -> anyhow::Result<()> {
    let versions = Versions::serve(assets, &[Fault::None, Fault::Initramfs])?;
    let mut node = Node::install(assets, Firmware::Uefi, &versions)?;
    let first = node.upgrade(Fault::None, &[]).context("an upgrade")?;
    first.is_good()?;
    let failed = node.upgrade(Fault::Initramfs, &[]).context("an upgrade to a bad initramfs")?;
    failed.has_failed("did not start")?;
    ensure!(failed.running == first.slot, "it came back to another version: {failed:?}");
    Ok(())
}

/// Nobody is there but init's guard.
pub(crate) fn a_version_that_hangs_loses_its_slot(assets: &Assets) -> anyhow::Result<()> {
    let versions = Versions::serve(assets, &[Fault::Hang])?;
    let mut node = Node::install(assets, Firmware::Bios, &versions)?;
    node.upgrade(Fault::Hang, &[])?.has_failed("did not start")
}
