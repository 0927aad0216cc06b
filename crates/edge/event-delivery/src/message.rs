//! Events as messages of the wire.

use prost::Message;
use sequencer::events::{Action, ErrorCode, Event, Payload, SequenceAction, SequenceError};
use wire::machine as api;

/// What is before the name of a type in events of the machine API.
pub const API_TYPES: &str = "talos/runtime/";
/// The same for sinks.
pub const SINK_TYPES: &str = "type.googleapis.com/";

/// The id of an event, by which clients go on after it.
#[must_use]
pub fn event_id(event: &Event) -> String {
    format!("{:016x}", event.sequence)
}

/// The content of an event; `types` is what is before the name of its type.
#[must_use]
pub fn any(types: &str, payload: Payload) -> prost_types::Any {
    use api::machine_status_event::{MachineStatus, machine_status::UnmetCondition};
    let any = |name, message: Vec<u8>| prost_types::Any { type_url: format!("{types}machine.{name}"), value: message };
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
            any("SequenceEvent", api::SequenceEvent { sequence, action: action.into(), error }.encode_to_vec())
        }
        Payload::Phase { phase, action } => {
            use api::phase_event::Action as Wire;
            let action = if action == Action::Start { Wire::Start } else { Wire::Stop };
            any("PhaseEvent", api::PhaseEvent { phase, action: action.into() }.encode_to_vec())
        }
        Payload::Task { task, action } => {
            use api::task_event::Action as Wire;
            let action = if action == Action::Start { Wire::Start } else { Wire::Stop };
            any("TaskEvent", api::TaskEvent { task, action: action.into() }.encode_to_vec())
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
            any(
                "ServiceStateEvent",
                api::ServiceStateEvent { service, action: action.into(), message, health }.encode_to_vec(),
            )
        }
        Payload::Restart { command } => any("RestartEvent", api::RestartEvent { cmd: command }.encode_to_vec()),
        Payload::ConfigLoadError { error } => {
            any("ConfigLoadErrorEvent", api::ConfigLoadErrorEvent { error }.encode_to_vec())
        }
        Payload::ConfigValidationError { error } => {
            any("ConfigValidationErrorEvent", api::ConfigValidationErrorEvent { error }.encode_to_vec())
        }
        Payload::Address { hostname, addresses } => {
            any("AddressEvent", api::AddressEvent { hostname, addresses }.encode_to_vec())
        }
        Payload::MachineStatus { stage, ready, unmet } => {
            use api::machine_status_event::MachineStage;
            let stage = MachineStage::from_str_name(&stage.to_uppercase().replace(' ', "_")).unwrap_or_default();
            let unmet_conditions = unmet.into_iter().map(|(name, reason)| UnmetCondition { name, reason }).collect();
            let status = Some(MachineStatus { ready, unmet_conditions });
            any("MachineStatusEvent", api::MachineStatusEvent { stage: stage.into(), status }.encode_to_vec())
        }
    }
}
