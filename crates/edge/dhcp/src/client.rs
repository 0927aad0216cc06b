//! The client of RFC 2131 as a state machine: time, packets and names in; messages and leases out.
//!
//! It does no I/O and reads no clock: every call says what time it is, as the time since some fixed instant. A lease stays in
//! force until another one replaces it or it expires, also when a server has refused to renew it; meanwhile the client looks
//! for a new one.

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::code::Code;
use crate::lease::Lease;
use crate::message::{Message, MessageType, Op};

/// Waits for an answer to the first, second and third message of a kind.
const TRIES: [Duration; 3] = [Duration::from_secs(5), Duration::from_secs(10), Duration::from_secs(20)];
/// The shortest and the longest pause before the client starts anew.
const PAUSES: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));
/// The shortest time between later attempts to renew a lease (RFC 2131, 4.4.5).
const LATER_RENEWALS: Duration = Duration::from_secs(60);
/// The largest message that the client takes.
const MAX_SIZE: u16 = 1500;

/// What to do about the name of the host. A name is never asked for and told at the same time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum NameRequest {
    /// Ask the server for one.
    #[default]
    Ask,
    /// Tell the server this one.
    Tell {
        /// Without the domain.
        host: String,
        /// Empty without one.
        domain: String,
    },
    /// Neither.
    Silent,
}

/// What a client is made of.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The Ethernet address of the link.
    pub hardware: [u8; 6],
    /// The name of the host.
    pub name: NameRequest,
    /// The origin of transaction numbers and of jitter.
    pub seed: u64,
}

/// What happened.
#[derive(Debug)]
pub enum Event<'a> {
    /// The time of [`Client::deadline`] has come, or something else made it worth a look.
    Tick,
    /// A message came; anything that is no answer to this client is ignored.
    Received(&'a [u8]),
    /// The name of the host changed.
    Rename(NameRequest),
}

/// The receiver of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// Everybody on the link, from a host without an address.
    Everybody,
    /// The server of a lease, from the address of the lease.
    Server {
        /// The address of the lease.
        from: Ipv4Addr,
        /// The server.
        server: Ipv4Addr,
    },
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send a message.
    Send {
        /// Its bytes.
        message: Vec<u8>,
        /// Its receiver.
        to: Destination,
    },
    /// This lease is in force, in place of any earlier one.
    Bound(Box<Lease>),
    /// No lease is in force any more.
    Lost(Loss),
}

/// Why a lease ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Nobody renewed it in time.
    Expired,
}

/// The lease in force and the time from which it counts.
#[derive(Debug)]
struct Held {
    lease: Lease,
    since: Duration,
}

impl Held {
    fn at(&self, time: Option<Duration>) -> Option<Duration> {
        time.map(|time| self.since.saturating_add(time))
    }

    fn expires(&self) -> Option<Duration> {
        self.at(self.lease.time)
    }
}

/// A message that waits for an answer.
#[derive(Debug, Clone, Copy)]
struct Exchange {
    xid: u32,
    /// How often it was sent.
    sent: usize,
    last: Duration,
    until: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Offer {
    address: Ipv4Addr,
    server: Ipv4Addr,
}

/// The states of RFC 2131. `Waiting` is its INIT.
#[derive(Debug, Clone, Copy)]
enum State {
    Waiting { until: Duration },
    Selecting(Exchange),
    Requesting(Exchange, Offer),
    Bound,
    Renewing(Exchange),
    Rebinding(Exchange),
}

/// A DHCP client of one link.
#[derive(Debug)]
pub struct Client {
    hardware: [u8; 6],
    name: NameRequest,
    random: u64,
    state: State,
    held: Option<Held>,
    /// When the search for a lease began.
    began: Duration,
    /// Failed searches in a row.
    failures: u32,
}

impl Client {
    /// A client that starts at the first [`Event::Tick`].
    #[must_use]
    pub fn new(settings: Settings, now: Duration) -> Self {
        let Settings { hardware, name, seed } = settings;
        let state = State::Waiting { until: now };
        Self { hardware, name, random: seed, state, held: None, began: now, failures: 0 }
    }

    /// When to call again with [`Event::Tick`]; `None` after a lease without end.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        let step = match self.state {
            State::Waiting { until } => Some(until),
            State::Selecting(exchange)
            | State::Requesting(exchange, _)
            | State::Renewing(exchange)
            | State::Rebinding(exchange) => Some(exchange.until),
            State::Bound => self.held.as_ref().and_then(|held| held.at(held.lease.renewal)),
        };
        let expiry = self.held.as_ref().and_then(Held::expires);
        match (step, expiry) {
            (Some(step), Some(expiry)) => Some(step.min(expiry)),
            (step, expiry) => step.or(expiry),
        }
    }

    /// Whether it waits for an answer, so that somebody has to listen.
    #[must_use]
    pub const fn is_listening(&self) -> bool {
        !matches!(self.state, State::Waiting { .. } | State::Bound)
    }

    /// Takes a step.
    pub fn handle(&mut self, now: Duration, event: Event<'_>) -> Vec<Action> {
        let mut actions = Vec::new();
        self.expire(now, &mut actions);
        match event {
            Event::Tick => {}
            Event::Received(bytes) => self.received(now, bytes, &mut actions),
            Event::Rename(name) => {
                if self.name != name {
                    self.name = name;
                    if !matches!(self.state, State::Waiting { .. }) {
                        self.discover(now, &mut actions);
                    }
                }
            }
        }
        self.tick(now, &mut actions);
        actions
    }

    fn expire(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if self.held.as_ref().and_then(Held::expires).is_none_or(|expires| now < expires) {
            return;
        }
        self.held = None;
        actions.push(Action::Lost(Loss::Expired));
        if matches!(self.state, State::Bound | State::Renewing(_) | State::Rebinding(_)) {
            self.state = State::Waiting { until: now };
        }
    }

    fn tick(&mut self, now: Duration, actions: &mut Vec<Action>) {
        match self.state {
            State::Waiting { until } if now >= until => self.discover(now, actions),
            State::Selecting(exchange) if now >= exchange.until => match self.again(exchange, now) {
                Some(exchange) => self.select(exchange, now, actions),
                None => self.pause(now),
            },
            State::Requesting(exchange, offer) if now >= exchange.until => match self.again(exchange, now) {
                Some(exchange) => self.request(exchange, offer, now, actions),
                None => self.pause(now),
            },
            State::Bound | State::Renewing(_) | State::Rebinding(_) => self.renew(now, actions),
            _ => {}
        }
    }

    /// Looks for a lease from the beginning.
    fn discover(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if self.failures == 0 {
            self.began = now;
        }
        let exchange = self.first(now);
        self.select(exchange, now, actions);
    }

    fn select(&mut self, exchange: Exchange, now: Duration, actions: &mut Vec<Action>) {
        let mut message = self.message(MessageType::Discover, exchange.xid, now);
        if let Some(held) = &self.held {
            message = message.with(Code::RequestedAddress, held.lease.address.addr().octets());
        }
        actions.push(Action::Send { message: message.encode(), to: Destination::Everybody });
        self.state = State::Selecting(exchange);
    }

    fn request(&mut self, exchange: Exchange, offer: Offer, now: Duration, actions: &mut Vec<Action>) {
        let message = self
            .message(MessageType::Request, exchange.xid, now)
            .with(Code::RequestedAddress, offer.address.octets())
            .with(Code::ServerId, offer.server.octets());
        actions.push(Action::Send { message: message.encode(), to: Destination::Everybody });
        self.state = State::Requesting(exchange, offer);
    }

    /// Asks for more time when it is due: first the server of the lease, later any server.
    fn renew(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let Some(held) = &self.held else { return };
        let (address, server) = (held.lease.address.addr(), held.lease.server);
        let (Some(renewal), Some(rebinding), Some(expiry)) =
            (held.at(held.lease.renewal), held.at(held.lease.rebinding), held.expires())
        else {
            return;
        };
        let is_late = now >= rebinding;
        let last = match self.state {
            State::Bound if now >= renewal => None,
            // A search has to end before the next step; each kind of message is numbered anew.
            State::Renewing(_) if is_late => None,
            State::Renewing(exchange) | State::Rebinding(exchange) if now >= exchange.until => Some(exchange),
            _ => return,
        };
        let end = if is_late { expiry } else { rebinding };
        let mut exchange = last.unwrap_or_else(|| self.first(now));
        if last.is_some() {
            exchange.sent += 1;
        }
        let wait = TRIES.get(exchange.sent - 1).copied();
        let wait = wait.unwrap_or_else(|| (end.saturating_sub(now) / 2).max(LATER_RENEWALS));
        exchange.last = now;
        exchange.until = now.saturating_add(wait).min(end);
        let mut message = self.message(MessageType::Request, exchange.xid, now);
        message.ciaddr = address;
        let to = if is_late { Destination::Everybody } else { Destination::Server { from: address, server } };
        actions.push(Action::Send { message: message.encode(), to });
        self.state = if is_late { State::Rebinding(exchange) } else { State::Renewing(exchange) };
    }

    fn received(&mut self, now: Duration, bytes: &[u8], actions: &mut Vec<Action>) {
        let (State::Selecting(exchange)
        | State::Requesting(exchange, _)
        | State::Renewing(exchange)
        | State::Rebinding(exchange)) = self.state
        else {
            return;
        };
        let Ok(message) = Message::decode(bytes) else { return };
        if message.op != Op::Reply || message.xid != exchange.xid || message.chaddr != self.hardware {
            return;
        }
        let Some(kind) = message.kind() else { return };
        match (self.state, kind) {
            (State::Selecting(_), MessageType::Offer) => {
                let Ok(lease) = Lease::from_message(&message) else { return };
                let offer = Offer { address: lease.address.addr(), server: lease.server };
                let exchange = Exchange { xid: exchange.xid, ..self.first(now) };
                self.request(exchange, offer, now, actions);
            }
            (State::Requesting(_, offer), MessageType::Ack) => {
                self.acknowledged(&message, offer.address, (exchange.last, now), actions);
            }
            (State::Renewing(_) | State::Rebinding(_), MessageType::Ack) => {
                let Some(address) = self.held.as_ref().map(|held| held.lease.address.addr()) else { return };
                self.acknowledged(&message, address, (exchange.last, now), actions);
            }
            (State::Requesting(_, offer), MessageType::Nak) if is_from(&message, offer.server) => self.pause(now),
            (State::Renewing(_), MessageType::Nak)
                if self.held.as_ref().is_some_and(|held| is_from(&message, held.lease.server)) =>
            {
                self.discover(now, actions);
            }
            (State::Rebinding(_), MessageType::Nak) => self.discover(now, actions),
            _ => {}
        }
    }

    /// An acknowledgement of another address than the one asked for is ignored, and so is one that comes after the end of its
    /// lease, which counts from the request.
    fn acknowledged(
        &mut self,
        message: &Message,
        address: Ipv4Addr,
        (since, now): (Duration, Duration),
        actions: &mut Vec<Action>,
    ) {
        let is_current = |lease: &Lease| lease.time.is_none_or(|time| since.saturating_add(time) > now);
        let lease = Lease::from_message(message).ok();
        let Some(lease) = lease.filter(|lease| lease.address.addr() == address && is_current(lease)) else { return };
        self.failures = 0;
        self.state = State::Bound;
        actions.push(Action::Bound(Box::new(lease.clone())));
        self.held = Some(Held { lease, since });
    }

    /// Starts anew after a while, longer after each failure.
    fn pause(&mut self, now: Duration) {
        let (shortest, longest) = PAUSES;
        let pause = shortest.saturating_mul(1 << self.failures.min(8)).min(longest);
        self.failures = self.failures.saturating_add(1);
        self.state = State::Waiting { until: now.saturating_add(pause) + self.jitter() };
    }

    fn first(&mut self, now: Duration) -> Exchange {
        let until = now.saturating_add(TRIES[0]) + self.jitter();
        Exchange { xid: u32::try_from(self.next_random() >> 32).unwrap_or_default(), sent: 1, last: now, until }
    }

    fn again(&mut self, exchange: Exchange, now: Duration) -> Option<Exchange> {
        let wait = *TRIES.get(exchange.sent)?;
        let until = now.saturating_add(wait) + self.jitter();
        Some(Exchange { sent: exchange.sent + 1, last: now, until, ..exchange })
    }

    /// Less than a second, so that machines that start together do not ask together.
    fn jitter(&mut self) -> Duration {
        Duration::from_millis(self.next_random() % 1000)
    }

    /// SplitMix64.
    const fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn message(&self, kind: MessageType, xid: u32, now: Duration) -> Message {
        let mut parameters = [
            Code::SubnetMask,
            Code::Router,
            Code::DomainName,
            Code::DnsServers,
            Code::ClasslessRoutes,
            Code::DomainSearch,
            Code::NtpServers,
            Code::Mtu,
        ]
        .map(Code::number)
        .to_vec();
        let mut message = Message::request(xid, self.hardware).of(kind).with(Code::MaxSize, MAX_SIZE.to_be_bytes());
        message.secs = u16::try_from(now.saturating_sub(self.began).as_secs()).unwrap_or(u16::MAX);
        match &self.name {
            NameRequest::Ask => parameters.push(Code::HostName.number()),
            NameRequest::Tell { host, domain } => {
                message = message.with(Code::HostName, host.as_bytes());
                if !domain.is_empty() {
                    message = message.with(Code::DomainName, domain.as_bytes());
                }
            }
            NameRequest::Silent => {}
        }
        message.with(Code::ParameterList, parameters)
    }
}

fn is_from(message: &Message, server: Ipv4Addr) -> bool {
    message.address(Code::ServerId) == Some(server)
}

#[cfg(test)]
mod tests;
