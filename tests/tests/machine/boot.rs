//! From power-on to the API.

use crate::assets::Assets;
use crate::vm::{BOOT, Setup, Vm};

pub(crate) fn a_machine_without_disks_waits_in_maintenance_mode(assets: &Assets) -> anyhow::Result<()> {
    let mut machine = Vm::start(assets, &Setup::kernel("machine", ""))?;
    machine.is_in_maintenance()
}

pub(crate) fn a_machine_without_the_kernels_protections_says_so(assets: &Assets) -> anyhow::Result<()> {
    let mut machine = Vm::start(assets, &Setup::unprotected("machine", "pti=on init_on_alloc=1"))?;
    machine.says("slab_nomerge", BOOT)
}
