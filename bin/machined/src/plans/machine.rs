//! Plans of a machine with a kernel and disks of its own.
//!
//! A phase without a step here is one that waits for its work: dashboard, D-Bus, encryption, measured boot.

use sequencer::{
    Outcome, Parameters, RebootMode, Request, ResetParameters, Sequence, Then, UpgradeParameters, WipeMode,
};

use super::departure;
use super::outline::{Data, Facts, Outline};
use super::step::Step::{
    ActivateLogicalVolumes, CreateEtcFiles, CreateOsReleaseFile, CreateSystemCgroups, DiskSizeCheck,
    EnforceKsppRequirements, ForceCleanup, Install, KexecPrepare, LoadConfig, LoadModules, MemorySizeCheck, MountBpfFs,
    MountCgroups, MountEphemeral, MountPseudoFilesystems, MountState, MountUserDisks, NoteWhatHolds, PrepareTrial,
    ReleaseDeviceGroups, ResetSystemDisk, ResetSystemPartitions, ResetUserDisks, SaveConfig, SetRlimit,
    SetupSystemDirectory, SetupVarDirectory, StageUpgrade, StartAllServices, StartArrays, StartDbus, StartMachined,
    StartSyslogd, StartUdevd, StopAllServices, StopDbus, TakeStagedUpgrade, UnmountEphemeral, UnmountState,
    UnmountUserDisks, Upgrade, VerifyDisksToWipe, WaitForDevices, WipeDisks, WipeEphemeral, WriteImaPolicy,
    WriteUdevRules, WriteUserFiles,
};

/// The outline of a sequence; none where this machine has no such sequence.
pub(super) fn outline(request: &Request, facts: Facts) -> Option<Outline> {
    match request.sequence {
        Sequence::Initialize => Some(initialize(facts)),
        Sequence::Install => Some(install(facts)),
        Sequence::Boot => Some(boot()),
        Sequence::Reboot => Some(reboot(&request.options.parameters)),
        Sequence::Shutdown => Some(stop(departure::of_shutdown(request))),
        Sequence::Reset => Some(reset(request, facts)),
        Sequence::Upgrade => Some(upgrade(request, facts)),
        Sequence::StageUpgrade => Some(stage_upgrade(request, facts)),
        Sequence::MaintenanceUpgrade => Some(maintenance_upgrade(request)),
    }
}

/// From power-on to a configuration.
fn initialize(facts: Facts) -> Outline {
    let devices = Outline::new(Then::Follow(Sequence::Install))
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
        .phase("integrity", &[WriteImaPolicy])
        .phase("etc", &[LoadModules, CreateSystemCgroups, CreateOsReleaseFile, CreateEtcFiles])
        .phase("earlyServices", &[StartUdevd, StartMachined, StartSyslogd])
        .phase("usb", &[WaitForDevices])
        .phase("meta", &[TakeStagedUpgrade]);
    let wiped = if facts.wipe_asked { devices.phase("wipeDisks", &[WipeDisks]) } else { devices };
    wiped
        // A damaged volume is for an operator, who needs a machine that stays up.
        .optional_phase("mountSystem", &[MountState])
        .phase("config", &[LoadConfig])
        .phase("unmountSystem", &[UnmountState])
}

/// Puts the system on a disk where it is on none, and starts it from there; or another version beside the one that runs, where
/// that was staged.
fn install(facts: Facts) -> Outline {
    if facts.installed {
        if let Some(data) = facts.staged {
            // Of `initialize`, which goes on where it is busy.
            let unmounted = Outline::new(Then::End(Outcome::Reboot)).phase("unmountSystem", &[UnmountState]);
            return beside(unmounted, data).phase("stopEverything", &[StopAllServices]).phase("kexec", &[KexecPrepare]);
        }
        return Outline::new(Then::Follow(Sequence::Boot));
    }
    Outline::new(Then::End(Outcome::Reboot))
        .phase("install", &[Install])
        .phase("mountState", &[MountState])
        .phase("saveConfig", &[SaveConfig])
        .phase("stopEverything", &[StopAllServices])
        .phase("unmountState", &[UnmountState])
        .phase("kexec", &[KexecPrepare])
}

/// From a configuration to all that a configured machine runs.
fn boot() -> Outline {
    Outline::new(Then::Idle)
        .phase("mountState", &[MountState])
        .phase("saveConfig", &[SaveConfig])
        .phase("memorySizeCheck", &[MemorySizeCheck])
        .phase("diskSizeCheck", &[DiskSizeCheck])
        .phase("dbus", &[StartDbus])
        .phase("ephemeral", &[MountEphemeral])
        .phase("var", &[SetupVarDirectory])
        .phase("udevSetup", &[WriteUdevRules])
        .phase("raid", &[StartArrays])
        .phase("userDisks", &[MountUserDisks])
        .phase("userSetup", &[WriteUserFiles])
        .phase("lvm", &[ActivateLogicalVolumes])
        .phase("startEverything", &[StartAllServices])
}

/// Stops services and withdraws what they write to, from the top down. The same in each sequence that ends the machine.
fn stop(departed: Outline) -> Outline {
    departed
        .after("cleanup", "dbus", &[StopDbus])
        .phase("stopServices", &[StopAllServices])
        .phase("unmountUser", &[UnmountUserDisks])
        .phase("unmountSystem", &[UnmountEphemeral, UnmountState])
}

/// By the kernel of the installed system, where one can be loaded and no power cycle is asked for.
fn reboot(parameters: &Parameters) -> Outline {
    let stopped = stop(departure::of_reboot());
    match parameters {
        Parameters::Reboot(RebootMode::Powercycle) => stopped,
        _ => stopped.phase("kexec", &[KexecPrepare]),
    }
}

/// Stops all, installs another version beside the one that runs, and has it started on trial. Until the last step but one the
/// machine comes back with the version that it has, whatever fails.
fn upgrade(request: &Request, facts: Facts) -> Outline {
    let upgrade = upgrade_parameters(request);
    let noted = Outline::new(Then::End(Outcome::Reboot)).phase("verify", &[NoteWhatHolds]);
    let stopped = stop(departure::of_upgrade(noted, upgrade.preserve, facts)).phase("forceCleanup", &[ForceCleanup]);
    by_kexec(beside(stopped, Data::of(upgrade.preserve)), upgrade.reboot)
}

/// Another version beside the one that runs, which is started on trial.
fn beside(stopped: Outline, data: Data) -> Outline {
    let installed = stopped.phase("upgrade", &[Upgrade]);
    let wiped = match data {
        Data::Preserved => installed,
        Data::Wiped => installed.phase("wipe", &[WipeEphemeral]),
    };
    wiped.phase("meta", &[PrepareTrial])
}

fn by_kexec(outline: Outline, reboot: RebootMode) -> Outline {
    match reboot {
        RebootMode::Powercycle => outline,
        RebootMode::Default => outline.phase("kexec", &[KexecPrepare]),
    }
}

/// Stops all, and leaves the upgrade to the next start. It is staged once the node has left etcd, where it does: a start that
/// performs it wipes the member's data.
fn stage_upgrade(request: &Request, facts: Facts) -> Outline {
    let upgrade = upgrade_parameters(request);
    let noted = Outline::new(Then::End(Outcome::Reboot)).phase("verify", &[NoteWhatHolds]);
    let departed = departure::of_staged_upgrade(noted, upgrade.preserve, facts);
    by_kexec(stop(departed.phase("meta", &[StageUpgrade])), upgrade.reboot)
}

/// An upgrade of a machine that waits for a configuration: it runs nothing, and is in no cluster.
fn maintenance_upgrade(request: &Request) -> Outline {
    let upgrade = upgrade_parameters(request);
    let stopped = Outline::new(Then::End(Outcome::Reboot))
        .phase("stopServices", &[StopAllServices])
        .phase("unmountSystem", &[UnmountState])
        .phase("forceCleanup", &[ForceCleanup]);
    by_kexec(beside(stopped, Data::of(upgrade.preserve)), upgrade.reboot)
}

fn upgrade_parameters(request: &Request) -> UpgradeParameters {
    match &request.options.parameters {
        Parameters::Upgrade(upgrade) => upgrade.clone(),
        _ => UpgradeParameters::default(),
    }
}

/// Stops all, and wipes what is asked for. Whether the machine reboots after it is up to the request.
fn reset(request: &Request, facts: Facts) -> Outline {
    let defaults = ResetParameters::default();
    let reset = if let Parameters::Reset(reset) = &request.options.parameters { reset } else { &defaults };
    // What cannot be wiped is found before the node leaves its cluster.
    let verified = Outline::new(Then::End(Outcome::PowerOff)).phase("verifyDisks", &[VerifyDisksToWipe]);
    let mut outline = stop(departure::of_reset(verified, request, facts));
    // A machine that keeps its kernels can start one of them.
    if !reset.labels.is_empty() && !reset.labels.iter().any(|label| label == "BOOT") {
        outline = outline.phase("kexec", &[KexecPrepare]);
    }
    outline = outline.phase("forceCleanup", &[ForceCleanup]);
    if !reset.user_disks.is_empty() {
        outline = outline.phase("groups", &[ReleaseDeviceGroups]);
    }
    outline = match (reset.mode, reset.labels.is_empty()) {
        (WipeMode::UserDisks, _) => outline,
        (_, true) => outline.phase("reset", &[ResetSystemDisk]),
        (_, false) => outline.phase("resetSpec", &[ResetSystemPartitions]),
    };
    if reset.user_disks.is_empty() { outline } else { outline.phase("resetUserDisks", &[ResetUserDisks]) }
}
