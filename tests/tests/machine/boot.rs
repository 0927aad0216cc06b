//! From power-on to the API.

use crate::assets::Assets;
use crate::files::Files;
use crate::install::network_boot;
use crate::vm::{BOOT, Firmware, Setup, Vm};

pub(crate) fn a_machine_without_disks_waits_in_maintenance_mode(assets: &Assets) -> anyhow::Result<()> {
    let mut machine = Vm::start(assets, &Setup::kernel("machine", ""))?;
    machine.is_in_maintenance()
}

pub(crate) fn a_machine_without_the_kernels_protections_says_so(assets: &Assets) -> anyhow::Result<()> {
    let mut machine = Vm::start(assets, &Setup::unprotected("machine", "pti=on init_on_alloc=1"))?;
    machine.says("slab_nomerge", BOOT)
}

pub(crate) fn a_machine_boots_from_the_network_by_uefi(assets: &Assets) -> anyhow::Result<()> {
    let files = Files::serve(assets.file("served")?)?;
    let script = network_boot(assets, &files, "")?;
    let mut machine = Vm::start(assets, &Setup::network("machine", Firmware::Uefi, script))?;
    machine.is_in_maintenance()
}
