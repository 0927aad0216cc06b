//! Installation by configuration, from maintenance mode.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tests::support::{eventually, run};

use crate::assets::Assets;
use crate::cuts::an_empty_file;
use crate::registry::Registry;
use crate::vm::{ADDRESS, BOOT, Firmware, HOST, Setup, Vm};

/// Bytes of a system disk.
pub(crate) const DISK: u64 = 8 << 30;
/// From the configuration to the API of the installed system.
const INSTALL: Duration = Duration::from_secs(600);

/// A cluster's configurations and credentials.
#[derive(Debug)]
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

/// Boots a disc, installs to an empty disk, and comes back from there.
fn from_a_disc(assets: &Assets, firmware: Firmware) -> anyhow::Result<()> {
    let registry = Registry::start(&assets.installer()?)?;
    let generated = generate(assets, &registry, "{}")?;
    let disk = assets.file("system.disk")?;
    an_empty_file(&disk, DISK)?;
    let setup = Setup::firmware("machine", firmware, Some(assets.disc()?)).with_disk(&disk);
    let mut machine = Vm::start(assets, &setup)?;
    machine.is_in_maintenance()?;
    let configuration = text(&generated.control_plane);
    machine.talosctl_insecure(&["apply-config", "--file", &configuration])?.ok()?;
    let talosconfig = &generated.talosconfig;
    eventually("API of the installed system", INSTALL, || machine.talosctl(talosconfig, &["version"])?.ok().map(drop))?;
    let volumes = machine.talosctl(talosconfig, &["get", "discoveredvolumes"])?.ok()?;
    for label in ["EFI", "META", "STATE", "EPHEMERAL"] {
        ensure!(volumes.contains(label), "no partition {label} among\n{volumes}");
    }
    // Once more without the disc: from its own disk, by its firmware.
    drop(machine);
    let setup = Setup::firmware("machine-again", firmware, None).with_disk(&disk);
    let machine = Vm::start(assets, &setup)?;
    eventually("API after a power cut", BOOT, || machine.talosctl(talosconfig, &["version"])?.ok().map(drop))
}

pub(crate) fn a_machine_installs_itself_from_a_disc_by_bios(assets: &Assets) -> anyhow::Result<()> {
    from_a_disc(assets, Firmware::Bios)
}

pub(crate) fn a_machine_installs_itself_from_a_disc_by_uefi(assets: &Assets) -> anyhow::Result<()> {
    from_a_disc(assets, Firmware::Uefi)
}
