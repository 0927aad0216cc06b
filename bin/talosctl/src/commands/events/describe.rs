//! Text for events: subject and message.

use prost_types::Any;
use wire::machine as pb;

/// An event as text.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Described {
    pub(super) event: String,
    pub(super) source: String,
    pub(super) message: String,
}

/// Prefix of the type name in an event's type URL.
const PREFIX: &str = "talos/runtime/";

/// Unknown event types are shown by type only.
pub(super) fn describe(data: Option<&Any>) -> Described {
    let Some(data) = data else { return Described::default() };
    let event = data.type_url.strip_prefix(PREFIX).unwrap_or(&data.type_url).to_owned();
    let (source, message) = details(&event, &data.value).unwrap_or_default();
    Described { event, source, message }
}

fn details(event: &str, value: &[u8]) -> Option<(String, String)> {
    fn read<M: prost::Message + Default>(value: &[u8]) -> Option<M> {
        M::decode(value).ok()
    }
    let said = match event {
        "machine.SequenceEvent" => {
            let event: pb::SequenceEvent = read(value)?;
            let action = event.action().as_str_name().to_lowercase();
            let message = match &event.error {
                Some(error) => format!("error code: {:?}, message: {}", error.code(), error.message),
                None => action,
            };
            (event.sequence, message)
        }
        "machine.PhaseEvent" => {
            let event: pb::PhaseEvent = read(value)?;
            (event.phase.clone(), event.action().as_str_name().to_lowercase())
        }
        "machine.TaskEvent" => {
            let event: pb::TaskEvent = read(value)?;
            (event.task.clone(), event.action().as_str_name().to_lowercase())
        }
        "machine.ServiceStateEvent" => {
            let event: pb::ServiceStateEvent = read(value)?;
            (event.service.clone(), format!("{}: {}", event.action().as_str_name(), event.message))
        }
        "machine.ConfigLoadErrorEvent" => (String::new(), read::<pb::ConfigLoadErrorEvent>(value)?.error),
        "machine.ConfigValidationErrorEvent" => (String::new(), read::<pb::ConfigValidationErrorEvent>(value)?.error),
        "machine.AddressEvent" => {
            let event: pb::AddressEvent = read(value)?;
            (event.hostname, format!("addresses: {}", event.addresses.join(",")))
        }
        "machine.RestartEvent" => (read::<pb::RestartEvent>(value)?.cmd.to_string(), String::new()),
        "machine.MachineStatusEvent" => {
            let event: pb::MachineStatusEvent = read(value)?;
            let status = event.status.clone().unwrap_or_default();
            let unmet: Vec<String> =
                status.unmet_conditions.iter().map(|one| format!("{}: {}", one.name, one.reason)).collect();
            let message = format!("ready: {}, unmet conditions: [{}]", status.ready, unmet.join("; "));
            (event.stage().as_str_name().to_lowercase(), message)
        }
        _ => return None,
    };
    Some(said)
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    #[test]
    fn events_say_what_they_are_about() {
        let event = pb::ServiceStateEvent {
            service: "etcd".to_owned(),
            action: pb::service_state_event::Action::Running.into(),
            message: "Health check successful".to_owned(),
            health: None,
        };
        let any = Any { type_url: "talos/runtime/machine.ServiceStateEvent".to_owned(), value: event.encode_to_vec() };
        let expected = Described {
            event: "machine.ServiceStateEvent".to_owned(),
            source: "etcd".to_owned(),
            message: "RUNNING: Health check successful".to_owned(),
        };
        assert_eq!(describe(Some(&any)), expected);
    }

    #[test]
    fn unknown_events_show_their_type() {
        let any = Any { type_url: "talos/runtime/machine.Later".to_owned(), value: vec![1, 2, 3] };
        let expected = Described { event: "machine.Later".to_owned(), ..Described::default() };
        assert_eq!(describe(Some(&any)), expected);
    }
}
