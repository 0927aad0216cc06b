//! Power cuts: what a disk may hold after one.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use anyhow::{Context as _, ensure};
use tests::support::run;
use tests::write_log::WriteLog;

use crate::assets::Assets;

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
