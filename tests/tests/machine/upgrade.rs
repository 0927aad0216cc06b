//! Upgrades of an installed machine by its API: a version earns its slot, and the way back.

use std::path::Path;

use anyhow::{Context as _, ensure};

use crate::assets::Assets;
use crate::bad_versions::{Fault, boot_assets};
use crate::install::{Generated, copy_disk, installed, installed_by_uefi};
use crate::registry::Registry;
use crate::vm::{BOOT, Firmware, HOST, Setup, Vm};

/// The image of the version that the machine was installed with: an upgrade to it fills the other slot.
pub(crate) const IMAGE: &str = "ghcr.io/siderolabs/installer:v1.7.0";
/// An image of a version that does not start.
const BAD: &str = "bad.test/siderolabs/installer:v1.7.0";

/// The last trial, as the machine tells it.
#[derive(Debug)]
pub(crate) struct Trial {
    pub(crate) phase: String,
    pub(crate) slot: String,
    pub(crate) former_slot: String,
    pub(crate) running: String,
    pub(crate) reason: String,
}

impl Trial {
    /// None on a machine that was never upgraded.
    pub(crate) fn of(machine: &Vm, talosconfig: &Path) -> anyhow::Result<Option<Self>> {
        let answer = machine.talosctl(talosconfig, &["get", "upgradetrial", "--output", "yaml"])?;
        if !answer.succeeded && answer.stderr.contains("NotFound") {
            return Ok(None);
        }
        let text = answer.ok()?;
        if text.trim().is_empty() {
            return Ok(None);
        }
        // The metadata has a phase as well.
        let (_, spec) = text.split_once("spec:").with_context(|| format!("a trial without content: {text}"))?;
        let value = |name: &str| {
            let line = spec.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(':'));
            line.unwrap_or_default().trim().trim_matches(['"', '\'']).to_owned()
        };
        let [phase, slot, former_slot] = ["phase", "slot", "formerSlot"].map(value);
        Ok(Some(Self { phase, slot, former_slot, running: value("running"), reason: value("reason") }))
    }

    /// Waits for the end of the trial.
    pub(crate) fn ends(machine: &mut Vm, talosconfig: &Path) -> anyhow::Result<Self> {
        machine.until("the end of the trial", BOOT, |machine| {
            let trial = Self::of(machine, talosconfig)?.context("no trial")?;
            ensure!(trial.has_ended(), "{trial:?}");
            Ok(trial)
        })
    }

    pub(crate) fn has_ended(&self) -> bool {
        ["good", "failed"].contains(&self.phase.as_str())
    }

    pub(crate) fn is_good(&self) -> anyhow::Result<()> {
        ensure!(self.phase == "good" && self.running == self.slot && self.reason.is_empty(), "{self:?}");
        Ok(())
    }

    pub(crate) fn has_failed(&self, reason: &str) -> anyhow::Result<()> {
        let is_back = self.running == self.former_slot && self.running != self.slot;
        let says_why = !self.reason.is_empty() && self.reason.contains(reason);
        ensure!(self.phase == "failed" && is_back && says_why, "{self:?}");
        Ok(())
    }
}

/// A copy of an installed machine.
struct Node {
    machine: Vm,
    generated: Generated,
    firmware: Firmware,
}

impl Node {
    fn start(assets: &Assets, firmware: Firmware) -> anyhow::Result<Self> {
        let disk = assets.file("copy.disk")?;
        let generated = match firmware {
            Firmware::Bios => {
                let installed = installed(assets)?;
                installed.copy_to(&disk)?;
                installed.generated.clone()
            }
            Firmware::Uefi => {
                let installed = installed_by_uefi(assets)?;
                copy_disk(&installed.disk, &disk)?;
                std::fs::copy(&installed.variables, assets.file("copy.vars")?)?;
                installed.generated.clone()
            }
        };
        let mut machine = Vm::start(assets, &Setup::firmware("copy", firmware, None).with_disk(&disk))?;
        machine.is_up(&generated.talosconfig, BOOT)?;
        Ok(Self { machine, generated, firmware })
    }

    fn call(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.machine.talosctl(&self.generated.talosconfig, arguments)?.ok()
    }

    /// Has it end, and waits until it is up again, after as many starts.
    fn again(&mut self, arguments: &[&str], starts: usize) -> anyhow::Result<()> {
        let mut before = self.machine.boot_id(&self.generated.talosconfig)?;
        self.call(arguments)?;
        let talosconfig = self.generated.talosconfig.clone();
        if starts > 1 {
            // Not each of them gets as far as its API.
            let count = |machine: &Vm| machine.console().matches("machined starts").count();
            let wanted = count(&self.machine) + starts;
            self.machine.until("its last start", BOOT, |machine| {
                ensure!(count(machine) >= wanted, "{} of {wanted} starts", count(machine));
                Ok(())
            })?;
            before.clear();
        }
        self.machine.is_up_again(&talosconfig, &before).map(drop)
    }

    fn upgrade(&mut self, image: &str, more: &[&str], starts: usize) -> anyhow::Result<Trial> {
        let arguments = ["upgrade", "--image", image, "--wait=false"];
        self.again(&[arguments.as_slice(), more].concat(), starts)?;
        Trial::ends(&mut self.machine, &self.generated.talosconfig)
    }

    /// The slot that runs, as the machine tells it.
    fn running(&self) -> anyhow::Result<String> {
        Ok(Trial::of(&self.machine, &self.generated.talosconfig)?.context("no trial")?.running)
    }

    /// To the other version, by the machine's word.
    fn roll_back(&mut self) -> anyhow::Result<()> {
        let before = self.running()?;
        self.again(&["rollback"], 1)?;
        let talosconfig = self.generated.talosconfig.clone();
        let now = Trial::ends(&mut self.machine, &talosconfig)?.running;
        ensure!(now != before, "the rollback led to the same version, {before}");
        Ok(())
    }

    /// The name of EPHEMERAL's file system, which is another one after each wipe.
    fn ephemeral(&mut self) -> anyhow::Result<String> {
        let talosconfig = self.generated.talosconfig.clone();
        self.machine.until("EPHEMERAL", BOOT, |machine| {
            let text = machine.talosctl(&talosconfig, &["get", "discoveredvolumes", "--output", "yaml"])?.ok()?;
            let volume = text.split("\n---").find(|one| one.contains("label: EPHEMERAL"));
            let volume = volume.with_context(|| format!("no EPHEMERAL among {text}"))?;
            let id = volume.lines().find_map(|line| line.trim().strip_prefix("uuid:"));
            let id = id.map(str::trim).filter(|id| !id.is_empty());
            id.map(str::to_owned).with_context(|| format!("EPHEMERAL has no file system: {volume}"))
        })
    }
}

pub(crate) fn a_version_earns_its_slot_by_bios(assets: &Assets) -> anyhow::Result<()> {
    earns_its_slot(assets, Firmware::Bios)
}

pub(crate) fn a_version_earns_its_slot_by_uefi(assets: &Assets) -> anyhow::Result<()> {
    earns_its_slot(assets, Firmware::Uefi)
}

/// To the other slot, back and forth on request, to a version that cannot start and loses its slot without help, staged, and without
/// the data.
fn earns_its_slot(assets: &Assets, firmware: Firmware) -> anyhow::Result<()> {
    let mut node = Node::start(assets, firmware)?;
    let data = node.ephemeral()?;
    node.upgrade(IMAGE, &["--preserve"], 1).context("an upgrade")?.is_good()?;
    node.roll_back().context("the first way back")?;
    node.roll_back().context("the second one")?;

    // The image of a bad version comes from a registry of its own.
    let layout = assets.installer_of("bad", &boot_assets(assets, Fault::Initramfs)?)?;
    // The name of an image is in the index alone.
    let index = layout.join("index.json");
    let text = std::fs::read_to_string(&index)?;
    std::fs::write(&index, text.replace("ghcr.io/", "bad.test/"))?;
    let registry = Registry::start(&layout)?;
    let mirror = format!("http://{HOST}:{}", registry.address.port());
    let patch =
        format!(r#"{{"machine": {{"registries": {{"mirrors": {{"bad.test": {{"endpoints": ["{mirror}"]}}}}}}}}}}"#);
    node.call(&["patch", "machineconfig", "--mode", "no-reboot", "--patch", &patch])?;
    let good = node.running()?;
    let failed = node.upgrade(BAD, &["--preserve"], 1).context("an upgrade to a bad version")?;
    failed.has_failed("did not start")?;
    ensure!(failed.running == good, "it came back to another version: {failed:?}");
    let refused = node.machine.talosctl(&node.generated.talosconfig, &["rollback"])?.refused()?;
    ensure!(refused.contains("has failed its trial"), "a rollback to a version that failed: {refused}");
    ensure!(node.ephemeral()? == data, "the data were wiped though they were to be preserved");

    let staged = node.upgrade(IMAGE, &["--preserve", "--stage"], 2).context("a staged upgrade")?;
    staged.is_good()?;
    ensure!(staged.former_slot == good, "it was performed twice, or not: {staged:?}");
    ensure!(node.ephemeral()? == data, "a staged upgrade has wiped the data though they were to be preserved");
    let mode = if node.firmware == Firmware::Bios { "powercycle" } else { "default" };
    node.upgrade(IMAGE, &["--reboot-mode", mode], 1).context("an upgrade without the data")?.is_good()?;
    ensure!(node.ephemeral()? != data, "the data were preserved though nobody asked for it");
    Ok(())
}
