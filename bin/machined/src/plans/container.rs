//! Plans of a machine that is a container: its disks, its network and its kernel are its host's.

use sequencer::{Outcome, Request, Sequence, Then};

use super::departure;
use super::outline::{Facts, Outline};
use super::step::Step::{
    CreateEtcFiles, LoadConfig, MountEphemeral, MountPseudoFilesystems, MountState, SetRlimit, SetupSystemDirectory,
    SetupVarDirectory, StartAllServices, StartContainerd, StartMachined, StopAllServices, UnmountEphemeral,
    UnmountState, WriteUserFiles,
};

/// The outline of a sequence; none where a container has no such sequence.
pub(super) fn outline(request: &Request, facts: Facts) -> Option<Outline> {
    match request.sequence {
        Sequence::Initialize => Some(initialize()),
        Sequence::Boot => Some(boot()),
        Sequence::Reboot => Some(stop(departure::of_reboot())),
        Sequence::Shutdown => Some(stop(departure::of_shutdown(request))),
        Sequence::Reset => {
            let begun = Outline::new(Then::End(Outcome::PowerOff));
            Some(stop(departure::of_reset(begun, request, facts)))
        }
        Sequence::Install | Sequence::Upgrade | Sequence::StageUpgrade | Sequence::MaintenanceUpgrade => None,
    }
}

/// From power-on to a configuration.
fn initialize() -> Outline {
    Outline::new(Then::Follow(Sequence::Boot))
        .phase("systemRequirements", &[SetupSystemDirectory, MountPseudoFilesystems, SetRlimit])
        .phase("etc", &[CreateEtcFiles])
        .phase("earlyServices", &[StartMachined])
        .phase("mountSystem", &[MountState, MountEphemeral])
        .phase("var", &[SetupVarDirectory])
        // Its images and containers are below /var.
        .phase("containerd", &[StartContainerd])
        .phase("config", &[LoadConfig])
}

/// Writes the files of the configuration, and waits for all that a configured machine runs.
fn boot() -> Outline {
    Outline::new(Then::Idle).phase("userSetup", &[WriteUserFiles]).phase("startEverything", &[StartAllServices])
}

/// Ends all services, withdraws the volumes from their writers, and ends the machine.
fn stop(departed: Outline) -> Outline {
    departed.phase("stopEverything", &[StopAllServices]).phase("unmountSystem", &[UnmountEphemeral, UnmountState])
}
