//! Power cuts during an upgrade: the machine runs one of both versions after each, and says which and why.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use parking_lot::Mutex;
use tests::write_log::WriteLog;

use crate::assets::Assets;
use crate::cuts::{CUTS, Cut, an_empty_file, cuts_and_seed, each_cut, logged, spread};
use crate::install::{Generated, Installed, Shared, copy_disk, installed, once};
use crate::upgrade::{IMAGE, Trial};
use crate::vm::{BOOT, Firmware, Setup, Vm};

/// How the first sector of what the boot loader starts begins, and of a copy of META.
const ENVIRONMENT: &[u8] = b"# GRUB Environment Block";
const META: [u8; 4] = [0x5a, 0x4b, 0x3c, 0x2d];

/// A machine whose upgrade was recorded, from its start to the end of the trial: from A to B, by BIOS.
#[derive(Debug)]
pub(crate) struct Upgraded {
    /// The disk before.
    before: PathBuf,
    log: WriteLog,
    /// The first write of the upgrade.
    begins: usize,
    /// The write by which GRUB forgets that it is to start the new version.
    pub(crate) started: usize,
    pub(crate) generated: Generated,
    /// Its registry.
    _installed: Arc<Installed>,
}

static UPGRADED: Shared<Upgraded> = Mutex::new(None);

/// The one upgrade that several checks go on with.
pub(crate) fn upgraded(assets: &Assets) -> anyhow::Result<Arc<Upgraded>> {
    once(&UPGRADED, || upgrade(assets))
}

fn upgrade(assets: &Assets) -> anyhow::Result<Upgraded> {
    let installed = installed(assets)?;
    let before = assets.file("before.disk")?;
    installed.copy_to(&before)?;
    let (disk, log) = (assets.file("upgraded.disk")?, assets.file("upgraded.log")?);
    copy_disk(&before, &disk)?;
    an_empty_file(&log, 0)?;
    let generated = installed.generated.clone();
    let setup = Setup::firmware("upgraded", Firmware::Bios, None).with_drive(&logged(&disk, &log), "");
    let mut machine = Vm::start(assets, &setup)?;
    let talosconfig = &generated.talosconfig;
    let first = machine.is_up(talosconfig, BOOT)?;
    let begins = WriteLog::open(&log)?.len();
    // Through the firmware: the boot loader takes part.
    let upgrade = ["upgrade", "--image", IMAGE, "--preserve", "--reboot-mode", "powercycle", "--wait=false"];
    machine.talosctl(talosconfig, &upgrade)?.ok()?;
    machine.is_up_again(talosconfig, &first)?;
    Trial::ends(&mut machine, talosconfig)?.is_good()?;
    machine.cut_power();
    std::fs::remove_file(disk)?;
    let log = WriteLog::open(&log)?;
    // It is to be started once; GRUB forgets it; then machined asks for it again. The file may move before it is written.
    let choices: Vec<usize> = log.all(|sector| sector.starts_with(ENVIRONMENT))?;
    let choices: Vec<usize> = choices.into_iter().filter(|write| *write >= begins).collect();
    ensure!(choices.len() >= 4, "the choice of the boot loader was written {} times", choices.len());
    let started = choices[1];
    Ok(Upgraded { before, log, begins, started, generated, _installed: installed })
}

impl Upgraded {
    /// What a power cut before a write of the upgrade leaves.
    pub(crate) fn cut(&self, disk: &Path, at: usize, seed: u64) -> anyhow::Result<()> {
        copy_disk(&self.before, disk)?;
        self.log.cut(&OpenOptions::new().read(true).write(true).open(disk)?, at, seed)
    }

    /// Writes after which something else is decided: to META and to what the boot loader starts.
    fn decisions(&self) -> anyhow::Result<BTreeSet<usize>> {
        let decides = |sector: &[u8]| sector.starts_with(ENVIRONMENT) || sector.starts_with(&META);
        Ok(self.log.all(decides)?.into_iter().filter(|write| *write >= self.begins).collect())
    }
}

/// The recorded upgrade is cut at random points, one in each of equal parts of it, and with `TEST_CUTS` after each decision as well.
pub(crate) fn a_machine_whose_upgrade_lost_power_runs_one_of_both_versions(assets: &Assets) -> anyhow::Result<()> {
    let upgraded = upgraded(assets)?;
    let (count, seed) = cuts_and_seed()?;
    let mut cuts = spread(upgraded.begins..upgraded.log.len(), count, seed)?;
    let decisions = upgraded.decisions()?;
    let after = |write: &usize| Cut { at: write + 1, seed: seed.wrapping_add(*write as u64) };
    if count == CUTS {
        // In the short form one of them: GRUB has forgotten that it is to start the new version, which has not got far.
        cuts.pop();
        let at = upgraded.log.flushed(upgraded.started).context("nothing was flushed after GRUB's write")?;
        cuts.push(Cut { at, seed });
    } else {
        cuts.extend(decisions.iter().map(after));
    }
    each_cut(assets, upgraded.log.len(), &cuts, |assets, cut| {
        let disk = assets.file("system.disk")?;
        upgraded.cut(&disk, cut.at, cut.seed)?;
        let setup = Setup::firmware("machine", Firmware::Bios, None).with_disk(&disk);
        let mut machine = Vm::start(assets, &setup)?;
        let outcome = machine
            .until("one of both versions", BOOT * 2, |machine| outcome(machine, &upgraded.generated.talosconfig))?;
        machine.cut_power();
        std::fs::remove_file(disk)?;
        Ok(outcome)
    })
}

/// Which version runs, and why; an error as long as that is not decided.
fn outcome(machine: &Vm, talosconfig: &Path) -> anyhow::Result<String> {
    machine.runs_from_its_disk(talosconfig)?;
    let cmdline = machine.talosctl(talosconfig, &["read", "/proc/cmdline"])?.ok()?;
    let slot = ["A", "B"].into_iter().find(|slot| cmdline.contains(&format!("BOOT_IMAGE=/{slot}/vmlinuz")));
    let slot = slot.with_context(|| format!("no slot in {cmdline}"))?;
    let Some(trial) = Trial::of(machine, talosconfig)? else {
        let keys = machine.talosctl(talosconfig, &["get", "metakeys"])?.ok()?;
        ensure!(!keys.contains("0x54") && slot == "A", "slot {slot} runs without a trial, which META has:\n{keys}");
        return Ok("A runs: no upgrade was recorded".to_owned());
    };
    ensure!(trial.has_ended() && trial.running == slot, "slot {slot}, {trial:?}");
    match slot {
        "A" => trial.has_failed("")?,
        _ => trial.is_good()?,
    }
    Ok(format!("{slot} runs: {} {}", trial.phase, trial.reason))
}
