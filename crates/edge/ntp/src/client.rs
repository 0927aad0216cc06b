//! Whom to ask, when, and what to do about the clock: time and answers in, queries and adjustments out.
//!
//! It does no I/O and reads no clock: every call says what time it is, as the time since some fixed instant.

use std::net::IpAddr;
use std::time::Duration;

use crate::offset::Offset;
use crate::packet::{Answer, Leap, Sample};
use crate::spikes::Spikes;

/// Between answers: the shortest and the longest time.
const POLLS: (Duration, Duration) = (Duration::from_secs(32), Duration::from_secs(2048));
/// After a failure.
const RETRY: Duration = Duration::from_secs(1);
/// Larger offsets are stepped, others slewed.
const MAX_SLEW: Duration = Duration::from_millis(400);
/// Larger steps start another epoch.
const EPOCH: Duration = Duration::from_secs(15 * 60);
/// Offsets below this are small, so that asking less often is enough.
const SMALL: Duration = Duration::from_millis(50);
/// Offsets above this need a look more often.
const LARGE: Duration = Duration::from_millis(150);
/// Offsets above this need a look as often as possible.
const HUGE: Duration = Duration::from_millis(200);

/// A server to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// A name, an address, or the path of a clock device below `/dev`.
    pub server: String,
    /// Its address that answered last.
    pub address: Option<IpAddr>,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// The time of [`Client::deadline`] has come.
    Tick,
    /// The server answered, from that address (none for a device).
    Answered(Answer, Option<IpAddr>),
    /// It did not.
    Failed,
    /// The servers to use are others now.
    Servers(Vec<String>),
}

/// What is to be done about the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adjustment {
    /// Let the kernel take the offset away gradually.
    Slew {
        /// What is to be added to the clock.
        offset: Offset,
        /// The constant of the kernel's loop.
        constant: i64,
        /// A leap second at the end of the day.
        leap: Leap,
    },
    /// Set the clock.
    Step {
        /// What is to be added to the clock.
        offset: Offset,
        /// Whether it is so much that certificates have to be made anew.
        is_epoch: bool,
    },
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Ask a server; the outcome is the next event.
    Query(Target),
    /// Adjust the clock, which is right then.
    Adjust(Adjustment),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// There are no servers.
    Idle,
    Waiting {
        until: Duration,
    },
    /// A query is on its way.
    Asking,
}

#[derive(Debug)]
struct Server {
    target: Target,
    /// It asked not to be asked (DENY, RSTR).
    is_refusing: bool,
}

/// A client of one machine.
#[derive(Debug)]
pub struct Client {
    servers: Vec<Server>,
    /// The place of the server in use.
    current: usize,
    state: State,
    poll: Duration,
    spikes: Spikes,
}

impl Client {
    /// A client that asks the first server at once.
    #[must_use]
    pub fn new(servers: Vec<String>, now: Duration) -> Self {
        let mut client =
            Self { servers: Vec::new(), current: 0, state: State::Idle, poll: POLLS.0, spikes: Spikes::default() };
        client.set_servers(servers, now);
        client
    }

    /// When to call again with [`Event::Tick`]; `None` while an answer or a server is waited for.
    #[must_use]
    pub const fn deadline(&self) -> Option<Duration> {
        match self.state {
            State::Waiting { until } => Some(until),
            State::Idle | State::Asking => None,
        }
    }

    /// The time between two queries.
    #[must_use]
    pub const fn poll(&self) -> Duration {
        self.poll
    }

    /// Takes a step.
    pub fn handle(&mut self, now: Duration, event: Event) -> Option<Action> {
        match (event, self.state) {
            (Event::Servers(servers), _) => {
                self.set_servers(servers, now);
                None
            }
            (Event::Tick, State::Waiting { until }) if now >= until => self.query(),
            (Event::Answered(Answer::Sample(sample), address), State::Asking) => self.sample(now, sample, address),
            (Event::Answered(Answer::KissOfDeath(code), _), State::Asking) => {
                self.refused(now, code);
                None
            }
            (Event::Failed, State::Asking) => {
                self.fail_over(now, RETRY);
                None
            }
            // An answer that nobody waits for is from a server that is no longer in use.
            _ => None,
        }
    }

    fn set_servers(&mut self, servers: Vec<String>, now: Duration) {
        if self.servers.iter().map(|known| &known.target.server).eq(&servers) {
            return;
        }
        let of = |server| Server { target: Target { server, address: None }, is_refusing: false };
        self.servers = servers.into_iter().map(of).collect();
        self.current = 0;
        self.spikes.clear();
        self.poll = POLLS.0;
        self.state = if self.servers.is_empty() { State::Idle } else { State::Waiting { until: now } };
    }

    fn query(&mut self) -> Option<Action> {
        let server = self.servers.get(self.current)?;
        self.state = State::Asking;
        Some(Action::Query(server.target.clone()))
    }

    fn sample(&mut self, now: Duration, sample: Sample, address: Option<IpAddr>) -> Option<Action> {
        if let Some(server) = self.servers.get_mut(self.current) {
            server.target.address = address;
        }
        let is_spike = !sample.is_local && self.spikes.is_spike(sample);
        let size = sample.offset.size();
        self.poll = match size {
            size if size > HUGE => POLLS.0,
            size if size > LARGE || is_spike => self.poll / 2,
            size if size < SMALL => self.poll * 2,
            _ => self.poll,
        }
        .clamp(POLLS.0, POLLS.1);
        self.state = State::Waiting { until: now.saturating_add(self.poll) };
        if is_spike {
            return None;
        }
        if size > MAX_SLEW {
            self.spikes.clear();
            let is_epoch = size > EPOCH;
            return Some(Action::Adjust(Adjustment::Step { offset: sample.offset, is_epoch }));
        }
        let constant = i64::from(self.poll.as_secs().max(1).ilog2()) - 4;
        Some(Action::Adjust(Adjustment::Slew { offset: sample.offset, constant, leap: sample.leap }))
    }

    /// `DENY` and `RSTR` mean for good; others, as `RATE`, that it was too often.
    fn refused(&mut self, now: Duration, code: [u8; 4]) {
        self.poll = (self.poll * 2).min(POLLS.1);
        if matches!(&code, b"DENY" | b"RSTR")
            && let Some(server) = self.servers.get_mut(self.current)
        {
            server.is_refusing = true;
        }
        let all_refuse = self.servers.iter().all(|server| server.is_refusing);
        if all_refuse {
            // Much later they may think otherwise.
            self.servers.iter_mut().for_each(|server| server.is_refusing = false);
        }
        let wait = if all_refuse { POLLS.1 } else { self.poll };
        self.fail_over(now, wait);
    }

    /// Goes on with the next server that does not refuse, whose name is looked up again.
    fn fail_over(&mut self, now: Duration, wait: Duration) {
        if let Some(server) = self.servers.get_mut(self.current) {
            server.target.address = None;
        }
        let count = self.servers.len();
        let next = (1..=count).map(|step| (self.current + step) % count);
        self.current = next.into_iter().find(|at| !self.servers[*at].is_refusing).unwrap_or_default();
        self.spikes.clear();
        self.state = State::Waiting { until: now.saturating_add(wait) };
    }
}

#[cfg(test)]
mod tests;
