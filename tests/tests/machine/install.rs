//! Installation by configuration, and what a machine lives through after it.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use parking_lot::Mutex;
use tests::support::{eventually, run};
use tests::write_log::WriteLog;

use crate::assets::Assets;
use crate::cuts::{an_empty_file, is_xfs_with_label, logged};
use crate::disks::UserDisks;
use crate::files::Files;
use crate::registry::Registry;
use crate::vm::{ADDRESS, BOOT, FOR_EMULATION, Firmware, HOST, Setup, Vm};

/// Bytes of a system disk.
pub(crate) const DISK: u64 = 8 << 30;
/// From the configuration to the API of the installed system.
pub(crate) const INSTALL: Duration = Duration::from_secs(1500);

/// How long a new version may take on machines that are upgraded.
pub(crate) const LIMIT: &str = "---\napiVersion: v1alpha1\nkind: UpgradeTrialConfig\nlimit: 2m\n";

/// Something that several checks go on with, or why it could not be made; `None` as long as that was not tried.
pub(crate) type Shared<T> = Mutex<Option<Result<Arc<T>, String>>>;

/// Makes it, unless that was done.
pub(crate) fn once<T>(shared: &Shared<T>, make: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<Arc<T>> {
    let mut tried = shared.lock();
    let tried = tried.get_or_insert_with(|| make().map(Arc::new).map_err(|error| format!("{error:#}")));
    tried.clone().map_err(anyhow::Error::msg)
}

/// Copies a disk with its holes.
pub(crate) fn copy_disk(from: &Path, to: &Path) -> anyhow::Result<()> {
    let [from, to] = [from, to].map(text);
    run(Path::new("cp"), &["--sparse=always", "--reflink=auto", &from, &to])?.ok().map(drop)
}

/// A cluster's configurations and credentials.
#[derive(Debug, Clone)]
pub(crate) struct Generated {
    pub(crate) control_plane: PathBuf,
    pub(crate) talosconfig: PathBuf,
}

/// Configurations of machines that pull from `registry`, and are reached by loopback.
pub(crate) fn generate(assets: &Assets, registry: &Registry, patch: &str) -> anyhow::Result<Generated> {
    let folder = assets.file("config")?;
    let mirror = format!("http://{HOST}:{}", registry.address.port());
    let common = format!(
        r#"{{"machine": {{"certSANs": ["127.0.0.1"], "time": {{"disabled": true}},
           "install": {{"extraKernelArgs": ["{FOR_EMULATION}"]}},
           "registries": {{"mirrors": {{"ghcr.io": {{"endpoints": ["{mirror}"]}}}}}}}}}}"#
    );
    let output = folder.display().to_string();
    let endpoint = format!("https://{ADDRESS}:6443");
    let arguments = ["gen", "config", "test", &endpoint, "--output-dir", &output, "--install-disk", "/dev/vda"];
    let patches = ["--config-patch", &common, "--config-patch", patch];
    run(&assets.talosctl(), &[arguments.as_slice(), &patches].concat())?.ok().context("generating configurations")?;
    Ok(Generated { control_plane: folder.join("controlplane.yaml"), talosconfig: folder.join("talosconfig") })
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// A machine whose installation was recorded, with its power cut after that.
#[derive(Debug)]
pub(crate) struct Installed {
    pub(crate) disk: PathBuf,
    /// Every write to the disk since it was empty.
    pub(crate) log: PathBuf,
    pub(crate) generated: Generated,
    /// Machines still pull from it.
    _registry: Registry,
}

static INSTALLED: Shared<Installed> = Mutex::new(None);

/// Installs from a disc, by BIOS, unless that was done.
pub(crate) fn installed(assets: &Assets) -> anyhow::Result<Arc<Installed>> {
    once(&INSTALLED, || install(assets))
}

impl Installed {
    /// Another disk as it was when the power was cut, whatever a check has made of the first one since.
    pub(crate) fn copy_to(&self, disk: &Path) -> anyhow::Result<()> {
        an_empty_file(disk, DISK)?;
        let log = WriteLog::open(&self.log)?;
        log.cut(&OpenOptions::new().read(true).write(true).open(disk)?, log.len(), 0)
    }
}

fn install(assets: &Assets) -> anyhow::Result<Installed> {
    let registry = Registry::start(&assets.installer()?)?;
    let generated = generate(assets, &registry, "{}")?;
    let (disk, log) = (assets.file("system.disk")?, assets.file("system.log")?);
    an_empty_file(&disk, DISK)?;
    an_empty_file(&log, 0)?;
    let setup = Setup::firmware("machine", Firmware::Bios, Some(assets.disc()?)).with_drive(&logged(&disk, &log), "");
    let mut machine = Vm::start(assets, &setup)?;
    machine.is_in_maintenance()?;
    let disks = machine.talosctl_insecure(&["disks"])?.ok()?;
    ensure!(disks.contains("/dev/vda") && disks.contains("8.6 GB"), "the machine's disks:\n{disks}");
    machine.talosctl_insecure(&["apply-config", "--file", &text(&generated.control_plane)])?.ok()?;
    machine.is_installed(&generated.talosconfig, INSTALL)?;
    has_the_systems_partitions(&machine, &generated.talosconfig)?;
    machine.cut_power();
    Ok(Installed { disk, log, generated, _registry: registry })
}

fn has_the_systems_partitions(machine: &Vm, talosconfig: &Path) -> anyhow::Result<()> {
    let volumes = machine.talosctl(talosconfig, &["get", "discoveredvolumes"])?.ok()?;
    for label in ["EFI", "META", "STATE", "EPHEMERAL"] {
        ensure!(volumes.contains(label), "no partition {label} among\n{volumes}");
    }
    Ok(())
}

pub(crate) fn a_machine_installs_itself_from_a_disc_by_bios(assets: &Assets) -> anyhow::Result<()> {
    installed(assets).map(drop)
}

/// From its own disk after a power cut, by the kernel of the disk, by its firmware, through a reset, until it is off.
pub(crate) fn an_installed_machine_reboots_resets_and_powers_off(assets: &Assets) -> anyhow::Result<()> {
    let installed = installed(assets)?;
    let talosconfig = &installed.generated.talosconfig;
    let setup = Setup::firmware("machine", Firmware::Bios, None).with_disk(&installed.disk);
    let mut machine = Vm::start(assets, &setup)?;
    let first = machine.is_up(talosconfig, BOOT).context("after the power cut")?;
    machine.talosctl(talosconfig, &["meta", "write", "0x0a", "{}"])?.ok()?;
    machine.talosctl(talosconfig, &["reboot", "--wait=false"])?.ok()?;
    let second = machine.is_up_again(talosconfig, &first).context("after a reboot")?;
    ensure!(machine.console().contains("kernel loaded for kexec"), "the reboot went through the firmware");
    let meta = machine.talosctl(talosconfig, &["get", "metakeys"])?.ok()?;
    ensure!(meta.contains("0x0a"), "META has lost a value:\n{meta}");
    machine.talosctl(talosconfig, &["reboot", "--mode", "powercycle", "--wait=false"])?.ok()?;
    machine.is_up_again(talosconfig, &second).context("after a power cycle")?;
    let labels = ["--system-labels-to-wipe", "STATE,EPHEMERAL"];
    let reset = ["reset", "--graceful=false", "--reboot", "--wait=false"];
    machine.talosctl(talosconfig, &[reset.as_slice(), &labels].concat())?.ok()?;
    machine.is_in_maintenance().context("after a reset")?;
    machine.talosctl_insecure(&["apply-config", "--file", &text(&installed.generated.control_plane)])?.ok()?;
    machine.is_up(talosconfig, INSTALL).context("configured again")?;
    children_are_limited(&machine, talosconfig)?;
    machine.talosctl(talosconfig, &["shutdown", "--force", "--timeout", "10m"])?.ok()?;
    machine.is_off()?;
    damage_state(&installed.disk)?;
    keeps_to_itself(Vm::start(assets, &setup)?, &installed.generated).context("with a damaged STATE")
}

/// Services may neither load modules nor reboot, and machined may.
fn children_are_limited(machine: &Vm, talosconfig: &Path) -> anyhow::Result<()> {
    const SYS_MODULE: u32 = 16;
    const SYS_BOOT: u32 = 22;
    let processes = machine.talosctl(talosconfig, &["processes"])?.ok()?;
    let bounds = |pid: &str| -> anyhow::Result<u64> {
        let status = machine.talosctl(talosconfig, &["read", &format!("/proc/{pid}/status")])?.ok()?;
        let bounds = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).context("no line CapBnd")?;
        Ok(u64::from_str_radix(bounds.trim(), 16)?)
    };
    let both = 1 << SYS_MODULE | 1 << SYS_BOOT;
    ensure!(bounds("1")? & both == both, "machined has lost its capabilities");
    for program in ["/usr/bin/apid", "/usr/bin/trustd"] {
        let line = processes.lines().find(|line| line.contains(program));
        let pid = line.and_then(|line| line.split_whitespace().nth(1));
        let pid = pid.with_context(|| format!("no process {program} among\n{processes}"))?;
        ensure!(bounds(pid)? & both == 0, "{program} may load modules or reboot");
    }
    Ok(())
}

/// A machine whose STATE cannot be read stays up, says so, and takes no configuration: it may belong to a cluster.
fn keeps_to_itself(mut machine: Vm, generated: &Generated) -> anyhow::Result<()> {
    machine.says("maintenance mode serves nobody", BOOT)?;
    machine.says("talos.experimental.wipe=system", BOOT)?;
    let apply = ["apply-config", "--file", &text(&generated.control_plane)];
    machine.talosctl_insecure(&apply)?.refused().map(drop)
}

/// Where the file system of a partition begins.
pub(crate) fn xfs_with_label(disk: &File, label: &str) -> anyhow::Result<u64> {
    let mut at = 0;
    // Partitions begin at a MiB.
    loop {
        let mut sector = [0; 512];
        disk.read_exact_at(&mut sector, at).with_context(|| format!("no partition {label} with an XFS"))?;
        if is_xfs_with_label(&sector, label) {
            return Ok(at);
        }
        at += 1 << 20;
    }
}

/// Damages the file system of STATE so that nothing repairs it: its superblock says that it is being made, and its copies are gone.
fn damage_state(disk: &Path) -> anyhow::Result<()> {
    const BLOCK: usize = 4096;
    const IN_PROGRESS: usize = 126;
    const SIZE: usize = 100 << 20;
    let file = OpenOptions::new().read(true).write(true).open(disk)?;
    let mut bytes = vec![0; SIZE];
    let start = xfs_with_label(&file, "STATE")?;
    file.read_exact_at(&mut bytes, start)?;
    bytes[IN_PROGRESS] = 1;
    for copy in bytes.chunks_mut(BLOCK).skip(1).filter(|block| block.starts_with(b"XFSB")) {
        copy.fill(0);
    }
    Ok(file.write_all_at(&bytes, start)?)
}

/// A machine that was installed by UEFI, with its power cut after that.
#[derive(Debug)]
pub(crate) struct InstalledByUefi {
    pub(crate) disk: PathBuf,
    /// Of the firmware.
    pub(crate) variables: PathBuf,
    pub(crate) generated: Generated,
    /// With its discs, and no disk.
    from_discs: Setup,
    _registry: Registry,
}

static BY_UEFI: Shared<InstalledByUefi> = Mutex::new(None);

/// Installs from a disc, by UEFI, with the configuration on another one, unless that was done.
pub(crate) fn installed_by_uefi(assets: &Assets) -> anyhow::Result<Arc<InstalledByUefi>> {
    once(&BY_UEFI, || {
        let registry = Registry::start(&assets.installer()?)?;
        let generated = generate(assets, &registry, "{}")?;
        let configuration = std::fs::read_to_string(&generated.control_plane)?;
        std::fs::write(&generated.control_plane, format!("{}\n{LIMIT}", configuration.trim_end()))?;
        let disk = assets.file("system.disk")?;
        an_empty_file(&disk, DISK)?;
        let configuration = assets.disc_with_configuration(&generated.control_plane)?;
        let from_discs =
            Setup::firmware("machine", Firmware::Uefi, Some(assets.disc_with_a_source()?)).with_disc(&configuration);
        let mut machine = Vm::start(assets, &from_discs.clone().with_disk(&disk))?;
        machine.is_installed(&generated.talosconfig, INSTALL)?;
        has_the_systems_partitions(&machine, &generated.talosconfig)?;
        machine.cut_power();
        let variables = assets.file("installed.vars")?;
        std::fs::copy(assets.file("machine.vars")?, &variables)?;
        Ok(InstalledByUefi { disk, variables, generated, from_discs, _registry: registry })
    })
}

/// The configuration comes from a second disc, and the firmware's variables lead to the installed system.
pub(crate) fn a_machine_installs_itself_by_uefi_with_a_configuration_on_a_disc(assets: &Assets) -> anyhow::Result<()> {
    let installed = installed_by_uefi(assets)?;
    let disk = assets.file("copy.disk")?;
    copy_disk(&installed.disk, &disk)?;
    std::fs::copy(&installed.variables, assets.file("copy.vars")?)?;
    // Without the discs.
    let setup = Setup::firmware("copy", Firmware::Uefi, None).with_disk(&disk);
    let mut machine = Vm::start(assets, &setup)?;
    let talosconfig = &installed.generated.talosconfig;
    machine.is_up(talosconfig, BOOT)?;
    machine.talosctl(talosconfig, &["reset", "--graceful=false", "--reboot=false", "--timeout", "10m"])?.ok()?;
    machine.is_off()?;
    let head =
        std::fs::read(&disk).map(|image| image.get(..1 << 20).is_some_and(|head| head.iter().all(|b| *b == 0)))?;
    ensure!(head, "the disk has a partition table after its reset");
    let again = Setup { name: "copy", ..installed.from_discs.clone() }.with_disk(&disk);
    let mut machine = Vm::start(assets, &again)?;
    machine.is_installed(talosconfig, INSTALL).context("after the disk was wiped").map(drop)
}

/// The network loads kernel and initramfs, the configuration has an address, and a selector finds the disk among odd ones,
/// which keep what they have.
pub(crate) fn a_machine_of_the_network_finds_its_disk_among_odd_ones(assets: &Assets) -> anyhow::Result<()> {
    let registry = Registry::start(&assets.installer()?)?;
    let selector = r#"{"machine": {"install": {"disk": "", "diskSelector": {"serial": "disk-4"}}}}"#;
    let generated = generate(assets, &registry, selector)?;
    let files = Files::serve()?;
    files.add(&generated.control_plane)?;
    let script = network_boot(assets, &files, &format!("talos.config={}", files.url("controlplane.yaml")))?;
    let odd = OddDisks::make(assets)?;
    let system = assets.file("system.disk")?;
    an_empty_file(&system, DISK)?;
    let setup = odd.attach(Setup::network("machine", Firmware::Bios, script)).with_disk(&system);
    let mut machine = Vm::start(assets, &setup)?;
    let talosconfig = &generated.talosconfig;
    machine.is_installed(talosconfig, INSTALL)?;
    has_the_systems_partitions(&machine, talosconfig)?;
    let system = machine.talosctl(talosconfig, &["get", "systemdisk", "--output", "yaml"])?.ok()?;
    ensure!(system.contains("/dev/vde"), "the system disk is another:\n{system}");
    machine.cut_power();
    odd.are_as_before()
}

/// Serves kernel and initramfs; the address of the script that starts them with more arguments.
pub(crate) fn network_boot(assets: &Assets, files: &Files, more: &str) -> anyhow::Result<String> {
    for file in [assets.kernel(), assets.initramfs()] {
        files.add(&file)?;
    }
    let arguments = Setup::arguments_of_a_system();
    let script = format!("#!ipxe\nkernel vmlinuz initrd=initramfs.xz {arguments} {more}\ninitrd initramfs.xz\nboot\n");
    let path = assets.file("boot.ipxe")?;
    std::fs::write(&path, script)?;
    files.add(&path)?;
    Ok(files.url("boot.ipxe"))
}

/// Bytes of the smallest disk: one large sector.
const SMALL: usize = 4096;

/// Disks that are not to be touched: garbage with the signature of a partition table, a file system without a table,
/// another's volume group, and one that is too small for anything.
#[derive(Debug)]
struct OddDisks(Vec<(PathBuf, Vec<u8>)>);

impl OddDisks {
    fn make(assets: &Assets) -> anyhow::Result<Self> {
        const SIZE: u64 = 64 << 20;
        let mut disks = Vec::new();
        for (name, size) in [("table", SIZE), ("ext4", SIZE), ("lvm", SIZE), ("small", u64::try_from(SMALL)?)] {
            let path = assets.file(&format!("{name}.disk"))?;
            an_empty_file(&path, size)?;
            disks.push(path);
        }
        let mut table = vec![0; 64 << 10];
        table[510..512].copy_from_slice(&[0x55, 0xaa]);
        table[450] = 0xee;
        table[512..520].copy_from_slice(b"EFI PART");
        table[520..4096].fill(0xff);
        write_at(&disks[0], 0, &table)?;
        run(Path::new("mkfs.ext4"), &["-q", &text(&disks[1])])?.ok().context("mkfs.ext4 (package e2fsprogs)")?;
        // A label of LVM2 whose metadata is missing.
        write_at(&disks[2], 512, b"LABELONE\x01\0\0\0\0\0\0\0\xff\xff\xff\xff\x20\0\0\0LVM2 001")?;
        let all: std::io::Result<Vec<_>> =
            disks.into_iter().map(|path| Ok((path.clone(), std::fs::read(path)?))).collect();
        all.map(Self).context("reading the odd disks")
    }

    /// The last one has large sectors.
    fn attach(&self, setup: Setup) -> Setup {
        let large = ",logical_block_size=4096,physical_block_size=4096";
        let drive = |path: &Path| format!("format=raw,cache=unsafe,file={}", path.display());
        self.0.iter().fold(setup, |setup, (path, content)| {
            setup.with_drive(&drive(path), if content.len() == SMALL { large } else { "" })
        })
    }

    fn are_as_before(&self) -> anyhow::Result<()> {
        for (path, before) in &self.0 {
            ensure!(std::fs::read(path)? == *before, "{} was written to", path.display());
        }
        Ok(())
    }
}

pub(crate) fn write_at(path: &Path, offset: u64, bytes: &[u8]) -> anyhow::Result<()> {
    use std::os::unix::fs::FileExt as _;
    std::fs::OpenOptions::new().write(true).open(path)?.write_all_at(bytes, offset).context("writing an odd disk")
}

/// A disk image has the system: it is configured, and not installed. Its last partition grows to the disk. It partitions, formats
/// and mounts other disks, once.
pub(crate) fn a_disk_image_boots_grows_and_is_configured(assets: &Assets) -> anyhow::Result<()> {
    let disk = assets.file("system.qcow2")?;
    let image = text(&assets.disk_image()?);
    let create = ["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", &image, &text(&disk), "12G"];
    run(Path::new("qemu-img"), &create)?.ok().context("qemu-img (package qemu-utils)")?;
    let registry = Registry::start(&assets.installer()?)?;
    let generated = generate(assets, &registry, UserDisks::PATCH)?;
    let setup = Setup::firmware("machine", Firmware::Uefi, None)
        .with_drive(&format!("format=qcow2,cache=unsafe,file={}", disk.display()), "");
    let setup = UserDisks::make(assets)?.attach(setup);
    let mut machine = Vm::start(assets, &setup)?;
    machine.is_in_maintenance()?;
    machine.talosctl_insecure(&["apply-config", "--file", &text(&generated.control_plane)])?.ok()?;
    let talosconfig = &generated.talosconfig;
    machine.is_up(talosconfig, BOOT)?;
    eventually("EPHEMERAL that has grown", BOOT, || {
        let mounts = machine.talosctl(talosconfig, &["mounts"])?.ok()?;
        let line = mounts.lines().find(|line| line.trim_end().ends_with("/var")).context("nothing at /var")?;
        let size: f64 = line.split_whitespace().nth(2).and_then(|size| size.parse().ok()).context("no size")?;
        ensure!(size > 8.0, "EPHEMERAL has {size} GB");
        Ok(())
    })?;
    let made = UserDisks::are_mounted(&mut machine, talosconfig)?;
    ensure!(machine.console().contains("starting software RAID without"), "a mirror is whole that lacks a disk");
    machine.cut_power();
    let mut machine = Vm::start(assets, &Setup { firmware: Firmware::Bios, ..setup })?;
    machine.is_up(talosconfig, BOOT).context("by the other firmware")?;
    let found = UserDisks::are_mounted(&mut machine, talosconfig)?;
    ensure!(found == made, "file systems were made again: {made:?}, {found:?}");
    Ok(())
}

/// The kernel's arguments give the address, values of META and where the configuration is; that names a disk which is not there.
/// The machine says so, stays reachable, and installs itself when it is corrected.
pub(crate) fn a_machine_asks_with_its_identity_and_an_absent_disk_is_corrected(assets: &Assets) -> anyhow::Result<()> {
    const VARIABLES: &str = "uuid=${uuid}&serial=${serial}&mac=${mac}&hostname=${hostname}&code=${code}";
    // 0xb=the-code
    const META: &str = "talos.environment=INSTALLER_META_BASE64=MHhiPXRoZS1jb2Rl";
    const UUID: &str = "5a1e0d44-3c1f-4f0e-9e5b-0d6f6f1f2a3b";
    let registry = Registry::start(&assets.installer()?)?;
    let generated = generate(assets, &registry, r#"{"machine": {"install": {"disk": "/dev/sdz"}}}"#)?;
    let files = Files::serve()?;
    files.add(&generated.control_plane)?;
    let disk = assets.file("system.disk")?;
    an_empty_file(&disk, DISK)?;
    let source = format!("{}?{VARIABLES}", files.url("controlplane.yaml"));
    let ip = format!("ip={ADDRESS}::{HOST}:255.255.255.0:by-argument::off");
    let setup = Setup::kernel("machine", &format!("{ip} {META} talos.config={source}")).with_disk(&disk);
    let identity = Some(format!("type=1,uuid={UUID},serial=serial-7"));
    let mut machine = Vm::start(assets, &Setup { identity, memory_mib: 2048, ..setup })?;
    machine.says("there is no disk /dev/sdz", INSTALL)?;
    let expected = format!(
        "controlplane.yaml?uuid={UUID}&serial=serial-7&mac=52:54:00:12:34:56&hostname=by-argument&code=the-code"
    );
    let asked = files.asked();
    ensure!(asked.contains(&expected), "it asked for {asked:?}, not for {expected}");
    let talosconfig = &generated.talosconfig;
    machine.is_up(talosconfig, BOOT).context("without a disk to install to")?;
    let corrected = assets.file("corrected.yaml")?;
    let content = std::fs::read_to_string(&generated.control_plane)?.replace("/dev/sdz", "/dev/vda");
    std::fs::write(&corrected, content)?;
    machine.talosctl(talosconfig, &["apply-config", "--file", &text(&corrected)])?.ok()?;
    machine.is_installed(talosconfig, INSTALL).map(drop)
}
