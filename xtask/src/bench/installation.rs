//! The installation of a virtual machine: what it takes from its configuration to the system on its disk; and its upgrade.
#![expect(clippy::disallowed_types, reason = "durations of real machines; no time is paused here")]

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use super::{Row, row};
use crate::bundle::Bundle;
use crate::paths::Paths;
use crate::step::{Steps, command};

const NAME: &str = "bench-install";
const LOG: &str = "bench-install-controlplane-1.log";
const CIDR: &str = "10.8.0.0/24";
/// Longest wait for the end of the installation.
const PATIENCE: Duration = Duration::from_secs(900);

/// The machine's address, and the image that its registry has.
const ADDRESS: &str = "10.8.0.2";
const IMAGE: &str = "ghcr.io/siderolabs/installer:v1.7.0";
/// Longest call of its API but for the one that pulls an image, which is asked for again.
const CALL: Duration = Duration::from_secs(120);
const UPGRADE: &str = "upgrade of that machine to the image of its own version: until it is good";

/// What the machine's log says in their order.
const BEGINS: &str = "installing the system";
const UNPACKED: &str = "installing v";
const DONE: &str = "installed the system";
const TITLE: &str = "installation of an emulated machine: the installer's image fetched and unpacked, the disk written";

/// The rows. A failure is in its row.
pub(super) fn rows(steps: &mut Steps, paths: &Paths, programs: &Path, bundle: &Bundle) -> anyhow::Result<Vec<Row>> {
    steps.run("installation of a virtual machine", |step| {
        let folder = paths.out.join("bench-installation");
        let talosctl = |arguments: &[&str]| {
            let mut talosctl = command(programs.join("talosctl"));
            talosctl.args(arguments).args(["--name", NAME, "--state"]).arg(&folder);
            talosctl
        };
        let mut create = talosctl(&["cluster", "create", "--provisioner", "qemu", "--accel", "tcg", "--wait=false"]);
        create.args(["--cidr", CIDR, "--workers", "0", "--cpus", "1", "--with-uefi=false", "--skip-kubeconfig"]);
        create.args(["--kubernetes-version", bundle.version]).arg("--bundle").arg(&bundle.directory);
        create.arg("--vmlinuz-path").arg(paths.out.join("vmlinuz"));
        create.arg("--initrd-path").arg(paths.out.join("initramfs.xz"));
        create.arg("--installer").arg(paths.installer()).arg("--talosconfig").arg(folder.join("talosconfig"));
        let measured = step.call(&mut create).and_then(|_| ended(&folder.join(NAME).join("logs").join(LOG)));
        let upgraded = match &measured {
            Ok(_) => Node { talosctl: &programs.join("talosctl"), talosconfig: &folder.join("talosconfig") }.upgrade(),
            Err(_) => Err(anyhow::anyhow!("there is no machine to upgrade")),
        };
        // A cluster that was refused left nothing.
        if folder.join(NAME).exists() {
            step.call(&mut talosctl(&["cluster", "destroy"]))?;
        }
        let _ = std::fs::remove_dir_all(&folder);
        Ok(vec![row(TITLE, "", measured), row(UPGRADE, "", upgraded)])
    })
}

/// The machine, once it is installed.
struct Node<'a> {
    talosctl: &'a Path,
    talosconfig: &'a Path,
}

impl Node<'_> {
    fn call(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut talosctl = command("timeout");
        talosctl.arg(CALL.as_secs().to_string()).arg(self.talosctl).args(arguments);
        talosctl.arg("--talosconfig").arg(self.talosconfig).args(["--endpoints", ADDRESS, "--nodes", ADDRESS]);
        let output = talosctl.output().context("starting talosctl")?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { bail!("{}", text(&output.stderr)) }
    }

    fn boot_id(&self) -> anyhow::Result<String> {
        self.call(&["read", "/proc/sys/kernel/random/boot_id"])
    }

    fn until<T>(&self, what: &str, look: impl Fn(&Self) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let started = Instant::now();
        loop {
            match look(self) {
                Err(error) if started.elapsed() > PATIENCE => {
                    return Err(error.context(format!("no {what} within {} s", PATIENCE.as_secs())));
                }
                Err(_) => pause(),
                found => return found,
            }
        }
    }

    /// To the installer image of its own version, in the other slot: the times until the new version is good, and for which the
    /// API did not answer.
    fn upgrade(&self) -> anyhow::Result<String> {
        let is_good = |node: &Self| {
            let trial = node.call(&["get", "upgradetrial", "--output", "yaml"])?;
            if trial.contains("phase: good") { Ok(()) } else { bail!("{trial}") }
        };
        let before = self.until("API of the installed machine", |node| {
            let status = node.call(&["get", "systemdisk", "--output", "yaml"])?;
            if status.contains("installed: true") { node.boot_id() } else { bail!("it runs from no disk") }
        })?;
        let begun = Instant::now();
        let upgrade = ["upgrade", "--image", IMAGE, "--preserve", "--force", "--wait=false"];
        self.until("start of the upgrade", |node| node.call(&upgrade))?;
        let mut answered = Instant::now();
        loop {
            match self.boot_id() {
                Ok(id) if id == before => answered = Instant::now(),
                Ok(_) => break,
                Err(_) => {}
            }
            if begun.elapsed() > PATIENCE {
                bail!("the machine has not come back within {} s", PATIENCE.as_secs());
            }
            pause();
        }
        let away = answered.elapsed();
        self.until("end of the trial", is_good)?;
        Ok(format!("{:.0} s, away {:.0} s", begun.elapsed().as_secs_f64(), away.as_secs_f64()))
    }
}

#[expect(clippy::disallowed_methods, reason = "measuring means waiting, and nothing else runs here")]
fn pause() {
    std::thread::sleep(Duration::from_millis(200));
}

/// Waits for the end of the installation in a log.
fn ended(log: &Path) -> anyhow::Result<String> {
    let started = Instant::now();
    loop {
        let text = String::from_utf8_lossy(&std::fs::read(log).unwrap_or_default()).into_owned();
        if let Some([begins, unpacked, done]) = times(&text) {
            return Ok(format!("{:.1} s: {:.1} and {:.1} s", done - begins, unpacked - begins, done - unpacked));
        }
        if started.elapsed() > PATIENCE {
            let end = text.lines().last().unwrap_or_default().to_owned();
            bail!("no installation within {} s; its log ends with {end}", PATIENCE.as_secs());
        }
        pause();
    }
}

/// The seconds since init of the three lines, once the last of them is there.
fn times(log: &str) -> Option<[f64; 3]> {
    let said = |what: &str| log.lines().find(|line| line.contains(what)).and_then(|line| seconds(line).ok());
    Some([said(BEGINS)?, said(UNPACKED)?, said(DONE)?])
}

/// `[    9.716762] [talos] 6.420s INFO ...` is 6.42.
fn seconds(line: &str) -> anyhow::Result<f64> {
    let (_, rest) = line.split_once("[talos] ").context("a line of another program")?;
    let seconds = rest.split_whitespace().next().and_then(|word| word.strip_suffix('s'));
    seconds.context("a line without its time")?.parse().context("a time that is no number")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_of_an_installation_are_those_of_its_lines() {
        let begun = "[    9.716762] [talos] 6.420s INFO task: installing the system image=\"x\"\n\
                     [   29.275894] [talos] 25.980s INFO task: installer line=\"installing v1.7.0 to /dev/vda\"\n";
        assert_eq!(times(begun), None);
        let ended = format!("{begun}[   36.2] [talos] 32.904s INFO task: installed the system image=\"x\"\n");
        assert_eq!(times(&ended), Some([6.42, 25.98, 32.904]));
    }
}
