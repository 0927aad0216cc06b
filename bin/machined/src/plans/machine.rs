//! Plans of a machine with a kernel and disks of its own.
//!
//! A phase without a step here is one that waits for its work: dashboard, D-Bus, syslogd, encryption, measured boot.

use sequencer::{Outcome, Parameters, RebootMode, Request, Sequence, Then};

use super::outline::{Facts, Outline};
use super::step::Step::{
    CreateEtcFiles, CreateOsReleaseFile, CreateSystemCgroups, DiskSizeCheck, EnforceKsppRequirements, KexecPrepare,
    LoadConfig, MemorySizeCheck, MountBpfFs, MountCgroups, MountEphemeral, MountPseudoFilesystems, MountState,
    SaveConfig, SetRlimit, SetupSystemDirectory, SetupVarDirectory, StartAllServices, StartMachined, StartUdevd,
    StopAllServices, UnmountEphemeral, UnmountState, WaitForDevices, WriteUdevRules, WriteUserFiles,
};

/// The outline of a sequence; none where this machine has no such sequence.
pub(super) fn outline(request: &Request, facts: Facts) -> Option<Outline> {
    match request.sequence {
        Sequence::Initialize => Some(initialize()),
        Sequence::Install => Some(install(facts)),
        Sequence::Boot => Some(boot()),
        Sequence::Reboot => Some(reboot(&request.options.parameters)),
        Sequence::Shutdown => Some(stop(Outcome::PowerOff)),
        Sequence::Reset | Sequence::Upgrade | Sequence::StageUpgrade | Sequence::MaintenanceUpgrade => None,
    }
}

/// From power-on to a configuration.
fn initialize() -> Outline {
    Outline::new(Then::Follow(Sequence::Install))
        .phase(
            "systemRequirements",
            &[
                EnforceKsppRequirements,
                SetupSystemDirectory,
                MountBpfFs,
                MountCgroups,
                MountPseudoFilesystems,
                SetRlimit,
            ],
        )
        .phase("etc", &[CreateSystemCgroups, CreateOsReleaseFile, CreateEtcFiles])
        .phase("earlyServices", &[StartUdevd, StartMachined])
        .phase("usb", &[WaitForDevices])
        .phase("mountSystem", &[MountState])
        .phase("config", &[LoadConfig])
        .phase("unmountSystem", &[UnmountState])
}

/// Puts the system on a disk where it is on none.
fn install(_facts: Facts) -> Outline {
    Outline::new(Then::Follow(Sequence::Boot))
}

/// From a configuration to all that a configured machine runs.
fn boot() -> Outline {
    Outline::new(Then::Idle)
        .phase("mountState", &[MountState])
        .phase("saveConfig", &[SaveConfig])
        .phase("memorySizeCheck", &[MemorySizeCheck])
        .phase("diskSizeCheck", &[DiskSizeCheck])
        .phase("ephemeral", &[MountEphemeral])
        .phase("var", &[SetupVarDirectory])
        .phase("udevSetup", &[WriteUdevRules])
        .phase("userSetup", &[WriteUserFiles])
        .phase("startEverything", &[StartAllServices])
}

/// Stops services and withdraws what they write to, from the top down. The same in each sequence that ends the machine.
fn stop(outcome: Outcome) -> Outline {
    Outline::new(Then::End(outcome))
        .phase("stopServices", &[StopAllServices])
        .phase("unmountSystem", &[UnmountEphemeral, UnmountState])
}

/// By the kernel of the installed system, where one can be loaded and no power cycle is asked for.
fn reboot(parameters: &Parameters) -> Outline {
    let stopped = stop(Outcome::Reboot);
    match parameters {
        Parameters::Reboot(RebootMode::Powercycle) => stopped,
        _ => stopped.phase("kexec", &[KexecPrepare]),
    }
}
