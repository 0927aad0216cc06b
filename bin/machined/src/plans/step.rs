//! The tasks of all plans: their names, their time, and the effect of a failure.

use std::time::Duration;

use domain_runtime::platform_status::PATIENCE;
use sequencer::{CONFIG_PAUSE, OnFailure};

/// A task that only talks to the kernel.
const QUICK: Duration = Duration::from_secs(30);
/// A task that waits for all devices of the machine: they are given up a little earlier.
const ALL_DEVICES: Duration = PATIENCE.saturating_add(Duration::from_secs(60));
/// A task that waits for a device.
const DEVICES: Duration = Duration::from_secs(90);
/// A task that waits for a volume: repairing a large file system may take 40 minutes.
const VOLUMES: Duration = Duration::from_secs(45 * 60);
/// How long a machine may take to bring all services up (Talos 1.7: 70 minutes; a control plane waits for bootstrap).
const BOOT: Duration = Duration::from_secs(70 * 60);
/// An installation: pulling an image over a slow line, and writing it to a slow disk.
const INSTALL: Duration = Duration::from_secs(30 * 60);
/// Wiping: disks may take long to discard their content.
const WIPE: Duration = Duration::from_secs(10 * 60);
/// How long pods may take to go elsewhere, and a member to leave (Talos 1.7).
const DEPARTURE: Duration = Duration::from_secs(5 * 60);
/// How long pods may take to end (Talos 1.7): the kubelet ends them, and what it leaves is ended without it.
const PODS: Duration = logind::LONGEST_DELAY.saturating_add(Duration::from_secs(3 * 60));
/// How long services may take to end: more than the supervisor gives them.
const STOP: Duration = Duration::from_secs(90);

/// A task of a plan. Its name is the one that events and logs have (Talos 1.7, where it has this task).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    EnforceKsppRequirements,
    SetupSystemDirectory,
    MountBpfFs,
    MountCgroups,
    MountPseudoFilesystems,
    SetRlimit,
    WriteImaPolicy,
    LoadModules,
    CreateSystemCgroups,
    CreateOsReleaseFile,
    CreateEtcFiles,
    StartUdevd,
    StartMachined,
    StartSyslogd,
    StartDbus,
    StopDbus,
    WaitForDevices,
    WipeDisks,
    Install,
    StartArrays,
    ActivateLogicalVolumes,
    MountUserDisks,
    UnmountUserDisks,
    MountState,
    UnmountState,
    MountEphemeral,
    UnmountEphemeral,
    SetupVarDirectory,
    StartContainerd,
    LoadConfig,
    SaveConfig,
    MemorySizeCheck,
    DiskSizeCheck,
    WriteUdevRules,
    WriteUserFiles,
    StartAllServices,
    CordonAndDrain,
    StopAllPods,
    RemoveAllPods,
    LeaveEtcd,
    SendResetSignal,
    StopAllServices,
    KexecPrepare,
    NoteWhatHolds,
    StageUpgrade,
    TakeStagedUpgrade,
    Upgrade,
    WipeEphemeral,
    PrepareTrial,
    VerifyDisksToWipe,
    ForceCleanup,
    ReleaseDeviceGroups,
    ResetSystemDisk,
    ResetSystemPartitions,
    ResetUserDisks,
}

impl Step {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::EnforceKsppRequirements => "enforceKSPPRequirements",
            Self::SetupSystemDirectory => "setupSystemDirectory",
            Self::MountBpfFs => "mountBPFFS",
            Self::MountCgroups => "mountCgroups",
            Self::MountPseudoFilesystems => "mountPseudoFilesystems",
            Self::SetRlimit => "setRLimit",
            Self::WriteImaPolicy => "writeIMAPolicy",
            // Ours: Talos 1.7 has them in its kernel.
            Self::LoadModules => "loadModules",
            Self::CreateSystemCgroups => "CreateSystemCgroups",
            Self::CreateOsReleaseFile => "createOSReleaseFile",
            Self::CreateEtcFiles => "createEtcFiles",
            Self::StartUdevd => "startUdevd",
            Self::StartMachined => "startMachined",
            Self::StartSyslogd => "startSyslogd",
            Self::StartDbus => "startDBus",
            Self::StopDbus => "stopDBus",
            // Talos 1.7 waits for disks of USB alone here; ours waits for all that udev has to find.
            Self::WaitForDevices => "waitForUSB",
            Self::WipeDisks => "wipeSystemDisk",
            Self::Install => "install",
            // Ours: Talos 1.7 starts no array that lacks a disk.
            Self::StartArrays => "startArrays",
            Self::ActivateLogicalVolumes => "activateLogicalVolumes",
            Self::MountUserDisks => "mountUserDisks",
            Self::UnmountUserDisks => "unmountUserDisks",
            Self::MountState => "mountStatePartition",
            Self::UnmountState => "unmountStatePartition",
            Self::MountEphemeral => "mountEphemeralPartition",
            Self::UnmountEphemeral => "unmountEphemeralPartition",
            Self::SetupVarDirectory => "setupVarDirectory",
            Self::StartContainerd => "startContainerd",
            Self::LoadConfig => "loadConfig",
            Self::SaveConfig => "saveConfig",
            Self::MemorySizeCheck => "memorySizeCheck",
            Self::DiskSizeCheck => "diskSizeCheck",
            Self::WriteUdevRules => "writeUdevRules",
            Self::WriteUserFiles => "writeUserFiles",
            Self::StartAllServices => "startAllServices",
            Self::CordonAndDrain => "cordonAndDrainNode",
            Self::StopAllPods => "stopAllPods",
            Self::RemoveAllPods => "removeAllPods",
            Self::LeaveEtcd => "leaveEtcd",
            Self::SendResetSignal => "sendResetSignal",
            Self::StopAllServices => "stopAllServices",
            Self::KexecPrepare => "kexecPrepare",
            // Ours: Talos 1.7 has no trial of a version.
            Self::NoteWhatHolds => "noteWhatHolds",
            // Ours: Talos 1.7 writes META outside of its sequences.
            Self::StageUpgrade => "stageUpgrade",
            Self::TakeStagedUpgrade => "takeStagedUpgrade",
            Self::Upgrade => "upgrade",
            Self::WipeEphemeral => "wipeSystemDiskPartitions",
            // Ours as well.
            Self::PrepareTrial => "prepareTrial",
            // Ours: Talos 1.7 looks at disks when it wipes them.
            Self::VerifyDisksToWipe => "verifyDisksToWipe",
            Self::ForceCleanup => "forceCleanup",
            // Ours: Talos 1.7 wipes no disk with active volumes.
            Self::ReleaseDeviceGroups => "releaseDeviceGroups",
            Self::ResetSystemDisk => "resetSystemDisk",
            Self::ResetSystemPartitions => "resetSystemDiskSpec",
            Self::ResetUserDisks => "resetUserDisks",
        }
    }

    /// How long one attempt may take; none waits for an operator without a limit.
    pub(crate) const fn deadline(self) -> Option<Duration> {
        match self {
            Self::LoadConfig => None,
            Self::WaitForDevices | Self::WriteUdevRules => Some(ALL_DEVICES),
            Self::MountState | Self::MountEphemeral | Self::MountUserDisks => Some(VOLUMES),
            Self::StartArrays | Self::ActivateLogicalVolumes | Self::ReleaseDeviceGroups => Some(DEVICES),
            Self::StartAllServices => Some(BOOT),
            Self::Install | Self::Upgrade => Some(INSTALL),
            Self::WipeDisks
            | Self::WipeEphemeral
            | Self::ResetSystemDisk
            | Self::ResetSystemPartitions
            | Self::ResetUserDisks => Some(WIPE),
            Self::CordonAndDrain | Self::LeaveEtcd => Some(DEPARTURE),
            Self::StopAllPods | Self::RemoveAllPods => Some(PODS),
            Self::StopAllServices | Self::ForceCleanup => Some(STOP),
            _ => Some(QUICK),
        }
    }

    /// The effect of its failure, unless its plan says otherwise.
    pub(crate) const fn on_failure(self) -> OnFailure {
        match self {
            // The machine stays reachable meanwhile: another configuration may name another disk or image.
            Self::Install | Self::MountUserDisks | Self::WriteUserFiles => {
                OnFailure::PauseForConfig { at_most: CONFIG_PAUSE }
            }
            // Nothing was done yet.
            Self::NoteWhatHolds | Self::VerifyDisksToWipe => OnFailure::Refuse,
            // What does not end, or stays in use, keeps no machine from ending, and a device that hangs none from starting.
            // A kernel that keeps its own rules of measuring is as good. Sizes are only warned of, and a cluster that does not
            // answer keeps no machine from leaving it.
            Self::CordonAndDrain
            | Self::StopAllPods
            | Self::RemoveAllPods
            | Self::SendResetSignal
            | Self::StartDbus
            | Self::StopDbus
            | Self::StopAllServices
            | Self::UnmountState
            | Self::UnmountEphemeral
            | Self::UnmountUserDisks
            | Self::StartArrays
            | Self::ActivateLogicalVolumes
            | Self::ReleaseDeviceGroups
            | Self::WaitForDevices
            | Self::MemorySizeCheck
            | Self::DiskSizeCheck
            | Self::WriteImaPolicy
            | Self::LoadModules
            | Self::KexecPrepare
            | Self::ForceCleanup
            // A staged upgrade that cannot be deleted would be performed for ever: the machine starts without it.
            | Self::TakeStagedUpgrade
            | Self::WriteUdevRules => OnFailure::Ignore,
            _ => OnFailure::Abort,
        }
    }
}
