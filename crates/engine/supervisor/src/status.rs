//! Status of a service.

use std::collections::VecDeque;
use std::fmt;

use jiff::Timestamp;

/// How many past events of a service are kept.
const KEPT_EVENTS: usize = 64;

/// The state of a service, with the names of the machine API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceState {
    Initialized,
    Preparing,
    Waiting,
    Running,
    Stopping,
    Finished,
    Failed,
    Skipped,
    Starting,
}

impl fmt::Display for ServiceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// Result of the last health check. Unknown while the service is not running or has no check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    pub unknown: bool,
    pub healthy: bool,
    pub last_message: String,
    pub last_change: Timestamp,
}

/// A state transition of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceEvent {
    pub message: String,
    pub state: ServiceState,
    pub at: Timestamp,
}

/// A service as an operator sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceStatus {
    pub id: String,
    pub state: ServiceState,
    /// Oldest first.
    pub events: VecDeque<ServiceEvent>,
    pub health: Health,
    pub(crate) has_check: bool,
    /// Whether it is done when it has finished.
    pub(crate) one_shot: bool,
}

/// A change of state, as it is published.
#[derive(Debug, Clone, PartialEq)]
pub struct StateChange {
    pub id: String,
    pub state: ServiceState,
    pub message: String,
    pub health: Health,
}

impl ServiceStatus {
    pub(crate) fn new(id: &str, has_check: bool, one_shot: bool, now: Timestamp) -> Self {
        let health = Health { unknown: true, healthy: false, last_message: String::new(), last_change: now };
        Self {
            id: id.to_owned(),
            state: ServiceState::Initialized,
            events: VecDeque::new(),
            health,
            has_check,
            one_shot,
        }
    }

    /// Up for those that depend on it: running, and healthy if it has a check. A one-shot service that finished is up;
    /// another one that finished is stopped, or between two runs.
    pub fn is_up(&self) -> bool {
        match self.state {
            ServiceState::Running => !self.has_check || self.health.healthy,
            ServiceState::Finished => self.one_shot,
            ServiceState::Skipped => true,
            _ => false,
        }
    }

    /// Reason of its state: the unmet condition, or the result of its last run or check.
    pub fn reason(&self) -> &str {
        let last = self.events.back().map_or("", |event| event.message.as_str());
        if self.health.last_message.is_empty() { last } else { &self.health.last_message }
    }

    pub(crate) fn enter(&mut self, state: ServiceState, message: &str, now: Timestamp) -> bool {
        let repeated = self.events.back().is_some_and(|last| last.state == state && last.message == message);
        if repeated {
            return false;
        }
        if state != ServiceState::Running {
            self.set_health(None, now);
        }
        self.state = state;
        if self.events.len() == KEPT_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(ServiceEvent { message: message.to_owned(), state, at: now });
        true
    }

    /// Returns whether anything but the time changed.
    pub(crate) fn set_health(&mut self, result: Option<&Result<(), String>>, now: Timestamp) -> bool {
        let (unknown, healthy, message) = match result {
            None => (true, false, String::new()),
            Some(Ok(())) => (false, true, String::new()),
            Some(Err(reason)) => (false, false, reason.clone()),
        };
        let before = (self.health.unknown, self.health.healthy);
        let same_message = self.health.last_message == message;
        self.health.last_message = message;
        if before == (unknown, healthy) {
            return !same_message;
        }
        self.health.unknown = unknown;
        self.health.healthy = healthy;
        self.health.last_change = now;
        true
    }

    pub(crate) fn change(&self) -> StateChange {
        let message = self.events.back().map(|e| e.message.clone()).unwrap_or_default();
        StateChange { id: self.id.clone(), state: self.state, message, health: self.health.clone() }
    }
}
