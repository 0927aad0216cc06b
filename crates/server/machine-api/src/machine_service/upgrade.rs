//! Another version of the system: `Upgrade` and `Rollback`.

use sequencer::{ActorId, Parameters, RebootMode, Refused, Request, Sequence, UpgradeParameters};
use stdx::error_chain;
use tonic::Status;
use wire::machine as api;

use crate::machine::{Machine, VersionsError};

/// Upgrades the machine. Whatever could be refused is, before anything of it stops: the image is in memory and runs.
pub(super) async fn upgrade(machine: &Machine, request: &api::UpgradeRequest) -> Result<api::Upgrade, Status> {
    if request.image.is_empty() {
        return Err(Status::invalid_argument("no installer image is given"));
    }
    if request.stage {
        return Err(Status::unimplemented("Upgrade with stage is not available yet: it waits for staged upgrades"));
    }
    if !request.force {
        let kept = |error: crate::BoxError| {
            let reason = error_chain(error.as_ref());
            Status::failed_precondition(format!("this node cannot be upgraded now: {reason}; --force skips this check"))
        };
        machine.etcd.can_be_away(request.preserve).await.map_err(kept)?;
    }
    machine.versions.fetch(&request.image).await.map_err(|error| refused(&error))?;
    let reboot = match request.reboot_mode() {
        api::upgrade_request::RebootMode::Default => RebootMode::Default,
        api::upgrade_request::RebootMode::Powercycle => RebootMode::Powercycle,
    };
    let image = request.image.clone();
    let parameters = UpgradeParameters { image, preserve: request.preserve, force: request.force, reboot };
    let id = new_actor()?;
    let sequence = Request::new(Sequence::Upgrade, ActorId::new(&id)).with(Parameters::Upgrade(parameters));
    match machine.lifecycle.request(sequence) {
        Ok(_) => {}
        Err(error) => {
            machine.versions.forget();
            // That another sequence runs is an event of the actor, not an error of the call.
            if let Refused::Unsupported(_) = error {
                return Err(Status::failed_precondition(error.to_string()));
            }
        }
    }
    Ok(api::Upgrade { metadata: None, ack: "Upgrade request received".to_owned(), actor_id: id })
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
