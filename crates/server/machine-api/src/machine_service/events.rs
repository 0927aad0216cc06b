//! The event bus as messages of the API.

use futures::stream::{self, BoxStream, StreamExt};
use sequencer::events::Event;
use tonic::Status;
use wire::machine as api;

use crate::machine::Machine;

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
        id: event_delivery::event_id(&event),
        data: Some(event_delivery::any(event_delivery::API_TYPES, event.payload)),
        actor_id: event.actor,
    }
}
