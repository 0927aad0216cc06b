//! Power cuts: what a disk may hold after one.

use std::fs::OpenOptions;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, bail, ensure};
use parking_lot::Mutex;
use tests::support::{Clock, Final, run, say};
use tests::write_log::{Random, WriteLog};

use crate::AT_ONCE;
use crate::assets::Assets;
use crate::install::{DISK, INSTALL, Installed, installed};
use crate::vm::{Firmware, Setup, Vm};

/// How many cuts are tried where the environment's `TEST_CUTS` says nothing. These are followed until they run or an installation
/// begins again, which other checks follow; with `TEST_CUTS`, all to their end.
pub(crate) const CUTS: u64 = 6;
/// What a machine says when an installation begins.
const BEGINS: &str = "installing the system";
/// What it says when it waits for a configuration, which no machine does that was given one.
const WAITS: &str = "maintenance mode accepts a configuration";

/// The first seed where `TEST_CUT_SEED` says nothing: each round of the checks is the same.
const SEED: u64 = 1;

/// A disk image and the log of writes to it, as options of QEMU.
pub(crate) fn logged(disk: &Path, log: &Path) -> String {
    format!(
        "driver=blklogwrites,file.driver=file,file.filename={},log.driver=file,log.filename={},log-sector-size=512",
        disk.display(),
        log.display(),
    )
}

pub(crate) fn an_empty_file(path: &Path, bytes: u64) -> anyhow::Result<()> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
    file.set_len(bytes).with_context(|| format!("making {}", path.display()))
}

pub(crate) fn a_cut_keeps_what_was_flushed_and_any_part_of_the_rest(assets: &Assets) -> anyhow::Result<()> {
    const BLOCK: u64 = 65_536;
    let (disk, log) = (assets.file("disk")?, assets.file("log")?);
    an_empty_file(&disk, 4 * BLOCK)?;
    an_empty_file(&log, 0)?;
    let options = logged(&disk, &log);
    let commands =
        ["write -P 1 0 64k", "flush", "write -P 2 0 64k", "write -P 3 64k 64k", "flush", "write -P 4 128k 64k"];
    let mut arguments: Vec<&str> = commands.iter().flat_map(|command| ["-c", command]).collect();
    arguments.extend(["--image-opts", &options]);
    run(Path::new("qemu-io"), &arguments)?.ok().context("qemu-io (Debian's package qemu-utils)")?;
    let log = WriteLog::open(&log)?;
    // QEMU flushes once more when it closes the image.
    ensure!(log.len() >= commands.len(), "{} entries", log.len());
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..64 {
        let path = assets.file("cut")?;
        an_empty_file(&path, 4 * BLOCK)?;
        let image = OpenOptions::new().read(true).write(true).open(&path)?;
        log.cut(&image, 4, seed)?;
        let byte = |offset| {
            let mut byte = [0];
            image.read_exact_at(&mut byte, offset).map(|()| byte[0])
        };
        ensure!([1, 2].contains(&byte(0)?), "the flushed write is lost");
        ensure!([0, 3].contains(&byte(BLOCK)?) && byte(2 * BLOCK)? == 0, "a write from nowhere");
        seen.insert((byte(0)?, byte(BLOCK)?));
    }
    ensure!(seen.len() == 4, "only these were seen: {seen:?}");
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a test program is configured by its environment")]
fn number(variable: &str, default: u64) -> anyhow::Result<u64> {
    match std::env::var(variable) {
        Ok(value) => value.parse().with_context(|| format!("{variable} is no number")),
        Err(_) => Ok(default),
    }
}

/// A power cut: before a write, with a seed that decides what is left of the writes since the last flush.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cut {
    pub(crate) at: usize,
    pub(crate) seed: u64,
}

/// How many cuts are wanted, and the seed of the first one.
pub(crate) fn cuts_and_seed() -> anyhow::Result<(u64, u64)> {
    Ok((number("TEST_CUTS", CUTS)?, number("TEST_CUT_SEED", SEED)?))
}

/// Cuts at random points, one in each of equal parts of these writes.
pub(crate) fn spread(writes: Range<usize>, cuts: u64, seed: u64) -> anyhow::Result<Vec<Cut>> {
    let part = u64::try_from(writes.len())? / cuts.max(1);
    let cut = |cut| {
        let seed = seed.wrapping_add(cut);
        let at = usize::try_from(cut * part + Random(seed).below(part.max(1))).unwrap_or(usize::MAX);
        Cut { at: writes.start.saturating_add(at), seed }
    };
    Ok((0..cuts).map(cut).collect())
}

/// Follows each cut of a log of `writes`, some at a time; `follow` says how the machine came up. A run that was ended goes on with
/// the first cut that is left.
pub(crate) fn each_cut(
    assets: &Assets,
    writes: usize,
    cuts: &[Cut],
    follow: impl Fn(&Assets, Cut) -> anyhow::Result<String> + Sync,
) -> anyhow::Result<()> {
    let first = usize::try_from(number("TEST_CUTS_FROM", 0)?)?;
    ensure!(first < cuts.len(), "TEST_CUTS_FROM is {first}, and there are {} cuts", cuts.len());
    let (next, failed) = (AtomicUsize::new(first), Mutex::new(Vec::new()));
    let worker = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(cut) = cuts.get(number).copied() else { return };
            let name = format!("cut {number} at write {} of {writes} (seed {})", cut.at, cut.seed);
            let (clock, assets) = (Clock::start(), assets.of(&format!("cut-{number}")));
            match follow(&assets, cut) {
                Ok(way) => say(&format!("    {name}: {way} ({clock})")),
                Err(error) => {
                    assets.show_consoles();
                    failed.lock().push(format!("{name}: {error:#}"));
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(worker);
        }
    });
    let failed = failed.into_inner();
    if failed.is_empty() { Ok(()) } else { bail!("{}", failed.join("; ")) }
}

/// The recorded installation is cut at random points, one in each of equal parts of it. A machine with such a disk boots
/// from it, or from the disc and installs itself again, and has its configuration in the end.
pub(crate) fn a_machine_whose_installation_lost_power_comes_up(assets: &Assets) -> anyhow::Result<()> {
    let installed = installed(assets)?;
    let log = WriteLog::open(&installed.log)?;
    let (count, seed) = cuts_and_seed()?;
    let discs = [assets.disc_with_a_source()?, assets.disc_with_configuration(&installed.generated.control_plane)?];
    let mut cuts = spread(0..log.len(), count, seed)?;
    // The worst of all: the last write of a file system that was being made, and none of those before it was flushed.
    let is_made = |sector: &[u8]| is_xfs_with_label(sector, "unfinished") && sector.get(IN_PROGRESS) == Some(&0);
    let made = log.find(is_made)?.context("no file system was made")?;
    cuts.push(Cut { at: made + 1, seed });
    // As soon as the disk is a system disk it has its configuration. GRUB's boot code begins like this.
    let finished = log.find(|sector| sector.starts_with(&[0xeb, 0x63, 0x90]))?.context("no boot code was written")?;
    cuts.push(Cut { at: log.flushed(finished).context("nothing was flushed after the boot code")?, seed });
    let follows = count != CUTS;
    each_cut(assets, log.len(), &cuts, |assets, cut| {
        comes_up(assets, &installed, &discs, (&log, cut), follows).map(str::to_owned)
    })
}

/// Starts a machine with what a cut left; how it came up. `follows` says of an installation that begins whether its end is
/// waited for.
fn comes_up(
    assets: &Assets,
    installed: &Installed,
    [disc, configuration]: &[PathBuf; 2],
    (log, cut): (&WriteLog, Cut),
    follows: bool,
) -> anyhow::Result<&'static str> {
    let disk = assets.file("system.disk")?;
    an_empty_file(&disk, DISK)?;
    log.cut(&OpenOptions::new().read(true).write(true).open(&disk)?, cut.at, cut.seed)?;
    let setup =
        Setup::firmware("machine", Firmware::Bios, Some(disc.clone())).with_disk(&disk).with_disc(configuration);
    let mut machine = Vm::start(assets, &setup)?;
    let talosconfig = &installed.generated.talosconfig;
    machine
        .until("a machine that boots or installs itself", INSTALL, |machine| {
            let console = machine.console();
            if console.contains(WAITS) {
                return Err(anyhow::Error::msg(Final("it asks for a configuration".to_owned())));
            }
            if console.contains(BEGINS) { Ok(()) } else { machine.runs_from_its_disk(talosconfig).map(drop) }
        })
        .and_then(|()| {
            if !machine.console().contains(BEGINS) {
                Ok("booted")
            } else if follows {
                machine.is_installed(talosconfig, INSTALL).map(|_| "installed again")
            } else {
                Ok("began to install again")
            }
        })
}

/// Where the superblock of an XFS says that it is being made.
const IN_PROGRESS: usize = 126;

/// Whether a sector is the superblock of an XFS with a label.
pub(crate) fn is_xfs_with_label(sector: &[u8], label: &str) -> bool {
    sector.starts_with(b"XFSB") && sector.get(108..120) == Some(format!("{label:\0<12}").as_bytes())
}
