use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use sequencer::events::{CAPACITY, Payload, SequenceAction};
use stdx::tasks::{self, Task};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tonic::transport::Server;
use tonic::{Request, Response};
use wire::events::EventResponse;
use wire::events::event_sink_service_server::{EventSinkService, EventSinkServiceServer};

use super::*;

/// A sink that keeps what it gets. Clones are one.
#[derive(Clone, Default)]
struct Kept {
    events: Arc<Mutex<Vec<EventRequest>>>,
    /// It refuses events of this id with this code.
    refused: Arc<Mutex<Option<(String, Code)>>>,
}

#[tonic::async_trait]
impl EventSinkService for Kept {
    async fn publish(&self, request: Request<EventRequest>) -> Result<Response<EventResponse>, Status> {
        let event = request.into_inner();
        if let Some((_, code)) = self.refused.lock().as_ref().filter(|(id, _)| *id == event.id) {
            return Err(Status::new(*code, "no"));
        }
        self.events.lock().push(event);
        Ok(Response::new(EventResponse {}))
    }
}

struct Serving {
    stop: oneshot::Sender<()>,
    task: Task<()>,
}

impl Serving {
    /// Closes its connections as well.
    async fn stop(self) {
        drop(self.stop);
        self.task.join().await.unwrap();
    }
}

impl Kept {
    /// Serves at an address, which it returns.
    async fn serve(&self, at: SocketAddr) -> (SocketAddr, Serving) {
        let listener = TcpListener::bind(at).await.unwrap();
        let at = listener.local_addr().unwrap();
        let service = EventSinkServiceServer::new(self.clone());
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let (stop, stopped) = oneshot::channel::<()>();
        let serve = async move {
            let stopped = async { drop(stopped.await) };
            Server::builder().add_service(service).serve_with_incoming_shutdown(incoming, stopped).await.unwrap();
        };
        (at, Serving { stop, task: tasks::spawn("sink", serve) })
    }

    fn ids(&self) -> Vec<u64> {
        self.events.lock().iter().map(|event| u64::from_str_radix(&event.id, 16).unwrap()).collect()
    }

    async fn has(&self, events: usize) {
        let wait = async {
            while self.ids().len() < events {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(30), wait).await;
        assert!(waited.is_ok(), "{events} events do not come: {:?}", self.ids());
    }
}

fn bus() -> EventBus {
    EventBus::new(Arc::new(stdx::SystemClock))
}

fn anywhere() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn deliver(bus: &EventBus, at: SocketAddr) -> Task<()> {
    tasks::spawn("delivery", deliver_events(bus.clone(), at.to_string().parse().unwrap()))
}

#[tokio::test]
async fn a_sink_gets_what_was_kept_and_what_comes_in_the_form_of_the_wire() {
    let (bus, sink) = (bus(), Kept::default());
    bus.publish_for(
        "someone",
        Payload::Sequence { sequence: "boot".into(), action: SequenceAction::Start, error: None },
    );
    let (at, _server) = sink.serve(anywhere()).await;
    let _delivery = deliver(&bus, at);
    sink.has(1).await;
    bus.publish(Payload::Restart { command: 3 });
    sink.has(2).await;
    let events = sink.events.lock().clone();
    let (first, second) = (&events[0], &events[1]);
    assert_eq!((first.id.as_str(), first.actor_id.as_str()), ("0000000000000001", "someone"));
    let data = first.data.as_ref().unwrap();
    assert_eq!(data.type_url, "type.googleapis.com/machine.SequenceEvent");
    let sequence = <wire::machine::SequenceEvent as prost::Message>::decode(data.value.as_slice()).unwrap();
    assert_eq!((sequence.sequence.as_str(), sequence.action), ("boot", 1));
    assert_eq!((second.id.as_str(), second.actor_id.as_str()), ("0000000000000002", ""));
}

#[tokio::test]
async fn a_sink_that_is_away_gets_all_that_is_kept_when_it_comes_back() {
    let (bus, sink) = (bus(), Kept::default());
    let (at, server) = sink.serve(anywhere()).await;
    let _delivery = deliver(&bus, at);
    bus.publish(Payload::Restart { command: 1 });
    sink.has(1).await;
    server.stop().await;
    for command in 2..=5 {
        bus.publish(Payload::Restart { command });
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(sink.ids(), [1]);
    let (_, _server) = sink.serve(at).await;
    sink.has(5).await;
    let mut ids = sink.ids();
    // One whose answer was lost comes twice.
    ids.dedup();
    assert_eq!(ids, [1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn a_machine_keeps_no_more_events_for_a_sink_than_for_itself() {
    let (bus, sink) = (bus(), Kept::default());
    let more = i64::try_from(CAPACITY).unwrap() + 20;
    for command in 0..more {
        bus.publish(Payload::Restart { command });
    }
    let (at, _server) = sink.serve(anywhere()).await;
    let _delivery = deliver(&bus, at);
    sink.has(CAPACITY).await;
    assert_eq!((sink.ids().first().copied(), sink.ids().len()), (Some(21), CAPACITY));
}

#[tokio::test]
async fn an_event_that_a_sink_refuses_keeps_no_other_from_it() {
    let (bus, sink) = (bus(), Kept::default());
    *sink.refused.lock() = Some(("0000000000000002".to_owned(), Code::InvalidArgument));
    let (at, _server) = sink.serve(anywhere()).await;
    let _delivery = deliver(&bus, at);
    for command in 1..=3 {
        bus.publish(Payload::Restart { command });
    }
    sink.has(2).await;
    assert_eq!(sink.ids(), [1, 3]);
}
