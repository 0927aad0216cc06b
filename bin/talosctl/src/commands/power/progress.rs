//! What the events of a sequence tell somebody who waits for its end. Pure: events in, progress out.

use prost_types::Any;
use wire::machine as pb;

/// The task after which a machine that shuts down or is reset answers no more.
const LAST_TASK: &str = "stopAllServices";
const PREFIX: &str = "talos/runtime/";

/// What has been seen so far.
#[derive(Debug, Default)]
pub(super) struct Progress {
    seen: std::collections::HashSet<String>,
    /// Services are being stopped, or have stopped.
    pub(super) services_stopped: bool,
    /// The machine runs and is ready, by the last event of its status.
    pub(super) ready: bool,
    /// The sequence was refused or has failed.
    pub(super) failed: Option<String>,
}

impl Progress {
    /// Takes an event; returns a line for the operator. An event that came before says nothing again: reconnecting replays
    /// all events.
    pub(super) fn take(&mut self, event: &pb::Event) -> Option<String> {
        let data = event.data.as_ref()?;
        if !self.seen.insert(event.id.clone()) {
            return None;
        }
        match data.type_url.strip_prefix(PREFIX)? {
            "machine.SequenceEvent" => self.sequence(&decode(data)?),
            "machine.PhaseEvent" => {
                let event: pb::PhaseEvent = decode(data)?;
                Some(format!("phase {}: {}", event.phase, action(event.action().as_str_name())))
            }
            "machine.TaskEvent" => {
                let event: pb::TaskEvent = decode(data)?;
                self.services_stopped |= event.task == LAST_TASK;
                Some(format!("task {}: {}", event.task, action(event.action().as_str_name())))
            }
            "machine.MachineStatusEvent" => {
                let event: pb::MachineStatusEvent = decode(data)?;
                let ready = event.status.as_ref().is_some_and(|status| status.ready);
                self.ready = ready && event.stage() == pb::machine_status_event::MachineStage::Running;
                Some(format!("stage {}, ready: {ready}", event.stage().as_str_name().to_lowercase()))
            }
            _ => None,
        }
    }

    fn sequence(&mut self, event: &pb::SequenceEvent) -> Option<String> {
        match &event.error {
            Some(error) => {
                self.failed = Some(format!("{}: {}", event.sequence, error.message));
                None
            }
            None => Some(format!("sequence {}: {}", event.sequence, action(event.action().as_str_name()))),
        }
    }
}

fn decode<M: prost::Message + Default>(data: &Any) -> Option<M> {
    M::decode(data.value.as_slice()).ok()
}

fn action(name: &str) -> String {
    name.to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: &str, name: &str, message: &impl prost::Message) -> pb::Event {
        let data = Any { type_url: format!("{PREFIX}machine.{name}"), value: message.encode_to_vec() };
        pb::Event { id: id.into(), actor_id: "a".into(), data: Some(data), metadata: None }
    }

    #[test]
    fn a_task_is_told_once_although_events_are_replayed() {
        let mut progress = Progress::default();
        let task = pb::TaskEvent { task: LAST_TASK.into(), action: pb::task_event::Action::Start.into() };
        let event = event("1", "TaskEvent", &task);
        assert_eq!(progress.take(&event).as_deref(), Some("task stopAllServices: start"));
        assert!(progress.services_stopped);
        assert_eq!(progress.take(&event), None);
    }

    #[test]
    fn a_refused_sequence_is_a_failure_with_its_reason() {
        let mut progress = Progress::default();
        let error = wire::common::Error { code: 1, message: "another sequence runs".into(), details: Vec::new() };
        let refused = pb::SequenceEvent { sequence: "reboot".into(), action: 0, error: Some(error) };
        assert_eq!(progress.take(&event("1", "SequenceEvent", &refused)), None);
        assert_eq!(progress.failed.as_deref(), Some("reboot: another sequence runs"));
    }

    #[test]
    fn a_machine_is_ready_by_its_last_status() {
        let mut progress = Progress::default();
        let stage = pb::machine_status_event::MachineStage::Running.into();
        let status = |ready| pb::machine_status_event::MachineStatus { ready, unmet_conditions: Vec::new() };
        for (id, ready) in [("1", true), ("2", false)] {
            let message = pb::MachineStatusEvent { stage, status: Some(status(ready)) };
            progress.take(&event(id, "MachineStatusEvent", &message));
            assert_eq!(progress.ready, ready);
        }
    }
}
