//! Tests on virtual machines: firmware, kernel, `init` and `machined` as they are on hardware, without Kubernetes.
//!
//! Each check has machines of its own, with QEMU's user-mode network: a DHCP server, and a port on loopback that leads to
//! the machine's API. Nothing of them needs privileges. Arguments are parts of the names of the checks to run.

mod assets;
mod boot;
mod cuts;
mod install;
mod registry;
mod vm;

use std::process::ExitCode;

use assets::Assets;
use tests::runner::{Tally, Wanted};

type Check = fn(&Assets) -> anyhow::Result<()>;

/// The checks in their order.
const CHECKS: &[(&str, Check)] = &[
    (
        "a_cut_keeps_what_was_flushed_and_any_part_of_the_rest",
        cuts::a_cut_keeps_what_was_flushed_and_any_part_of_the_rest,
    ),
    ("a_machine_without_disks_waits_in_maintenance_mode", boot::a_machine_without_disks_waits_in_maintenance_mode),
    ("a_machine_without_the_kernels_protections_says_so", boot::a_machine_without_the_kernels_protections_says_so),
    ("a_machine_installs_itself_from_a_disc_by_bios", install::a_machine_installs_itself_from_a_disc_by_bios),
    ("a_machine_installs_itself_from_a_disc_by_uefi", install::a_machine_installs_itself_from_a_disc_by_uefi),
];

fn main() -> ExitCode {
    let wanted = Wanted::from_arguments();
    let mut tally = Tally::default();
    if let Some(assets) = tally.run("boot_assets_are_complete", Assets::find) {
        for (name, check) in CHECKS.iter().filter(|(name, _)| wanted.has(name)) {
            let assets = assets.of(name);
            if tally.run(name, || check(&assets)).is_none() {
                assets.show_consoles();
            }
        }
    }
    tally.close()
}
