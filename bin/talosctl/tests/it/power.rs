//! `reboot` and `shutdown` against a node that has another boot id after each reboot.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use prost::Message as _;
use tonic::{Request, Response, Status};
use wire::machine as api;

use crate::server::{Bench, DEAD_NODE, Mode, Stream, for_nodes};

/// Ids of actors that the node gives.
const ACTOR: &str = "actor";
/// The actor of a node that refuses.
const REFUSED: &str = "refused";

/// The power of the fake node.
#[derive(Debug, Clone)]
pub(crate) struct Power {
    pub(crate) boots: Arc<AtomicUsize>,
}

impl Power {
    pub(crate) async fn reboot(
        self,
        request: Request<api::RebootRequest>,
    ) -> Result<Response<api::RebootResponse>, Status> {
        let is_locked = request.get_ref().mode() == api::reboot_request::Mode::Powercycle;
        if !is_locked {
            self.boots.fetch_add(1, Ordering::SeqCst);
        }
        let actor_id = if is_locked { REFUSED } else { ACTOR };
        let messages = for_nodes(request.metadata(), |metadata, _| api::Reboot { metadata, actor_id: actor_id.into() });
        Ok(Response::new(api::RebootResponse { messages }))
    }

    pub(crate) async fn shutdown(
        self,
        request: Request<api::ShutdownRequest>,
    ) -> Result<Response<api::ShutdownResponse>, Status> {
        let messages = for_nodes(request.metadata(), |metadata, _| api::Shutdown { metadata, actor_id: ACTOR.into() });
        Ok(Response::new(api::ShutdownResponse { messages }))
    }

    /// The boot id.
    pub(crate) async fn read(
        self,
        request: Request<api::ReadRequest>,
    ) -> Result<Response<Stream<wire::common::Data>>, Status> {
        assert_eq!(request.get_ref().path, "/proc/sys/kernel/random/boot_id");
        let text = format!("boot-{}\n", self.boots.load(Ordering::SeqCst));
        let parts = for_nodes(request.metadata(), |metadata, _| {
            Ok(wire::common::Data { metadata, bytes: text.clone().into_bytes().into() })
        });
        Ok(Response::new(tokio_stream::iter(parts)))
    }

    /// Whether this asks for the events of a sequence, or of the boot after it.
    pub(crate) fn follows(&self, request: &Request<api::EventsRequest>) -> bool {
        !request.get_ref().with_actor_id.is_empty() || self.boots.load(Ordering::SeqCst) > 0
    }

    pub(crate) fn events(self, request: Request<api::EventsRequest>) -> Result<Response<Stream<api::Event>>, Status> {
        let event = |id: &str, name: &str, value: Vec<u8>| {
            let data = prost_types::Any { type_url: format!("talos/runtime/machine.{name}"), value };
            Ok(api::Event { metadata: None, data: Some(data), id: id.into(), actor_id: ACTOR.into() })
        };
        let sequence = |error| {
            let event = api::SequenceEvent { sequence: "reboot".into(), action: 1, error };
            event.encode_to_vec()
        };
        let locked = wire::common::Error { code: 1, message: "another sequence runs".into(), details: Vec::new() };
        let events = match request.get_ref().with_actor_id.as_str() {
            REFUSED => vec![event("1", "SequenceEvent", sequence(Some(locked)))],
            ACTOR => {
                let action = api::task_event::Action::Start.into();
                let task = api::TaskEvent { task: "stopAllServices".into(), action };
                vec![event("1", "SequenceEvent", sequence(None)), event("2", "TaskEvent", task.encode_to_vec())]
            }
            _ => {
                let status = api::machine_status_event::MachineStatus { ready: true, unmet_conditions: Vec::new() };
                let stage = api::machine_status_event::MachineStage::Running.into();
                let status = api::MachineStatusEvent { stage, status: Some(status) };
                vec![event("3", "MachineStatusEvent", status.encode_to_vec())]
            }
        };
        Ok(Response::new(tokio_stream::iter(events)))
    }
}

#[test]
fn a_reboot_is_followed_until_the_node_is_ready_again() {
    let bench = Bench::start(Mode::Cluster);
    let outcome = bench.run(&["reboot", "-n", "10.5.0.2", "--timeout", "20s"]);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    for line in ["task stopAllServices: start", "booted again", "stage running, ready: true"] {
        assert!(outcome.stderr.contains(&format!("10.5.0.2: {line}\n")), "{line}: {outcome:?}");
    }
}

#[test]
fn a_shutdown_is_done_when_services_stop() {
    let bench = Bench::start(Mode::Cluster);
    let outcome = bench.run(&["shutdown", "-n", "10.5.0.2", "--timeout", "20s"]);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert!(outcome.stderr.ends_with("10.5.0.2: services stop; the machine ends\n"), "{outcome:?}");
}

#[test]
fn a_refused_reboot_fails_with_the_reason() {
    let bench = Bench::start(Mode::Cluster);
    let outcome = bench.run(&["reboot", "-n", "10.5.0.2", "-m", "powercycle", "--timeout", "20s"]);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(outcome.stderr.contains("reboot: another sequence runs"), "{outcome:?}");
}

#[test]
fn nobody_waits_who_does_not_want_to() {
    let bench = Bench::start(Mode::Cluster);
    let outcome = bench.run(&["reboot", "-n", "10.5.0.2", "--wait=false"]);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""), "{outcome:?}");
}

#[test]
fn a_node_that_does_not_answer_is_not_rebooted_and_others_are() {
    let bench = Bench::start(Mode::Cluster);
    let outcome = bench.run(&["reboot", "-n", &format!("10.5.0.2,{DEAD_NODE}"), "--timeout", "20s"]);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(outcome.stderr.contains("10.5.0.2: booted again\n"), "{outcome:?}");
    assert!(outcome.stderr.contains(&format!("error: {DEAD_NODE}: ")), "{outcome:?}");
}
