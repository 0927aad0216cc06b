//! The delivery to one sink, which is tried until it takes an event.

use std::time::Duration;

use sequencer::EventBus;
use sequencer::events::Event;
use stdx::{Backoff, error_chain};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use wire::events::EventRequest;
use wire::events::event_sink_service_client::EventSinkServiceClient;

use crate::message::{SINK_TYPES, any, event_id};
use crate::sink::Sink;

/// How long connecting may take, and an answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Pauses between two tries.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

#[derive(Debug, thiserror::Error)]
enum PublishError {
    #[error("connecting to the event sink {0}")]
    Connect(Sink, #[source] tonic::transport::Error),
    #[error("publishing an event to {0}")]
    Publish(Sink, #[source] Box<Status>),
}

impl PublishError {
    /// Whether the sink refuses this very event for ever.
    fn is_final(&self) -> bool {
        match self {
            Self::Connect(..) => false,
            Self::Publish(_, status) => status.code() == Code::InvalidArgument,
        }
    }
}

/// Sends all events to a sink in their order, from the oldest that is kept on. It does not end.
///
/// An event arrives at least once: one whose answer was lost is sent again, with the same id. Of a sink that is away for
/// longer than the bus keeps events, the oldest are lost. An outage is logged when it begins, and what it cost when it ends.
pub async fn deliver_events(bus: EventBus, sink: Sink) {
    let mut follower = bus.follow(|_| true);
    let mut connection = Connection { sink: sink.clone(), client: None };
    let mut last = None;
    while let Some(event) = follower.next().await {
        // The first event of a machine is number 1.
        let mut lost = event.sequence.saturating_sub(last.unwrap_or_default() + 1);
        last = Some(event.sequence);
        let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
        loop {
            match connection.publish(&event).await {
                Ok(()) => break,
                Err(error) if error.is_final() => {
                    tracing::debug!(error = error_chain(&error), "event dropped");
                    lost += 1;
                    break;
                }
                Err(error) => {
                    if backoff.attempts() == 0 {
                        tracing::warn!(error = error_chain(&error), "events are not delivered; retrying");
                    }
                    tokio::time::sleep(backoff.next_delay(stdx::backoff::random_jitter())).await;
                }
            }
        }
        if backoff.attempts() > 0 {
            tracing::info!(%sink, lost, "events are delivered again");
        } else if lost > 0 {
            tracing::warn!(%sink, lost, "events were not delivered");
        }
    }
}

struct Connection {
    sink: Sink,
    client: Option<EventSinkServiceClient<Channel>>,
}

impl Connection {
    /// Sends an event. A connection that failed is not used again.
    async fn publish(&mut self, event: &Event) -> Result<(), PublishError> {
        let mut client = match self.client.take() {
            Some(client) => client,
            None => self.connect().await?,
        };
        let request = EventRequest {
            data: Some(any(SINK_TYPES, event.payload.clone())),
            id: event_id(event),
            actor_id: event.actor.clone(),
        };
        match client.publish(request).await {
            Ok(_) => {
                self.client = Some(client);
                Ok(())
            }
            Err(status) => Err(PublishError::Publish(self.sink.clone(), Box::new(status))),
        }
    }

    async fn connect(&self) -> Result<EventSinkServiceClient<Channel>, PublishError> {
        let failed = |error| PublishError::Connect(self.sink.clone(), error);
        let endpoint = Endpoint::from_shared(format!("http://{}", self.sink)).map_err(failed)?;
        let channel = endpoint.connect_timeout(TIMEOUT).timeout(TIMEOUT).connect().await.map_err(failed)?;
        // Its answers are empty.
        Ok(EventSinkServiceClient::new(channel).max_decoding_message_size(64 << 10))
    }
}

#[cfg(test)]
mod tests;
