//! Another version of the system: `Upgrade` and `Rollback`.

use sequencer::{ActorId, Parameters, RebootMode, Refused, Request, Sequence, SequenceId, UpgradeParameters};
use stdx::error_chain;
use tonic::Status;
use wire::machine as api;

use crate::machine::{Machine, VersionsError};

/// Upgrades the machine. Whatever could be refused is, before anything of it stops: the image is in memory and runs. A staged
/// upgrade pulls it again, at the next start.
pub(super) async fn upgrade(machine: &Machine, request: &api::UpgradeRequest) -> Result<api::Upgrade, Status> {
    if request.image.is_empty() {
        return Err(Status::invalid_argument("no installer image is given"));
    }
    let sequence = kind(request, machine.is_in_maintenance())?;
    // A machine in maintenance mode is in no cluster.
    let is_needed = sequence != Sequence::MaintenanceUpgrade && !request.force;
    let away = if is_needed {
        let kept = |error: crate::BoxError| {
            let reason = error_chain(error.as_ref());
            Status::failed_precondition(format!("this node cannot be upgraded now: {reason}; --force skips this check"))
        };
        Some(machine.etcd.go_away(request.preserve).await.map_err(kept)?)
    } else {
        None
    };
    match request_upgrade(machine, request, sequence).await {
        Ok((id, Some(sequence))) => {
            if let Some(away) = away {
                away.until_the_end_of(sequence);
            }
            Ok(acknowledged(id))
        }
        ended => {
            if let Some(away) = away {
                away.stay().await;
            }
            ended.map(|(id, _)| acknowledged(id))
        }
    }
}

fn acknowledged(actor_id: String) -> api::Upgrade {
    api::Upgrade { metadata: None, ack: "Upgrade request received".to_owned(), actor_id }
}

/// The sequence of a request.
fn kind(request: &api::UpgradeRequest, is_in_maintenance: bool) -> Result<Sequence, Status> {
    if !is_in_maintenance {
        return Ok(if request.stage { Sequence::StageUpgrade } else { Sequence::Upgrade });
    }
    let refused = [("preserve", request.preserve), ("stage", request.stage), ("force", request.force)];
    match refused.into_iter().find(|(_, is_asked)| *is_asked) {
        Some((name, _)) => Err(Status::invalid_argument(format!("an upgrade in maintenance mode has no {name}"))),
        None => Ok(Sequence::MaintenanceUpgrade),
    }
}

/// Has the image ready and asks for the sequence. Returns the id of the actor, and that of the sequence if it runs.
async fn request_upgrade(
    machine: &Machine,
    request: &api::UpgradeRequest,
    sequence: Sequence,
) -> Result<(String, Option<SequenceId>), Status> {
    machine.versions.fetch(&request.image).await.map_err(|error| refused(&error))?;
    if sequence == Sequence::StageUpgrade {
        // It is good, and of no use to this start.
        machine.versions.forget();
    }
    let reboot = match request.reboot_mode() {
        api::upgrade_request::RebootMode::Default => RebootMode::Default,
        api::upgrade_request::RebootMode::Powercycle => RebootMode::Powercycle,
    };
    let image = request.image.clone();
    let parameters = UpgradeParameters { image, preserve: request.preserve, force: request.force, reboot };
    let id = new_actor()?;
    let asked = Request::new(sequence, ActorId::new(&id)).with(Parameters::Upgrade(parameters));
    match machine.lifecycle.request(asked) {
        Ok(sequence) => Ok((id, Some(sequence))),
        Err(error) => {
            machine.versions.forget();
            // That another sequence runs is an event of the actor, not an error of the call.
            if let Refused::Unsupported(_) = error {
                return Err(Status::failed_precondition(error.to_string()));
            }
            Ok((id, None))
        }
    }
}

/// Has the boot loader start the other version, and reboots.
pub(super) async fn rollback(machine: &Machine) -> Result<api::Rollback, Status> {
    let version = machine.versions.roll_back().await.map_err(|error| refused(&error))?;
    tracing::info!(version, "rolled back on request");
    let parameters = Parameters::Reboot(RebootMode::Powercycle);
    let reboot = Request::new(Sequence::Reboot, ActorId::new(new_actor()?)).with(parameters).taking_over();
    machine.lifecycle.request(reboot).map_err(|error| Status::failed_precondition(error.to_string()))?;
    Ok(api::Rollback { metadata: None })
}

fn new_actor() -> Result<String, Status> {
    sys::host::random_uuid().map_err(|error| Status::internal(format!("making an actor id: {error}")))
}

fn refused(error: &VersionsError) -> Status {
    match error {
        VersionsError::Image(_) => Status::invalid_argument(error.to_string()),
        VersionsError::NotPossible(_) => Status::failed_precondition(error.to_string()),
    }
}
