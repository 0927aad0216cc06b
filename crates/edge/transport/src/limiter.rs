//! Connection limits: how many connections a server keeps open, all together and for each client.
//!
//! Clients that have shown a certificate are counted by identity and by source address, and a part of the connections is
//! kept for privileged ones ([`ConnectionLimiter`]). Peers that have shown none, because their handshake is not finished or
//! the server asks for no certificate, are in a small pool of their own ([`AnonymousPool`]). It never refuses: a newcomer
//! displaces the oldest connection of its own source, or of the source with the most connections where the pool is full.
//! So idle connections cannot keep out a client behind the same address that does shake hands. A server whose anonymous
//! clients stay for long refuses newcomers instead ([`WhenFull`]).

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use stdx::tasks::CancellationToken;

use crate::peer::PeerInfo;

/// Limits of a server.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections, all together.
    pub total: usize,
    /// The part of `total` that only privileged clients get.
    pub reserved: usize,
    /// Connections from one source: an IPv4 address, or a /64 of IPv6, which is what one host can have. Privileged clients
    /// do not count.
    pub per_source: usize,
    /// Connections with one key.
    pub per_identity: usize,
    /// Concurrent handshakes: each costs memory and signatures, and any host can begin one.
    pub handshakes: usize,
    /// Handshakes at a time from one source.
    pub handshakes_per_source: usize,
    /// Handling of a new connection without a certificate when `total` or `per_source` is reached.
    pub when_full: WhenFull,
    /// Calls at a time on one connection.
    pub streams: u32,
    /// How long a connection may last where there are few; calls that are open then have a little longer.
    pub age: Option<Duration>,
    /// Whether a client with a certificate is privileged.
    pub privileged: fn(&PeerInfo) -> bool,
}

/// Handling of a new connection without a certificate when the pool is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// It takes the place of an older connection: for clients that come for a moment.
    Displace,
    /// It is closed: for clients that stay.
    Refuse,
}

/// No privileged clients.
const fn nobody(_: &PeerInfo) -> bool {
    false
}

impl Limits {
    /// Of a server that knows its clients by certificate: operators, programs on Kubernetes, and other nodes, of which
    /// each has all its clients on one connection.
    pub const KNOWN: Self = Self {
        total: 2048,
        reserved: 256,
        per_source: 512,
        per_identity: 256,
        handshakes: 256,
        handshakes_per_source: 64,
        when_full: WhenFull::Displace,
        streams: 4096,
        age: None,
        privileged: nobody,
    };
    /// For a node's public server. Its clients connect rarely and briefly.
    pub const ANYBODY: Self = Self {
        total: 256,
        reserved: 0,
        per_source: 32,
        per_identity: 32,
        streams: 32,
        age: Some(Duration::from_secs(5 * 60)),
        ..Self::KNOWN
    };
    /// Of a server for many clusters, whose nodes may share one address.
    pub const CLUSTERS: Self = Self {
        total: 16_384,
        reserved: 0,
        per_source: 4096,
        per_identity: 4096,
        handshakes: 512,
        handshakes_per_source: 256,
        when_full: WhenFull::Refuse,
        streams: 128,
        ..Self::KNOWN
    };
}

/// Why a client gets no further connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the server has all connections that it keeps for such clients")]
    Total,
    #[error("too many connections from this address")]
    Source,
    #[error("too many connections with this key")]
    Identity,
}

/// Counts connections and refuses those over the limits; clones share the counts.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionLimiter {
    limits: Limits,
    open: Arc<Mutex<Open>>,
}

#[derive(Debug, Default)]
struct Open {
    ordinary: usize,
    privileged: usize,
    by_source: HashMap<IpAddr, usize>,
    by_identity: HashMap<Arc<str>, usize>,
}

/// A connection that is counted until this is dropped.
#[derive(Debug)]
pub(crate) struct ConnectionPermit {
    /// Nothing for privileged clients.
    source: Option<IpAddr>,
    identity: Option<Arc<str>>,
    open: Arc<Mutex<Open>>,
}

impl ConnectionLimiter {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, open: Arc::default() }
    }

    /// Counts a connection of `peer`.
    pub(crate) fn admit(&self, peer: &PeerInfo) -> Result<ConnectionPermit, Refusal> {
        let identity = peer.identity.as_ref().map(|own| Arc::clone(&own.fingerprint));
        self.admit_as(peer, identity)
    }

    fn admit_as(&self, peer: &PeerInfo, identity: Option<Arc<str>>) -> Result<ConnectionPermit, Refusal> {
        let limits = &self.limits;
        let source = (!(limits.privileged)(peer)).then(|| source(peer.address.ip()));
        let mut open = self.open.lock();
        let all = open.ordinary + open.privileged;
        if all >= limits.total || (source.is_some() && open.ordinary >= limits.total.saturating_sub(limits.reserved)) {
            return Err(Refusal::Total);
        }
        if source.is_some_and(|source| open.by_source.get(&source).is_some_and(|count| *count >= limits.per_source)) {
            return Err(Refusal::Source);
        }
        if let Some(identity) = &identity {
            if open.by_identity.get(identity).is_some_and(|count| *count >= limits.per_identity) {
                return Err(Refusal::Identity);
            }
            *open.by_identity.entry(Arc::clone(identity)).or_default() += 1;
        }
        match source {
            Some(source) => {
                *open.by_source.entry(source).or_default() += 1;
                open.ordinary += 1;
            }
            None => open.privileged += 1,
        }
        Ok(ConnectionPermit { source, identity, open: Arc::clone(&self.open) })
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut open = self.open.lock();
        let open = &mut *open;
        if let Some(identity) = &self.identity {
            release(&mut open.by_identity, identity);
        }
        match self.source {
            Some(source) => {
                release(&mut open.by_source, &source);
                open.ordinary -= 1;
            }
            None => open.privileged -= 1,
        }
    }
}

/// Counts one less, and forgets a key that has none left.
fn release<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

/// Connections of peers that have shown no certificate; clones share the pool.
#[derive(Debug, Clone)]
pub(crate) struct AnonymousPool {
    total: usize,
    per_source: usize,
    pool: Arc<Mutex<Pool>>,
}

#[derive(Debug, Default)]
struct Pool {
    next: u64,
    total: usize,
    /// Oldest first. No source without connections.
    by_source: HashMap<IpAddr, VecDeque<(u64, CancellationToken)>>,
}

/// A place in the pool until this is dropped.
#[derive(Debug)]
pub(crate) struct AnonymousConnection {
    source: IpAddr,
    id: u64,
    /// Fires when a newer connection took the place.
    pub(crate) displaced: CancellationToken,
    pool: Arc<Mutex<Pool>>,
}

impl AnonymousPool {
    pub(crate) fn new(total: usize, per_source: usize) -> Self {
        Self { total: total.max(1), per_source: per_source.max(1), pool: Arc::default() }
    }

    /// A place for a peer at `address`.
    pub(crate) fn enter(&self, address: IpAddr) -> AnonymousConnection {
        let source = source(address);
        let mut pool = self.pool.lock();
        if pool.by_source.get(&source).is_some_and(|own| own.len() >= self.per_source) {
            pool.displace_oldest_of(source);
        } else if pool.total >= self.total
            && let Some(largest) = pool.by_source.iter().max_by_key(|(_, own)| own.len()).map(|(source, _)| *source)
        {
            pool.displace_oldest_of(largest);
        }
        let (id, displaced) = (pool.next, CancellationToken::new());
        pool.next += 1;
        pool.total += 1;
        pool.by_source.entry(source).or_default().push_back((id, displaced.clone()));
        AnonymousConnection { source, id, displaced, pool: Arc::clone(&self.pool) }
    }
}

impl Pool {
    fn displace_oldest_of(&mut self, source: IpAddr) {
        let oldest = self.by_source.get(&source).and_then(|own| own.front()).cloned();
        if let Some((id, displaced)) = oldest {
            displaced.cancel();
            self.remove(source, id);
        }
    }

    fn remove(&mut self, source: IpAddr, id: u64) {
        let Some(own) = self.by_source.get_mut(&source) else { return };
        let before = own.len();
        own.retain(|(known, _)| *known != id);
        self.total -= before - own.len();
        if own.is_empty() {
            self.by_source.remove(&source);
        }
    }
}

impl Drop for AnonymousConnection {
    fn drop(&mut self) {
        // One that was displaced is no longer there.
        self.pool.lock().remove(self.source, self.id);
    }
}

/// The source that an address counts for: an IPv4 address itself, the /64 of an IPv6 address, which is what one host can
/// have.
#[must_use]
pub fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(six) => IpAddr::V6(Ipv6Addr::from_bits(six.to_bits() & (u128::MAX << 64))),
        four @ IpAddr::V4(_) => four,
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn peer(address: &str) -> PeerInfo {
        PeerInfo { address: SocketAddr::new(ip(address), 1), identity: None }
    }

    fn limiter(total: usize, per_source: usize, per_identity: usize) -> ConnectionLimiter {
        let privileged = |peer: &PeerInfo| peer.address.ip() == IpAddr::from([10, 0, 0, 9]);
        let limits = Limits { total, reserved: 1, per_source, per_identity, privileged, ..Limits::KNOWN };
        ConnectionLimiter::new(limits)
    }

    fn admit(limiter: &ConnectionLimiter, address: &str, identity: &str) -> Result<ConnectionPermit, Refusal> {
        limiter.admit_as(&peer(address), Some(identity.into()))
    }

    #[test]
    fn one_source_gets_its_share_and_leaves_room_for_others() {
        let limiter = limiter(6, 2, 9);
        let held: Vec<_> = (0..2).map(|_| admit(&limiter, "10.0.0.1", "a").unwrap()).collect();
        assert_eq!(admit(&limiter, "10.0.0.1", "b").unwrap_err(), Refusal::Source);
        let other_form = admit(&limiter, "::ffff:10.0.0.1", "b").unwrap_err();
        assert_eq!(other_form, Refusal::Source, "the same address in another form");
        let _other = admit(&limiter, "10.0.0.2", "b").unwrap();
        drop(held);
        admit(&limiter, "10.0.0.1", "a").unwrap();
        let open = limiter.open.lock();
        assert_eq!((open.by_source.len(), open.by_identity.len()), (1, 1), "sources without connections are forgotten");
    }

    #[test]
    fn a_network_of_ipv6_is_one_source() {
        let limiter = limiter(9, 1, 9);
        let _one = admit(&limiter, "fd00::1", "a").unwrap();
        assert_eq!(admit(&limiter, "fd00::2:3", "a").unwrap_err(), Refusal::Source);
        admit(&limiter, "fd00:0:0:1::1", "a").unwrap();
    }

    #[test]
    fn one_key_gets_its_share_from_wherever_it_connects() {
        let limiter = limiter(9, 9, 2);
        let _held = (admit(&limiter, "10.0.0.1", "a").unwrap(), admit(&limiter, "10.0.0.2", "a").unwrap());
        assert_eq!(admit(&limiter, "10.0.0.3", "a").unwrap_err(), Refusal::Identity);
        admit(&limiter, "10.0.0.3", "b").unwrap();
    }

    #[test]
    fn ordinary_clients_leave_the_rest_to_privileged_ones() {
        let limiter = limiter(3, 9, 9);
        let _held = (admit(&limiter, "10.0.0.1", "a").unwrap(), admit(&limiter, "10.0.0.2", "b").unwrap());
        assert_eq!(admit(&limiter, "10.0.0.3", "c").unwrap_err(), Refusal::Total);
        let _privileged = admit(&limiter, "10.0.0.9", "d").unwrap();
        assert_eq!(admit(&limiter, "10.0.0.9", "d").unwrap_err(), Refusal::Total);
    }

    #[test]
    fn a_newcomer_displaces_the_oldest_of_its_own_source() {
        let pool = AnonymousPool::new(9, 2);
        let other = pool.enter(ip("10.0.0.2"));
        let (first, second) = (pool.enter(ip("10.0.0.1")), pool.enter(ip("10.0.0.1")));
        let third = pool.enter(ip("10.0.0.1"));
        let displaced = [&other, &first, &second, &third].map(|one| one.displaced.is_cancelled());
        assert_eq!(displaced, [false, true, false, false]);
        assert_eq!(pool.pool.lock().total, 3);
        drop((other, first, second, third));
        let pool = pool.pool.lock();
        assert_eq!((pool.total, pool.by_source.len()), (0, 0));
    }

    #[test]
    fn a_newcomer_to_a_full_pool_displaces_one_of_the_source_with_the_most() {
        let pool = AnonymousPool::new(4, 3);
        let few = pool.enter(ip("10.0.0.2"));
        let many: Vec<_> = (0..3).map(|_| pool.enter(ip("10.0.0.1"))).collect();
        let newcomer = pool.enter(ip("10.0.0.3"));
        assert!(many[0].displaced.is_cancelled());
        let others = [&few, &many[1], &many[2], &newcomer];
        assert!(others.iter().all(|one| !one.displaced.is_cancelled()));
    }
}
