//! Sequences that the API asks for.

use machine::layout::Label;
use resources::machine::PlatformMode;
use sequencer::{
    ActorId, Outcome, Parameters, RebootMode, Refused, Request, ResetParameters, Sequence, ShutdownParameters, WipeMode,
};
use stdx::error_chain;
use tonic::{Code, Status};
use wire::machine as api;

use crate::machine::{Machine, ResetRefused};

/// Reboots the machine.
pub(super) fn reboot(machine: &Machine, request: &api::RebootRequest) -> Result<api::Reboot, Status> {
    let mode = match request.mode() {
        api::reboot_request::Mode::Default => RebootMode::Default,
        api::reboot_request::Mode::Powercycle => RebootMode::Powercycle,
    };
    let actor_id = ask(machine, |actor| Request::new(Sequence::Reboot, actor).with(Parameters::Reboot(mode)))?;
    Ok(api::Reboot { metadata: None, actor_id })
}

/// Powers the machine off.
pub(super) fn shutdown(machine: &Machine, request: &api::ShutdownRequest) -> Result<api::Shutdown, Status> {
    let parameters = Parameters::Shutdown(ShutdownParameters { force: request.force });
    let actor_id = ask(machine, |actor| Request::new(Sequence::Shutdown, actor).with(parameters))?;
    Ok(api::Shutdown { metadata: None, actor_id })
}

/// Wipes disks of the machine, and ends it. A machine that is a container has none: it ends. A reset of disks or partitions
/// that cannot be wiped, and a graceful one of a node that cannot leave etcd, are refused before anything is changed.
pub(super) async fn reset(machine: &Machine, request: &api::ResetRequest) -> Result<api::Reset, Status> {
    let parameters = match machine.capabilities()?.mode {
        PlatformMode::Container => no_disks(request)?,
        PlatformMode::Metal | PlatformMode::Cloud => {
            let reset = reset_parameters(request)?;
            machine.reset_targets.check(&reset).await.map_err(|error| refused(&error))?;
            Parameters::Reset(reset)
        }
    };
    if request.graceful {
        let kept = |error: crate::BoxError| {
            Status::failed_precondition(format!("this node cannot leave etcd: {}", error_chain(error.as_ref())))
        };
        machine.etcd.can_leave().await.map_err(kept)?;
    }
    let outcome = if request.reboot { Outcome::Reboot } else { Outcome::PowerOff };
    let reset = |actor| Request::new(Sequence::Reset, actor).with(parameters).ending_in(outcome);
    Ok(api::Reset { metadata: None, actor_id: ask(machine, reset)? })
}

/// The disks of a container are its host's: nothing is wiped.
fn no_disks(request: &api::ResetRequest) -> Result<Parameters, Status> {
    if request.system_partitions_to_wipe.is_empty() && request.user_disks_to_wipe.is_empty() {
        return Ok(Parameters::Reset(ResetParameters { graceful: request.graceful, ..ResetParameters::default() }));
    }
    Err(Status::internal("a container has no disks to wipe"))
}

fn refused(error: &ResetRefused) -> Status {
    let code = match error {
        ResetRefused::Invalid(_) => Code::InvalidArgument,
        ResetRefused::Absent(_) => Code::NotFound,
        ResetRefused::NotPossible(_) => Code::FailedPrecondition,
    };
    Status::new(code, format!("nothing was reset: {error}"))
}

fn reset_parameters(request: &api::ResetRequest) -> Result<ResetParameters, Status> {
    let mode = match request.mode() {
        api::reset_request::WipeMode::All => WipeMode::All,
        api::reset_request::WipeMode::SystemDisk => WipeMode::SystemDisk,
        api::reset_request::WipeMode::UserDisks => WipeMode::UserDisks,
    };
    let specs = request.system_partitions_to_wipe.iter();
    let labels: Vec<String> = specs.filter(|spec| spec.wipe).map(|spec| spec.label.clone()).collect();
    if let Some(unknown) = labels.iter().find(|label| Label::from_name(label).is_none()) {
        let known = Label::ALL.map(Label::name).join(", ");
        return Err(Status::invalid_argument(format!(
            "{unknown:?} is no partition of a system disk; these are {known}"
        )));
    }
    let user_disks = request.user_disks_to_wipe.clone();
    let reason = match mode {
        WipeMode::SystemDisk if !user_disks.is_empty() => "user disks to wipe, but only the system disk is to be wiped",
        WipeMode::UserDisks if !labels.is_empty() => "partitions to wipe, but only user disks are to be wiped",
        WipeMode::UserDisks if user_disks.is_empty() => "only user disks are to be wiped, but none is given",
        _ => return Ok(ResetParameters { graceful: request.graceful, mode, labels, user_disks }),
    };
    Err(Status::invalid_argument(reason))
}

/// Asks for a sequence as a new actor, whose id is the answer.
fn ask(machine: &Machine, request: impl FnOnce(ActorId) -> Request) -> Result<String, Status> {
    let id = sys::host::random_uuid().map_err(|error| Status::internal(format!("making an actor id: {error}")))?;
    // That another sequence runs is an event of the actor, not an error of the call.
    match machine.lifecycle.request(request(ActorId::new(&id))) {
        Err(error @ Refused::Unsupported(_)) => Err(Status::failed_precondition(error.to_string())),
        Ok(_) | Err(Refused::Locked(_)) => Ok(id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(mode: api::reset_request::WipeMode, labels: &[&str], user_disks: &[&str]) -> api::ResetRequest {
        let spec = |label: &&str| api::ResetPartitionSpec { label: (*label).to_owned(), wipe: true };
        api::ResetRequest {
            graceful: true,
            system_partitions_to_wipe: labels.iter().map(spec).collect(),
            user_disks_to_wipe: user_disks.iter().map(ToString::to_string).collect(),
            mode: mode.into(),
            ..api::ResetRequest::default()
        }
    }

    #[test]
    fn labels_and_disks_become_parameters() {
        let parameters =
            reset_parameters(&request(api::reset_request::WipeMode::All, &["STATE"], &["/dev/vdb"])).unwrap();
        let expected = ResetParameters {
            graceful: true,
            mode: WipeMode::All,
            labels: vec!["STATE".into()],
            user_disks: vec!["/dev/vdb".into()],
        };
        assert_eq!(parameters, expected);
    }

    #[test]
    fn contradictions_are_refused() {
        use api::reset_request::WipeMode::{SystemDisk, UserDisks};
        let code =
            |mode, labels: &[&str], disks: &[&str]| reset_parameters(&request(mode, labels, disks)).unwrap_err().code();
        assert_eq!(code(SystemDisk, &[], &["/dev/vdb"]), Code::InvalidArgument);
        assert_eq!(code(UserDisks, &["STATE"], &["/dev/vdb"]), Code::InvalidArgument);
        assert_eq!(code(UserDisks, &[], &[]), Code::InvalidArgument);
        assert_eq!(code(SystemDisk, &["DATA"], &[]), Code::InvalidArgument);
    }
}
