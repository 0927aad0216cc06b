//! The event bus as messages of the API.

use futures::stream::{self, BoxStream, StreamExt};
use prost::Message;
use sequencer::events::{Action, ErrorCode, Event, Payload, SequenceAction, SequenceError};
use tonic::Status;
use wire::machine as api;

use crate::machine::Machine;

/// Prefix of the type name in an event's type URL.
const PREFIX: &str = "talos/runtime/";

/// The requested past events, then each later one.
pub(super) fn events(
    machine: &Machine,
    request: &api::EventsRequest,
) -> Result<BoxStream<'static, Result<api::Event, Status>>, Status> {
    let kept = machine.events.kept();
    let from = first_wanted(&kept, request, machine)?;
    let actor = request.with_actor_id.clone();
    let wanted = move |event: &Event| actor.is_empty() || event.actor == actor;
    let follower = machine.events.follow(|event| event.sequence >= from);
    let events = stream::unfold(follower, |mut follower| async move { Some((follower.next().await?, follower)) });
    let events = events.filter(move |event| std::future::ready(wanted(event)));
    Ok(events.map(|event| Ok(message(event))).boxed())
}

/// The sequence number of the first past event to send.
fn first_wanted(kept: &[Event], request: &api::EventsRequest, machine: &Machine) -> Result<u64, Status> {
    let next = kept.last().map_or(0, |event| event.sequence + 1);
    if !request.tail_id.is_empty() {
        let after = u64::from_str_radix(&request.tail_id, 16)
            .map_err(|_| Status::invalid_argument(format!("event id {:?} is none of ours", request.tail_id)))?;
        return Ok(after.saturating_add(1));
    }
    if request.tail_seconds > 0 {
        let now = machine.clock.now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let since = i64::try_from(now.as_secs()).unwrap_or(i64::MAX) - i64::from(request.tail_seconds);
        return Ok(kept.iter().find(|event| event.at >= since).map_or(next, |event| event.sequence));
    }
    match usize::try_from(request.tail_events) {
        Ok(0) => Ok(next),
        Ok(events) => Ok(kept.iter().rev().nth(events - 1).or(kept.first()).map_or(next, |event| event.sequence)),
        // Negative: everything that is kept.
        Err(_) => Ok(0),
    }
}

fn message(event: Event) -> api::Event {
    api::Event {
        metadata: None,
        data: Some(payload(event.payload)),
        id: format!("{:016x}", event.sequence),
        actor_id: event.actor,
    }
}

fn any<M: Message>(name: &str, message: &M) -> prost_types::Any {
    prost_types::Any { type_url: format!("{PREFIX}machine.{name}"), value: message.encode_to_vec() }
}

fn payload(payload: Payload) -> prost_types::Any {
    use api::machine_status_event::{MachineStatus, machine_status::UnmetCondition};
    match payload {
        Payload::Sequence { sequence, action, error } => {
            use api::sequence_event::Action as Wire;
            let action = match action {
                SequenceAction::Noop => Wire::Noop,
                SequenceAction::Start => Wire::Start,
                SequenceAction::Stop => Wire::Stop,
            };
            let error = error.map(|SequenceError { code, message }| {
                let code = match code {
                    ErrorCode::Fatal => wire::common::Code::Fatal,
                    ErrorCode::Locked => wire::common::Code::Locked,
                    ErrorCode::Canceled => wire::common::Code::Canceled,
                };
                wire::common::Error { code: code.into(), message, details: Vec::new() }
            });
            any("SequenceEvent", &api::SequenceEvent { sequence, action: action.into(), error })
        }
        Payload::Phase { phase, action } => {
            use api::phase_event::Action as Wire;
            let action = if action == Action::Start { Wire::Start } else { Wire::Stop };
            any("PhaseEvent", &api::PhaseEvent { phase, action: action.into() })
        }
        Payload::Task { task, action } => {
            use api::task_event::Action as Wire;
            let action = if action == Action::Start { Wire::Start } else { Wire::Stop };
            any("TaskEvent", &api::TaskEvent { task, action: action.into() })
        }
        Payload::ServiceState { service, state, message, health } => {
            use api::service_state_event::Action as Wire;
            let action = Wire::from_str_name(&state.to_uppercase()).unwrap_or(Wire::Initialized);
            let health = health.map(|health| api::ServiceHealth {
                unknown: health.unknown,
                healthy: health.healthy,
                last_message: health.message,
                last_change: None,
            });
            any("ServiceStateEvent", &api::ServiceStateEvent { service, action: action.into(), message, health })
        }
        Payload::Restart { command } => any("RestartEvent", &api::RestartEvent { cmd: command }),
        Payload::ConfigLoadError { error } => any("ConfigLoadErrorEvent", &api::ConfigLoadErrorEvent { error }),
        Payload::ConfigValidationError { error } => {
            any("ConfigValidationErrorEvent", &api::ConfigValidationErrorEvent { error })
        }
        Payload::Address { hostname, addresses } => any("AddressEvent", &api::AddressEvent { hostname, addresses }),
        Payload::MachineStatus { stage, ready, unmet } => {
            use api::machine_status_event::MachineStage;
            let stage = MachineStage::from_str_name(&stage.to_uppercase().replace(' ', "_")).unwrap_or_default();
            let unmet_conditions = unmet.into_iter().map(|(name, reason)| UnmetCondition { name, reason }).collect();
            let status = Some(MachineStatus { ready, unmet_conditions });
            any("MachineStatusEvent", &api::MachineStatusEvent { stage: stage.into(), status })
        }
    }
}
