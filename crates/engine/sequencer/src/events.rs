//! The event bus: the last 1,000 events are kept, and followers get each later one.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

/// How many events are kept (Talos 1.7).
pub const CAPACITY: usize = 1000;

/// Content of an event. One variant per message of the machine API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    Sequence { sequence: String, action: SequenceAction, error: Option<SequenceError> },
    Phase { phase: String, action: Action },
    Task { task: String, action: Action },
    ServiceState { service: String, state: String, message: String, health: Option<ServiceHealth> },
    Restart { command: i64 },
    ConfigLoadError { error: String },
    ConfigValidationError { error: String },
    Address { hostname: String, addresses: Vec<String> },
    MachineStatus { stage: String, ready: bool, unmet: Vec<(String, String)> },
}

/// The health part of a service event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceHealth {
    pub unknown: bool,
    pub healthy: bool,
    pub message: String,
}

/// Outcome of a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SequenceAction {
    /// It did not start.
    Noop,
    Start,
    Stop,
}

/// Why a sequence did not run, or did not end well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SequenceError {
    pub code: ErrorCode,
    pub message: String,
}

/// The codes of the machine API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorCode {
    /// It failed; the machine reboots.
    Fatal,
    /// Another sequence runs.
    Locked,
    /// Another sequence took over.
    Canceled,
}

/// Begin or end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Start,
    Stop,
}

/// An event with its place in the order of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Counts up from 1.
    pub sequence: u64,
    /// Seconds since the epoch.
    pub at: i64,
    /// The actor; empty for the machine itself.
    pub actor: String,
    pub payload: Payload,
}

struct Ring {
    events: VecDeque<Event>,
    next: u64,
}

/// Where events are announced. Cheap to clone.
#[derive(Clone)]
pub struct EventBus {
    kept: Arc<Mutex<Ring>>,
    version: watch::Sender<u64>,
    clock: Arc<dyn stdx::Clock>,
}

impl std::fmt::Debug for EventBus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventBus").finish_non_exhaustive()
    }
}

impl EventBus {
    pub fn new(clock: Arc<dyn stdx::Clock>) -> Self {
        let kept = Ring { events: VecDeque::new(), next: 1 };
        Self { kept: Arc::new(Mutex::new(kept)), version: watch::Sender::new(0), clock }
    }

    /// Announces an event of the machine itself.
    pub fn publish(&self, payload: Payload) {
        self.publish_for("", payload);
    }

    /// Announces an event that `actor` caused.
    pub fn publish_for(&self, actor: &str, payload: Payload) {
        let since_epoch = self.clock.now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let at = i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX);
        let mut kept = self.kept.lock();
        let sequence = kept.next;
        kept.next += 1;
        if kept.events.len() == CAPACITY {
            kept.events.pop_front();
        }
        kept.events.push_back(Event { sequence, at, actor: actor.to_owned(), payload });
        self.version.send_replace(sequence);
    }

    /// Subscribes to events: first the kept ones that `past` accepts, then all later ones.
    pub fn follow(&self, past: impl Fn(&Event) -> bool) -> Follower {
        let kept = self.kept.lock();
        let backlog = kept.events.iter().filter(|event| past(event)).cloned().collect();
        Follower { bus: self.clone(), backlog, next: kept.next, version: self.version.subscribe() }
    }

    /// The events that are kept, oldest first.
    pub fn kept(&self) -> Vec<Event> {
        self.kept.lock().events.iter().cloned().collect()
    }
}

/// A follower of the bus. One that falls more than the kept events behind misses the oldest of them.
#[derive(Debug)]
pub struct Follower {
    bus: EventBus,
    backlog: VecDeque<Event>,
    next: u64,
    version: watch::Receiver<u64>,
}

impl Follower {
    /// The next event, if already available.
    pub fn try_next(&mut self) -> Option<Event> {
        if let Some(event) = self.backlog.pop_front() {
            return Some(event);
        }
        let kept = self.bus.kept.lock();
        let event = kept.events.iter().find(|event| event.sequence >= self.next)?.clone();
        self.next = event.sequence + 1;
        Some(event)
    }

    /// The next event, waiting for it. Cancel-safe. `None` when the bus is dropped.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            self.version.borrow_and_update();
            if let Some(event) = self.try_next() {
                return Some(event);
            }
            self.version.changed().await.ok()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn restart(command: i64) -> Payload {
        Payload::Restart { command }
    }

    #[tokio::test]
    async fn a_follower_gets_the_past_it_asked_for_and_then_everything() {
        let bus = EventBus::new(Arc::new(stdx::SystemClock));
        for n in 1..=3 {
            bus.publish(restart(n));
        }
        let mut follower = bus.follow(|event| event.sequence >= 3);
        bus.publish_for("someone", restart(4));
        assert_eq!(follower.next().await.unwrap().payload, restart(3));
        let last = follower.next().await.unwrap();
        assert_eq!((last.payload, last.actor.as_str()), (restart(4), "someone"));
        assert_eq!(follower.try_next(), None);
    }

    #[tokio::test]
    async fn the_oldest_events_make_room() {
        let bus = EventBus::new(Arc::new(stdx::SystemClock));
        let mut slow = bus.follow(|_| false);
        for n in 0..=i64::try_from(CAPACITY).unwrap() {
            bus.publish(restart(n));
        }
        assert_eq!(bus.kept().len(), CAPACITY);
        assert_eq!(slow.next().await.unwrap().payload, restart(1));
    }
}
