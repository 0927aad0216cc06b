//! Tests on virtual machines: firmware, kernel, `init` and `machined` as they are on hardware, without Kubernetes.
//!
//! Each check has machines of its own, with QEMU's user-mode network: a DHCP server, and a port on loopback that leads to
//! the machine's API. Nothing of them needs privileges. Arguments are parts of the names of the checks to run.

mod assets;
mod bad_versions;
mod boot;
mod cuts;
mod disks;
mod encryption;
mod faults;
mod files;
mod install;
mod registry;
mod services;
mod upgrade;
mod upgrade_cuts;
mod vm;

use std::process::ExitCode;

use assets::Assets;
use tests::runner::{Tally, Wanted};

type Check = fn(&Assets) -> anyhow::Result<()>;

/// The checks in their order: what others wait for comes first, and those behind it do not need it.
const CHECKS: &[(&str, Check)] = &[
    (
        "a_cut_keeps_what_was_flushed_and_any_part_of_the_rest",
        cuts::a_cut_keeps_what_was_flushed_and_any_part_of_the_rest,
    ),
    ("a_machine_installs_itself_from_a_disc_by_bios", install::a_machine_installs_itself_from_a_disc_by_bios),
    ("a_machine_without_disks_waits_in_maintenance_mode", boot::a_machine_without_disks_waits_in_maintenance_mode),
    ("a_machine_boots_from_the_network_by_uefi", boot::a_machine_boots_from_the_network_by_uefi),
    ("a_machine_with_an_old_processor_gets_a_sentence", boot::a_machine_with_an_old_processor_gets_a_sentence),
    ("a_machine_without_the_kernels_protections_says_so", boot::a_machine_without_the_kernels_protections_says_so),
    ("a_machine_tells_others_and_is_reset_when_it_hangs", services::a_machine_tells_others_and_is_reset_when_it_hangs),
    (
        "a_machine_of_the_network_finds_its_disk_among_odd_ones",
        install::a_machine_of_the_network_finds_its_disk_among_odd_ones,
    ),
    (
        "a_machine_installs_itself_by_uefi_with_a_configuration_on_a_disc",
        install::a_machine_installs_itself_by_uefi_with_a_configuration_on_a_disc,
    ),
    (
        "a_machine_asks_with_its_identity_and_an_absent_disk_is_corrected",
        install::a_machine_asks_with_its_identity_and_an_absent_disk_is_corrected,
    ),
    ("an_installed_machine_reboots_resets_and_powers_off", install::an_installed_machine_reboots_resets_and_powers_off),
    (
        "a_machine_bears_a_lost_clock_a_failing_disk_and_damage",
        faults::a_machine_bears_a_lost_clock_a_failing_disk_and_damage,
    ),
    ("a_machine_whose_installation_lost_power_comes_up", cuts::a_machine_whose_installation_lost_power_comes_up),
    ("a_version_that_does_not_start_loses_its_slot", bad_versions::a_version_that_does_not_start_loses_its_slot),
    (
        "a_machine_whose_upgrade_lost_power_runs_one_of_both_versions",
        upgrade_cuts::a_machine_whose_upgrade_lost_power_runs_one_of_both_versions,
    ),
    ("a_disk_image_boots_grows_and_is_configured", install::a_disk_image_boots_grows_and_is_configured),
];

/// Checks of several minutes, for whoever names them.
const LONG: &[(&str, Check)] = &[
    ("volumes_are_sealed_and_their_keys_change", encryption::volumes_are_sealed_and_their_keys_change),
    ("user_disks_are_lost_and_found", disks::user_disks_are_lost_and_found),
    ("a_recovery_key_opens_what_a_new_tpm_does_not", encryption::a_recovery_key_opens_what_a_new_tpm_does_not),
    ("a_version_earns_its_slot_by_bios", upgrade::a_version_earns_its_slot_by_bios),
    ("a_version_earns_its_slot_by_uefi", upgrade::a_version_earns_its_slot_by_uefi),
    ("every_bad_version_loses_its_slot", bad_versions::every_bad_version_loses_its_slot),
    ("a_version_that_grub_cannot_start_loses_its_slot", bad_versions::a_version_that_grub_cannot_start_loses_its_slot),
];

/// Machines at a time: each has one emulated processor, and waits for a third of its time.
pub(crate) const AT_ONCE: usize = 3;

fn main() -> ExitCode {
    let wanted = Wanted::from_arguments();
    let mut tally = Tally::default();
    if let Some(assets) = tally.run("boot_assets_are_complete", Assets::find) {
        let checks: Vec<_> = CHECKS
            .iter()
            .filter(|(name, _)| wanted.has(name))
            .chain(LONG.iter().filter(|(name, _)| wanted.names(name)))
            .collect();
        let runs: Vec<_> = checks
            .iter()
            .map(|(name, check)| {
                let assets = assets.of(name);
                move || check(&assets).inspect_err(|_| assets.show_consoles())
            })
            .collect();
        let named: Vec<(&str, &(dyn Fn() -> anyhow::Result<()> + Sync))> =
            checks.iter().zip(&runs).map(|((name, _), run)| (*name, run as _)).collect();
        tally.run_together(AT_ONCE, &named);
    }
    tally.close()
}
