//! Sequences that the API asks for.

use resources::machine::PlatformMode;
use sequencer::{ActorId, Outcome, Request, Sequence};
use tonic::Status;
use wire::machine as api;

use crate::machine::Machine;

/// Ends the services of a machine that is a container, and then the machine. Its disks are its host's: nothing is wiped.
pub(super) fn reset(machine: &Machine, request: &api::ResetRequest) -> Result<api::Reset, Status> {
    if machine.capabilities()?.mode != PlatformMode::Container {
        return super::later("Reset", super::DAY_2);
    }
    if !request.system_partitions_to_wipe.is_empty() || !request.user_disks_to_wipe.is_empty() {
        return Err(Status::internal("a container has no disks to wipe"));
    }
    let actor_id =
        sys::host::random_uuid().map_err(|error| Status::internal(format!("making an actor id: {error}")))?;
    let outcome = if request.reboot { Outcome::Reboot } else { Outcome::PowerOff };
    let reset = Request::new(Sequence::Reset, ActorId::new(&actor_id)).ending_in(outcome);
    // That another sequence runs is an event of the actor, not an error of the call.
    if let Err(error @ sequencer::Refused::Unsupported(_)) = machine.lifecycle.request(reset) {
        return Err(Status::failed_precondition(error.to_string()));
    }
    Ok(api::Reset { metadata: None, actor_id })
}
