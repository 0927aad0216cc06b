//! From power-on to the API.

use crate::assets::Assets;
use crate::files::Files;
use crate::install::network_boot;
use crate::vm::{ADDRESS, BOOT, Firmware, Setup, Vm};

/// Its console has its address and the fingerprint of its certificate, and the power button turns it off.
pub(crate) fn a_machine_without_disks_waits_in_maintenance_mode(assets: &Assets) -> anyhow::Result<()> {
    let mut machine = Vm::start(assets, &Setup::kernel("machine", ""))?;
    machine.is_in_maintenance()?;
    machine.says(ADDRESS, BOOT)?;
    machine.says("fingerprint", BOOT)?;
    // Its driver comes after those that the API waits for.
    machine.says("ACPI: button: Power Button", BOOT)?;
    machine.press_power_button()?;
    machine.is_off()
}

/// Without what the programs are compiled for.
pub(crate) fn a_machine_with_an_old_processor_gets_a_sentence(assets: &Assets) -> anyhow::Result<()> {
    let setup = Setup { processor: "qemu64", ..Setup::kernel("machine", "") };
    let mut machine = Vm::start(assets, &setup)?;
    machine.says("x86-64-v2", BOOT)
}

pub(crate) fn a_machine_without_the_kernels_protections_says_so(assets: &Assets) -> anyhow::Result<()> {
    let mut machine = Vm::start(assets, &Setup::unprotected("machine", "pti=on init_on_alloc=1"))?;
    machine.says("slab_nomerge", BOOT)
}

pub(crate) fn a_machine_boots_from_the_network_by_uefi(assets: &Assets) -> anyhow::Result<()> {
    let files = Files::serve()?;
    let script = network_boot(assets, &files, "")?;
    let mut machine = Vm::start(assets, &Setup::network("machine", Firmware::Uefi, script))?;
    machine.is_in_maintenance()
}
