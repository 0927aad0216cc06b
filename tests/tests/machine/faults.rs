//! What an installed machine lives through: a clock that was lost, damage on its disk, another disk that fails.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use anyhow::{Context as _, ensure};
use tests::write_log::WriteLog;

use crate::assets::Assets;
use crate::cuts::an_empty_file;
use crate::install::{DISK, installed};
use crate::vm::{BOOT, Firmware, Setup, Vm};

/// What each copy of META begins with, and how far they are apart.
const META: [u8; 4] = 0x5a4b_3c2d_u32.to_be_bytes();
const COPY: u64 = 262_144;
const BLOCK: usize = 4096;

/// It comes up with all of that, and says what it found; nothing that it has is lost.
pub(crate) fn a_machine_bears_a_lost_clock_a_failing_disk_and_damage(assets: &Assets) -> anyhow::Result<()> {
    let installed = installed(assets)?;
    let talosconfig = &installed.generated.talosconfig;
    let path = assets.file("system.disk")?;
    an_empty_file(&path, DISK)?;
    let disk = File::options().read(true).write(true).open(&path)?;
    let log = WriteLog::open(&installed.log)?;
    log.cut(&disk, log.len(), 1)?;
    let meta = find(&disk, 1 << 20, |block| block.starts_with(&META)).context("no META")?;
    for copy in [meta, meta + COPY] {
        disk.write_all_at(&[0xff; BLOCK], copy)?;
    }
    let failing = assets.file("failing.disk")?;
    an_empty_file(&failing, 64 << 20)?;
    let setup = Setup::firmware("machine", Firmware::Bios, None).with_disk(&path);
    let with_faults = Setup { clock: Some("1970-01-01T00:00:00"), ..setup.clone().with_drive(&fails(&failing), "") };
    let mut machine = Vm::start(assets, &with_faults)?;
    machine.is_up(talosconfig, BOOT).context("with a lost clock, a disk that fails, and no META")?;
    for told in ["the clock showed a time before the cluster was made", "a copy of META is not used", "vdb"] {
        ensure!(machine.console().contains(told), "the console does not say: {told}");
    }
    machine.talosctl(talosconfig, &["meta", "write", "0x0a", "{}"])?.ok().context("a new META")?;
    machine.cut_power();
    // The first block of the configuration on STATE. What follows it is no document any more.
    let is_configuration = |block: &[u8]| block.starts_with(b"# yaml-language-server");
    let configuration = find(&disk, BLOCK, is_configuration).context("no configuration")?;
    disk.write_all_at(&[0xff; BLOCK], configuration)?;
    let mut machine = Vm::start(assets, &setup)?;
    machine.says("configuration not usable", BOOT)?;
    let [file, credentials] = [&installed.generated.control_plane, talosconfig].map(|path| path.display().to_string());
    let by_anybody = ["apply-config", "--file", &file];
    let by_its_owner = [by_anybody.as_slice(), &["--talosconfig", &credentials]].concat();
    machine.until("a configuration that its owner brings", BOOT, |machine| {
        ensure!(!machine.talosctl_insecure(&by_anybody)?.succeeded, "anybody may configure it");
        machine.talosctl_insecure(&by_its_owner)?.ok().map(drop)
    })?;
    machine.is_installed(talosconfig, BOOT).context("configured again").map(drop)
}

/// A disk that answers each read with an I/O error, as options of QEMU.
fn fails(path: &Path) -> String {
    let fault = "file.inject-error.0.event=none,file.inject-error.0.iotype=read,file.inject-error.0.errno=5";
    format!("driver=raw,file.driver=blkdebug,file.image.driver=file,file.image.filename={},{fault}", path.display())
}

/// Where a block that starts at a multiple of `step` is.
fn find(disk: &File, step: usize, is_it: impl Fn(&[u8]) -> bool) -> anyhow::Result<u64> {
    /// Read at once.
    const CHUNK: usize = 16 << 20;
    let mut bytes = vec![0; CHUNK];
    let mut at = 0;
    while at < DISK {
        disk.read_exact_at(&mut bytes, at)?;
        let found = bytes.chunks(BLOCK).step_by(step / BLOCK).position(&is_it);
        if let Some(index) = found {
            return Ok(at + u64::try_from(index * step)?);
        }
        at += u64::try_from(CHUNK)?;
    }
    anyhow::bail!("not found on the disk")
}
